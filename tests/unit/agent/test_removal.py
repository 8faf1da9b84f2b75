"""A node that was removed from its cluster: pods end, parts end, nothing restarts."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from k1s.agent import app
from k1s.agent.config import AgentConfig
from k1s.agent.context import AgentContext
from k1s.agent.node import lease, register, removal
from k1s.agent.node.removal import NodeRemoved, NodeUnknown
from k1s.api import node_identity
from k1s.api.errors import ApiError
from k1s.base.clock import VirtualClock
from k1s.base.tasks import Supervisor
from k1s.client.store import ObjectStore
from k1s.cri.fake import FakeRuntime

NAME = "n1"
POD = {"metadata": {"name": "p", "namespace": "d", "uid": "u"}}


class Server:
    """A client whose every call answers what `error` says, and the informer of the own Node."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.error: ApiError | None = None
        self.calls = 0
        self.nodes = ObjectStore()
        self.add_handler, self.get_node = self.nodes.add_handler, self.nodes.get

    async def _answer(self, *_: Any, **__: Any) -> Any:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return {"metadata": {"name": NAME, "uid": "u", "labels": {}, "annotations": {}}}

    get = create = patch = _answer

    async def pause(self, seconds: float) -> None:
        await self.clock.sleep(seconds)

    def informer(self, resource: Any, **_: Any) -> Any:
        return self


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def server(clock: VirtualClock) -> Server:
    return Server(clock)


@pytest.fixture
def agent(server: Server, clock: VirtualClock, tmp_path: Path) -> AgentContext:
    config = AgentConfig(data_dir=tmp_path / "d", run_dir=tmp_path / "r", fake_runtime=True, node_name=NAME)
    client: Any = server
    return app.make_context(config, NAME, "192.0.2.1", client, client, client, FakeRuntime(), clock)


async def ended(coroutine: Any) -> str:
    return await asyncio.wait_for(removal.ended_by(coroutine), 5)


async def parts(agent: AgentContext, *runs: Any) -> None:
    async with Supervisor() as tasks:
        for run in runs:

            async def body(ready: Any, run: Any = run) -> None:
                await run(agent, ready)

            await tasks.start(str(run), body)
        await asyncio.get_running_loop().create_future()


async def test_a_start_of_a_removed_node(agent: AgentContext, server: Server, clock: VirtualClock) -> None:
    server.error = node_identity.removed(NAME)
    task = asyncio.create_task(ended(parts(agent, register.run)))
    await clock.advance(5)
    assert await task == removal.AT_START
    assert server.calls == 2  # heard twice, then no more


async def test_one_word_is_not_believed(agent: AgentContext, server: Server, clock: VirtualClock) -> None:
    server.error = node_identity.removed(NAME)
    task = asyncio.create_task(ended(parts(agent, register.run)))
    await clock.advance(0.1)
    server.error = None
    await clock.advance(60)
    assert not task.done()
    task.cancel()


