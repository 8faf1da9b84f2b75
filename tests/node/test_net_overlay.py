"""Pods of several hosts on a real kernel: VXLAN and host routes, healing, addresses that change."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from lan import Lan, lan, ping

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def pair() -> Iterator[Lan]:
    with lan(2) as made:
        yield made


def test_pods_of_two_hosts_meet(pair: Lan) -> None:
    a, b = pair.hosts
    one, two = a.pod("one"), b.pod("two")
    assert (one, two) == ("10.142.1.2", "10.142.2.2")
    assert ping(a, "one", two, seconds=2)
    assert ping(b, "two", one)
