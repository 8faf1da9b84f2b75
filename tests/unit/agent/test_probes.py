"""Probes against the fake runtime in virtual time, and the network checks against real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from k1s.agent.containers.http_get import ActionFailed, http_get, port_number, tcp_connect
from k1s.agent.containers.probes import Probes
from k1s.agent.pods.model import Observed
from k1s.base.clock import VirtualClock
from k1s.cri.fake import FakeRuntime
from k1s.cri.runtime import ContainerStatus, ExecResult, Sandbox

Object = dict[str, Any]


class _Events:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def event(self, obj: Object, type: str, reason: str, message: str, *, field_path: str = "") -> None:
        self.seen.append(f"{type} {reason} {message}")


class _Scripted(FakeRuntime):
    """exec answers by the command's first word: what `exits` says it gives."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock=clock)
        self.exits: dict[str, int] = {}
        self.calls: list[str] = []

    async def exec_sync(self, container_id: str, command: Any, timeout_seconds: float) -> ExecResult:
        self.calls.append(command[0])
        return ExecResult(self.exits.get(command[0], 0), b"said " + command[0].encode(), b"")


class Bench:
    def __init__(self, **probes: Object) -> None:
        self.clock = VirtualClock()
        self.runtime = _Scripted(self.clock)
        self.events = _Events()
        self.changes = 0
        self.container: Object = {"name": "c", "image": "x", **probes}
        self.pod: Object = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [self.container]}}
        self.status = ContainerStatus("id1", "c", 0, "running", self.clock.now(), self.clock.now())
        self.probes = Probes(self.runtime, self.events, self.clock, self._changed)  # type: ignore[arg-type]
        self.sync(self.status)

    def _changed(self) -> None:
        self.changes += 1

    def sync(self, status: ContainerStatus) -> None:
        box = Sandbox("s", "p", "n", "u", 0, True, 0.0)
        self.probes.sync(self.pod, Observed((box,), (status,)), "127.0.0.1")

    @property
    def state(self) -> tuple[bool, bool, dict[str, str]]:
        p, c, s = self.probes, self.container, self.status
        return p.started(c, s), p.ready(c, s), p.unhealthy()


def probe(word: str, **more: Any) -> Object:
    return {"exec": {"command": [word]}, "periodSeconds": 10, "failureThreshold": 2, **more}


async def test_without_probes_a_running_container_is_ready() -> None:
    bench = Bench()
    assert bench.state == (True, True, {})
    bench.probes.close()


async def test_readiness_starts_false_and_follows_thresholds() -> None:
    bench = Bench(readinessProbe=probe("r", successThreshold=2, initialDelaySeconds=5))
    assert bench.state == (True, False, {})
    await bench.clock.advance(4)
    assert bench.runtime.calls == []
    await bench.clock.advance(2)
    assert bench.runtime.calls == ["r"] and bench.state[1] is False
    await bench.clock.advance(10)
    assert bench.state[1] is True and bench.changes == 1
    bench.runtime.exits["r"] = 1
    await bench.clock.advance(10)
    assert bench.state[1] is True
    await bench.clock.advance(10)
    assert bench.state[1] is False and bench.changes == 2
    assert "Warning Unhealthy Readiness probe failed: said r" in bench.events.seen
    bench.probes.close()


async def test_liveness_fails_after_threshold_and_stops() -> None:
    bench = Bench(livenessProbe=probe("l"))
    bench.runtime.exits["l"] = 3
    await bench.clock.advance(1)
    assert bench.state == (True, True, {})
    await bench.clock.advance(10)
    assert bench.state[2] == {"id1": "liveness"}
    await bench.clock.advance(100)
    assert len(bench.runtime.calls) == 2
    bench.probes.close()


async def test_startup_holds_the_others_back() -> None:
    bench = Bench(startupProbe=probe("s", failureThreshold=3), livenessProbe=probe("l"), readinessProbe=probe("r"))
    bench.runtime.exits.update(s=1, l=1)
    await bench.clock.advance(15)
    assert set(bench.runtime.calls) == {"s"} and bench.state == (False, False, {})
    bench.runtime.exits["s"] = 0
    await bench.clock.advance(10)
    assert bench.state[0] is True and {"l", "r"} <= set(bench.runtime.calls)
    calls = bench.runtime.calls.count("s")
    await bench.clock.advance(50)
    assert bench.runtime.calls.count("s") == calls, "a startup probe that has succeeded is not asked again"
    assert bench.state[2] == {"id1": "liveness"}
    bench.probes.close()