async def test_the_heartbeat_finds_out(
    agent: AgentContext, server: Server, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    task = asyncio.create_task(ended(parts(agent, removal.run, lease.run)))
    await clock.advance(25)
    assert not task.done()
    agent.pods.put(POD)
    agent.removal_handlers.append(lambda: asyncio.get_running_loop().call_soon(agent.pods.remove, "u"))
    server.error = node_identity.removed(NAME)
    await clock.advance(11)
    assert await task == removal.LATER
    assert len(agent.pods) == 0
    assert [r.getMessage() for r in caplog.records if "removed" in r.getMessage()] == [
        "node n1 was removed from the cluster: ending its 1 pods"
    ]
    calls = server.calls
    await clock.advance(3600)
    assert server.calls == calls


async def test_a_server_that_is_away_or_confused_removes_nobody(agent: AgentContext, server: Server, clock: VirtualClock) -> None:
    task = asyncio.create_task(ended(parts(agent, removal.run, lease.run)))
    for error in (ApiError(503, "ServiceUnavailable", "away"), ApiError(403, "Forbidden", "no"), ApiError(404, "NotFound", "no")):
        server.error = error
        await clock.advance(120)
    assert not task.done()
    task.cancel()


async def test_the_watch_of_the_own_node_is_quicker(agent: AgentContext, server: Server, clock: VirtualClock) -> None:
    server.nodes.put({"metadata": {"name": NAME}})
    task = asyncio.create_task(ended(parts(agent, removal.run)))
    await clock.advance(1)
    # Gone for a moment, made anew by hand: no reason to leave.
    server.nodes.remove("", NAME)
    await clock.advance(2)
    assert not task.done()
    server.nodes.put({"metadata": {"name": NAME}})
    server.error = node_identity.removed(NAME)
    server.nodes.remove("", NAME)
    await clock.advance(2)
    assert await task == removal.LATER


async def test_a_server_that_is_unsure_is_asked_again(agent: AgentContext, server: Server, clock: VirtualClock) -> None:
    """The Node has gone, the name is not freed yet."""
    server.nodes.put({"metadata": {"name": NAME}})
    task = asyncio.create_task(ended(parts(agent, removal.run)))
    await clock.advance(1)
    server.error = node_identity.going(NAME)
    server.nodes.remove("", NAME)
    await clock.advance(0.7)
    server.error = node_identity.removed(NAME)
    await clock.advance(2)
    assert await task == removal.LATER


@pytest.mark.parametrize("token", ["", "K10x::node:y"])
async def test_a_server_that_does_not_know_this_node_ends_no_pod(
    agent: AgentContext, server: Server, clock: VirtualClock, caplog: pytest.LogCaptureFixture, token: str
) -> None:
    """A database from a backup. Without a token the node goes on as it is; with one it joins anew; pods go on all the same."""
    agent.config = dataclasses.replace(agent.config, token=token)
    task = asyncio.create_task(ended(parts(agent, removal.run, lease.run)))
    await clock.advance(15)
    agent.pods.put(POD)
    agent.removal_handlers.append(lambda: agent.pods.remove("u"))
    server.error = node_identity.unknown(NAME)
    await clock.advance(10)
    assert not task.done()  # one word is not believed
    await clock.advance(60)
    assert len(agent.pods) == 1
    if token:
        assert await task == removal.UNKNOWN
    else:
        assert not task.done()
        assert "restart the agent with a token" in caplog.text
        task.cancel()


async def test_a_start_of_a_node_that_the_server_does_not_know(agent: AgentContext, server: Server, clock: VirtualClock) -> None:
    server.error = node_identity.unknown(NAME)
    task = asyncio.create_task(ended(parts(agent, register.run)))
    await clock.advance(0.3)
    assert not task.done()
    await clock.advance(10)
    assert await task == removal.UNKNOWN


async def test_joining_anew_when_the_server_does_not_know_this_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs = []

    clock = VirtualClock()

    async def run(*_: Any, anew: bool = False) -> None:
        runs.append(anew)
        if anew:
            await clock.sleep(10 if len(runs) < 3 else 1)
        raise NodeUnknown(NAME)

    monkeypatch.setattr(app, "_run", run)
    config = AgentConfig(data_dir=tmp_path / "d", token="K10x::node:y")
    (config.tls_dir).mkdir(parents=True)
    (config.tls_dir / "client.key").write_text("key")
    task = asyncio.create_task(app.run(config, clock=clock))
    await clock.advance(5)
    assert runs == [False, True]
    assert (config.tls_dir / "client.key").exists()
    # Each time that it is forgotten, but for a server that forgets it at once.
    await clock.advance(5)
    assert runs == [False, True, True]
    await clock.advance(5)
    with pytest.raises(app.StartError, match="has given this node a certificate"):
        await asyncio.wait_for(task, 5)
    with pytest.raises(app.StartError, match="start the agent with a token"):
        await app.run(dataclasses.replace(config, token=""))


async def test_the_agent_beside_a_server_ends_to_be_started_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def run(*_: Any) -> None:
        raise removal._RemovedLater(NAME)

    monkeypatch.setattr(app, "_run", run)
    clock = VirtualClock()
    config = AgentConfig(data_dir=tmp_path / "d", fake_runtime=True)
    resting = asyncio.create_task(app.run(config, clock=clock))
    ending = asyncio.create_task(app.run(dataclasses.replace(config, supervised=True), clock=clock))
    await clock.advance(removal.PAUSE / 2)
    assert not ending.done()
    await clock.advance(removal.PAUSE)
    assert await asyncio.wait_for(ending, 5) is None
    assert not resting.done()
    resting.cancel()


async def test_other_ends_are_no_removal() -> None:
    async def breaks() -> None:
        raise ValueError("something else")

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(ended(breaks()))


async def test_joining_again_at_start_happens_once(agent: AgentContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a token, a node that was removed while it was away joins again; if it is removed at once again, it rests."""
    runs = []

    async def run(*_: Any) -> None:
        runs.append(1)
        raise NodeRemoved(NAME)

    rested = asyncio.Event()

    async def rest(config: AgentConfig, clock: Any) -> None:
        rested.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(app, "_run", run)
    monkeypatch.setattr(removal, "rest", rest)
    for token, count in (("", 1), ("K10x::node:y", 2)):
        runs.clear()
        rested.clear()
        config = AgentConfig(data_dir=tmp_path / "d", token=token)
        task = asyncio.create_task(app.run(config))
        await asyncio.wait_for(rested.wait(), 5)
        assert len(runs) == count
        task.cancel()
