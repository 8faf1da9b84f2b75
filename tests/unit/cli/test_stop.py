"""`k1s stop` beside systemd: a unit that starts again what ends has to be ended itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k1s.cli import stop


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that notes what it is told and says that this process is the main one of k1s.service."""
    tool, told = tmp_path / "systemctl", tmp_path / "told"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {told}\n[ "$1" != show ] || [ "$4" != k1s.service ] || echo {os.getpid()}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return told


@pytest.mark.parametrize(("verb", "said"), [(["stop"], "stop k1s.service"), (["disable", "--now"], "disable --now k1s.service")])
def test_a_unit_is_ended_by_its_name(calls: Path, monkeypatch: pytest.MonkeyPatch, verb: list[str], said: str) -> None:
    monkeypatch.setattr(stop, "_unit", lambda pid: "k1s.service")
    stop._leave_to_systemd(os.getpid(), verb)
    assert calls.read_text().splitlines()[-1] == said


def test_a_unit_that_only_contains_k1s_is_left_alone(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell of sshd.service, the runner of a test."""
    monkeypatch.setattr(stop, "_unit", lambda pid: "ssh.service")
    stop._leave_to_systemd(os.getpid(), ["stop"])
    assert calls.read_text().splitlines() == ["show --property=MainPID --value ssh.service"]
    stop._leave_to_systemd(0, ["stop"])
    monkeypatch.setattr(stop, "_unit", lambda pid: "")
    stop._leave_to_systemd(os.getpid(), ["stop"])
    assert len(calls.read_text().splitlines()) == 1


def test_hosts_without_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert stop._systemctl("show", "x") == ""
    assert stop._unit(2**22 + 5) == ""


@pytest.mark.parametrize(
    ("line", "unit"),
    [
        ("0::/system.slice/k1s-agent.service", "k1s-agent.service"),
        ("0::/system.slice/k1s.service/child", "k1s.service"),
        ("2:cpu:/\n1:name=systemd:/system.slice/k1s.service", "k1s.service"),
        ("0::/user.slice/user-0.slice/session-1.scope", ""),
        ("0::/", ""),
    ],
)
def test_the_unit_of_a_process(line: str, unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: line)
    assert stop._unit(1) == unit
