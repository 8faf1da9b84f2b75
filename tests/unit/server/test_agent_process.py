"""The agent's process: adopted, replaced, restarted and ended; with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from k1s.base.clock import REAL_CLOCK
from k1s.base.pid_file import start_time
from k1s.server.agent_process import AgentProcess, _Child

SLEEP = ["sleep", "1000"]


async def _until(test: Callable[[], object]) -> None:
    for _ in range(500):
        if test():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 5 s")


def _orphan() -> int:
    """Not a child of ours, as after a kill -9 of the server: nobody here waits for it."""
    command = ["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _pid(file: Path) -> int:
    return int(json.loads(file.read_bytes())["pid"]) if file.exists() else 0


async def test_a_killed_agent_is_started_again_and_ends_with_the_server(tmp_path: Path) -> None:
    file = tmp_path / "agent.json"
    task = asyncio.create_task(AgentProcess(SLEEP, file, REAL_CLOCK).run(lambda: None))
    await _until(lambda: _pid(file))
    first = _pid(file)
    os.kill(first, 9)
    await _until(lambda: _pid(file) not in (0, first))
    second = _pid(file)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled() and start_time(second) == "" and not file.exists()


async def test_a_running_agent_is_adopted_and_one_with_other_options_replaced(tmp_path: Path) -> None:
    file = tmp_path / "agent.json"
    pid = _orphan()
    file.write_text(json.dumps({"pid": pid, "started": start_time(pid), "argv": SLEEP}))
    process = AgentProcess(SLEEP, file, REAL_CLOCK)
    child = process._adopt()
    assert child is not None and child.pid == pid
    assert AgentProcess(["sleep", "2000"], file, REAL_CLOCK)._adopt() is None
    await _until(lambda: start_time(pid) == "")
    # It is gone, which the one who adopted it does not know yet: ending it is still an orderly end.
    await asyncio.wait_for(child.stop(), 5)
    assert process._adopt() is None


async def test_the_servers_own_token_is_not_for_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K1S_TOKEN", "secret-of-the-server")
    monkeypatch.setenv("K1S_NODE_NAME", "n1")
    out = tmp_path / "env"
    process = AgentProcess(["sh", "-c", f"env > {out}.new; mv {out}.new {out}; sleep 1000"], tmp_path / "agent.json", REAL_CLOCK)
    task = asyncio.create_task(process.run(lambda: None))
    await _until(out.exists)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "K1S_NODE_NAME=n1" in out.read_text()
    assert "secret-of-the-server" not in out.read_text()


async def test_a_note_of_another_boot_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "agent.json"
    file.write_text(json.dumps({"pid": os.getpid(), "started": "1", "argv": SLEEP}))
    assert AgentProcess(SLEEP, file, REAL_CLOCK)._adopt() is None
    file.write_text("not json")
    assert AgentProcess(SLEEP, file, REAL_CLOCK)._adopt() is None and not file.exists()
    assert _Child(os.getpid(), None).outcome() == "exit code unknown"
