"""Connections of a node end when its name is taken from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from k1s.api import node_identity
from k1s.api.catalog import builtin
from k1s.server import removed_nodes


@pytest.fixture
def dropped(informers: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(removed_nodes, "_LAST_WORDS", 0.01)
    return []


async def settled(dropped: list[str]) -> list[str]:
    await asyncio.sleep(0.05)
    return dropped


def dropped_by(dropped: list[str]) -> Callable[[str], int]:
    def drop(key: str) -> int:
        dropped.append(key)
        return 1

    return drop


def put(informers: Any, key: str, uid: str = "") -> None:
    informers.informer(builtin("Secret")).put(node_identity.new_record("n1", key, uid))


async def test_it(informers: Any, dropped: list[str]) -> None:
    put(informers, "first")
    removed_nodes.cut_off(informers, dropped_by(dropped))
    put(informers, "first", "uid")  # registered
    informers.put("Secret", "other")
    informers.drop("Secret", "other")
    assert await settled(dropped) == []
    informers.drop("Secret", node_identity.record_name("n1"), "kube-system")
    assert await settled(dropped) == ["first"]
    put(informers, "first")
    put(informers, "second")
    assert await settled(dropped) == ["first", "first"]


async def test_a_node_that_has_joined_again_meanwhile_is_left_alone(informers: Any, dropped: list[str]) -> None:
    put(informers, "k")
    removed_nodes.cut_off(informers, dropped_by(dropped))
    informers.drop("Secret", node_identity.record_name("n1"), "kube-system")
    put(informers, "k")
    assert await settled(dropped) == []