async def test_startup_that_fails_is_unhealthy() -> None:
    bench = Bench(startupProbe=probe("s"))
    bench.runtime.exits["s"] = 1
    await bench.clock.advance(11)
    assert bench.state == (False, False, {"id1": "startup"})
    bench.probes.close()


async def test_a_new_instance_is_probed_anew() -> None:
    bench = Bench(readinessProbe=probe("r"))
    await bench.clock.advance(1)
    assert bench.state[1] is True
    bench.status = ContainerStatus("id2", "c", 1, "running", bench.clock.now(), bench.clock.now())
    bench.sync(bench.status)
    assert bench.state == (True, False, {})
    await bench.clock.advance(1)
    assert bench.state[1] is True
    bench.probes.close()


async def test_what_was_reported_before_holds_until_a_probe_says_otherwise() -> None:
    bench = Bench(startupProbe=probe("s"), readinessProbe=probe("r", initialDelaySeconds=5, failureThreshold=1))
    bench.probes.close()
    bench.probes = Probes(
        bench.runtime,
        bench.events,  # type: ignore[arg-type]
        bench.clock,
        bench._changed,
        known={"id1": (True, True)},
    )
    bench.sync(bench.status)
    assert bench.state == (True, True, {})
    bench.runtime.exits["r"] = 1
    await bench.clock.advance(6)
    assert "s" not in bench.runtime.calls and bench.state == (True, False, {})
    bench.probes.close()


@asynccontextmanager
async def _server(answer: bytes, requests: list[bytes]) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        if answer:
            writer.write(answer)
            await writer.drain()
            writer.close()
        else:
            await reader.read()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _get(port: int, timeout: float = 5.0, **action: Any) -> str:
    return await http_get({"port": port, **action}, {"name": "c"}, "127.0.0.1", timeout, "kube-probe/1.37")


async def test_http_get() -> None:
    requests: list[bytes] = []
    async with _server(b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\nbody", requests) as port:
        assert await _get(port, path="/x?y", httpHeaders=[{"name": "host", "value": "other"}]) == "body"
    assert requests[0].startswith(b"GET /x?y HTTP/1.1\r\nHost: other\r\nUser-Agent: kube-probe/1.37\r\n")
    async with _server(b"HTTP/1.1 301 Moved\r\nLocation: http://elsewhere/\r\n\r\n", requests) as port:
        await _get(port)
    async with _server(b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", requests) as port:
        with pytest.raises(ActionFailed, match="stopped after 10 redirects"):
            await _get(port)
    async with _server(b"HTTP/1.0 503 No\r\n\r\n", requests) as port:
        with pytest.raises(ActionFailed, match="HTTP probe failed with statuscode: 503"):
            await _get(port)
    async with _server(b"garbage\r\n\r\n", requests) as port:
        with pytest.raises(ActionFailed, match="malformed HTTP response"):
            await _get(port)
    async with _server(b"", requests) as port:
        with pytest.raises(ActionFailed, match="context deadline exceeded"):
            await _get(port, timeout=0.1)
    with pytest.raises(ActionFailed, match="connection refused"):
        await _get(port)
    with pytest.raises(ActionFailed, match="connection refused"):
        await tcp_connect({"port": port}, {}, "127.0.0.1", 1)


async def test_a_redirect_to_the_same_host_is_followed() -> None:
    first: list[bytes] = []
    second: list[bytes] = []
    async with _server(b"HTTP/1.1 500 No\r\n\r\n", second) as there:
        answer = f"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{there}/there?x=y\r\n\r\n".encode()
        async with _server(answer, first) as port:
            with pytest.raises(ActionFailed, match="statuscode: 500"):
                await _get(port, path="/here")
    assert first[0].startswith(b"GET /here ")
    assert second[0].startswith(f"GET /there?x=y HTTP/1.1\r\nHost: 127.0.0.1:{there}\r\n".encode())


def test_named_ports() -> None:
    container = {"ports": [{"name": "web", "containerPort": 8080}]}
    assert port_number(container, "web") == 8080 and port_number(container, "81") == 81
    with pytest.raises(ActionFailed, match='couldn\'t find port: "x"'):
        port_number(container, "x")
