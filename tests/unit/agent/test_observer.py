"""Looking at a pod whose runtime is slow to show what its events have said."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from k1s.agent.pods.model import TERMINATION_POLICY
from k1s.agent.pods.observe import Observer
from k1s.base.clock import VirtualClock
from k1s.cri.runtime import Container, ContainerStatus


class SlowRuntime:
    """Shows the end of its one container at the look of that number."""

    def __init__(self, ends_at_look: int, log: Path) -> None:
        self.looks, self._ends_at, self._log = 0, ends_at_look, log

    async def list_pod_sandboxes(self, labels: Any = None) -> list[Any]:
        return []

    async def list_containers(self, labels: Any = None) -> list[Container]:
        self.looks += 1
        return [Container("c1", "s1", "main", 0, "i", "i", "running", 1.0)]

    async def container_status(self, identity: str) -> ContainerStatus:
        state: Any = "exited" if self.looks >= self._ends_at else "running"
        notes = {TERMINATION_POLICY: "FallbackToLogsOnError"}
        return ContainerStatus("c1", "main", 0, state, 1.0, exit_code=1, log_path=str(self._log), annotations=notes)


def observer(ends_at_look: int, log: Path) -> tuple[Observer, SlowRuntime]:
    runtime = SlowRuntime(ends_at_look, log)
    return Observer("u1", runtime, VirtualClock(), lambda name, attempt: log.with_name("none")), runtime  # type: ignore[arg-type]


async def _looks(watched: Observer, times: int) -> list[tuple[str, float | None]]:
    seen: list[tuple[str, float | None]] = []
    for _ in range(times):
        observed = await watched.observe()
        seen.append((observed.containers[0].state, watched.again_in))
    return seen


def test_an_announced_end_is_looked_for_until_it_shows(tmp_path: Path) -> None:
    watched, runtime = observer(12, tmp_path / "0.log")
    watched.expect_exit("c1")

    async def main() -> list[tuple[str, float | None]]:
        clock: Any = watched._clock
        looking = asyncio.create_task(_looks(watched, 7))
        while not looking.done():
            await clock.advance(0.5)
        return looking.result()

    seen = asyncio.run(main())
    assert [state for state, _ in seen] == ["running"] * 5 + ["exited"] * 2
    assert all(again is not None for _, again in seen[:5]) and [again for _, again in seen[5:]] == [None, None]
    # A burst of looks at first, then one at a time.
    assert runtime.looks == 13


def test_nothing_is_expected_of_what_runs(tmp_path: Path) -> None:
    watched, runtime = observer(99, tmp_path / "0.log")
    assert asyncio.run(_looks(watched, 1)) == [("running", None)]
    assert runtime.looks == 1


def test_last_words_out_of_the_log_end_as_the_container_ended_them(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    at = "2026-01-01T00:00:00.000000000Z"
    log.write_text(f"{at} stdout F first\n{at} stdout P sec\n{at} stderr P ond\n")
    watched, _ = observer(1, log)
    assert asyncio.run(watched.observe()).containers[0].message == "first\nsecond"
