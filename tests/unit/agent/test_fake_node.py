"""A whole node without containers: the agent's parts on the fake runtime against the real API server in process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from k1s.agent import app
from k1s.agent.config import AgentConfig
from k1s.agent.context import AgentContext
from k1s.agent.node import conditions, images, lease, register
from k1s.agent.pods import manager
from k1s.agent.pods.report import StatusReporter
from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.clock import REAL_CLOCK, VirtualClock
from k1s.base.tasks import Supervisor
from k1s.client.events import EventRecorder
from k1s.client.informer import WatchInformers
from k1s.client.interface import STRATEGIC_MERGE_PATCH
from k1s.client.rest import RestClient
from k1s.client.transport import LocalTransport
from k1s.cri.errors import Unavailable
from k1s.cri.fake import FakeRuntime
from k1s.cri.runtime import Condition, Version
from k1s.server.apiserver.app import ApiServer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.storage.memory import MemoryStore

POD, NODE = builtin("Pod"), builtin("Node")
Object = dict[str, Any]
NAME = "fake-1"


class _Anyone:
    async def authenticate(self, request: Any) -> UserInfo:
        return UserInfo("admin", ("system:masters",))

    async def authorize(self, user: UserInfo, info: RequestInfo) -> None:
        return None


@contextlib.asynccontextmanager
async def api() -> AsyncIterator[RestClient]:
    store = MemoryStore()
    await store.open()
    server = ApiServer(store, authenticator=_Anyone(), authorizer=_Anyone())
    loaded = asyncio.Event()
    task = asyncio.create_task(server.run(loaded.set))
    await loaded.wait()
    client = RestClient(LocalTransport(server.handle, UserInfo("admin", ("system:masters",))))
    for name in ("default", "kube-node-lease"):
        await client.create(builtin("Namespace"), {"metadata": {"name": name}})
    try:
        yield client
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def node(client: RestClient, runtime: FakeRuntime, directory: Path) -> AsyncIterator[AgentContext]:
    config = AgentConfig(data_dir=directory / "d", run_dir=directory / "r", fake_runtime=True, node_name=NAME, max_pods=200)
    informers = WatchInformers(client)
    events = EventRecorder(client, "kubelet", host=NAME)
    agent = app.make_context(config, NAME, "192.0.2.1", client, informers, events, runtime, REAL_CLOCK)
    async with Supervisor() as tasks:
        tasks.spawn("informers", informers.run())
        tasks.spawn("events", events.run())
        for part in (register, images, manager, lease, conditions):

            async def body(ready: Callable[[], None], part: Any = part) -> None:
                await part.run(agent, ready)

            await tasks.start(part.__name__, body)
        try:
            yield agent
        finally:
            await agent.objects.close()
            tasks.stop()


def pod(name: str, *command: str, **spec: Any) -> Object:
    container = {"name": "c", "image": "busybox:1", "command": list(command or ("sleep", "infinity"))}
    spec = {"nodeName": NAME, "automountServiceAccountToken": False, **spec, "containers": [container]}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


async def until(client: RestClient, test: Callable[[list[Object]], bool], what: str) -> list[Object]:
    pods: list[Object] = []
    for _ in range(400):
        pods = await client.list(POD, "default")
        if test(pods):
            return pods
        await asyncio.sleep(0.05)
    raise AssertionError(f"{what}: {[(p['metadata']['name'], p['status'].get('phase')) for p in pods][:5]}")


def ready(obj: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in obj["status"].get("conditions") or [])


async def test_a_hundred_pods_come_survive_a_restart_and_go(tmp_path: Path) -> None:
    runtime = FakeRuntime()
    async with api() as client:
        async with node(client, runtime, tmp_path):
            await asyncio.gather(*(client.create(POD, pod(f"p{i}")) for i in range(100)))
            pods = await until(client, lambda ps: len(ps) == 100 and all(map(ready, ps)), "all ready")
            assert len({p["status"]["podIP"] for p in pods}) == 100
            assert (await client.get(NODE, NAME))["status"]["nodeInfo"]["containerRuntimeVersion"] == "fake://1.0.0"
        before = {c.id for c in await runtime.list_containers()}
        async with node(client, runtime, tmp_path):
            await client.create(POD, pod("late"))
            await until(client, lambda ps: len(ps) == 101 and all(map(ready, ps)), "all ready after the restart")
            after = {c.id for c in await runtime.list_containers()}
            assert before < after and len(after) == 101, "nothing was started twice"
            await client.delete_collection(POD, "default")
            await until(client, lambda ps: not ps, "all gone")
            assert await runtime.list_containers() == [] and await runtime.list_pod_sandboxes() == []
    await runtime.close()
    assert not (tmp_path / "d" / "agent" / "pods").exists(), "the fake runtime puts nothing on the host"


async def test_jobs_end_and_stay_until_deleted(tmp_path: Path) -> None:
    runtime = FakeRuntime()
    async with api() as client, node(client, runtime, tmp_path) as agent:
        await client.create(POD, pod("good", "true", restartPolicy="Never"))
        await client.create(POD, pod("bad", "sh", "-c", "exit 3", restartPolicy="Never"))
        await client.create(POD, pod("nocommand", "no-such-command", restartPolicy="Never"))

        def over(pods: list[Object]) -> bool:
            return all(p["status"].get("phase") in ("Succeeded", "Failed") for p in pods)

        pods = {p["metadata"]["name"]: p["status"] for p in await until(client, over, "all over")}
        assert [pods[n]["phase"] for n in ("good", "bad", "nocommand")] == ["Succeeded", "Failed", "Failed"]
        ended = pods["nocommand"]["containerStatuses"][0]["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
        # They stay, with their containers, until somebody deletes them.
        assert len(await runtime.list_containers()) == 3 and len(agent.pods) == 3
        await client.delete_collection(POD, "default")
        await until(client, lambda ps: not ps, "all gone")
        for _ in range(100):
            if not await runtime.list_containers() and not len(agent.pods):
                break
            await asyncio.sleep(0.05)
        assert await runtime.list_containers() == [] and len(agent.pods) == 0
    await runtime.close()


async def test_restarted_agent_leaves_finished_pods_alone(tmp_path: Path) -> None:
    runtime = FakeRuntime()
    async with api() as client:
        async with node(client, runtime, tmp_path):
            await client.create(POD, pod("done", "true", restartPolicy="Never"))
            (before,) = await until(client, lambda ps: ps[0]["status"].get("phase") == "Succeeded", "succeeded")
        # A reboot: the runtime has forgotten everything.
        async with node(client, FakeRuntime(), tmp_path):
            await asyncio.sleep(0.3)
            (after,) = await client.list(POD, "default")
            assert after["status"] == before["status"]
    await runtime.close()


async def test_node_says_what_is_wrong_and_when_it_is_over(tmp_path: Path) -> None:
    class Shaky(FakeRuntime):
        fault = ""

        async def status(self) -> tuple[Condition, ...]:
            if self.fault:
                raise Unavailable(self.fault)
            return await super().status()

        async def version(self) -> Version:
            if self.fault:
                raise Unavailable(self.fault)
            return await super().version()

    async def condition(client: RestClient, message: str) -> Object:
        for _ in range(200):
            status = (await client.get(NODE, NAME))["status"]
            found = next(c for c in status["conditions"] if c["type"] == "Ready")
            if message in found["message"]:
                assert status["nodeInfo"]["containerRuntimeVersion"] == "fake://1.0.0"
                return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"{message!r} never told: {found}")

    runtime = Shaky()
    async with api() as client, node(client, runtime, tmp_path) as agent:
        first = await condition(client, "kubelet is posting ready status")
        agent.set_ready("network", "no pod range")
        assert (await condition(client, "network: no pod range"))["status"] == "False"
        runtime.fault = "containerd has gone"
        for handler in agent.heartbeat_handlers:
            handler()
        told = await condition(client, "container runtime: containerd has gone; network: no pod range")
        assert told["reason"] == "KubeletNotReady"
        runtime.fault = ""
        agent.set_ready("network")
        last = await condition(client, "kubelet is posting ready status")
        assert last["status"] == "True" and last["lastTransitionTime"] >= first["lastTransitionTime"]
    await runtime.close()


async def test_a_node_that_was_taken_for_dead_speaks_up_for_itself_and_its_pods(tmp_path: Path) -> None:
    """What node lifecycle does to a node that was silent: it must end when the node is heard again, not at the next report."""
    runtime = FakeRuntime()
    async with api() as client, node(client, runtime, tmp_path):
        await client.create(POD, pod("p"))
        (running,) = await until(client, lambda ps: bool(ps) and ready(ps[0]), "ready")
        false = {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z"}]}
        strategic: dict[str, Any] = {"content_type": STRATEGIC_MERGE_PATCH, "subresource": "status"}
        for _ in range(2):  # more than once: the second time the agent has told before
            await client.patch(POD, "p", "default", {"status": false}, **strategic)
            await until(client, lambda ps: ready(ps[0]), "ready again")
            unknown = {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}
            await client.patch(NODE, NAME, "", {"status": unknown}, **strategic)
            for _ in range(200):
                found = meta.condition(await client.get(NODE, NAME), "Ready") or {}
                if found["status"] == "True":
                    break
                await asyncio.sleep(0.02)
            assert (found["status"], found["reason"]) == ("True", "KubeletReady")
        (again,) = await client.list(POD, "default")
        assert again["status"]["containerStatuses"] == running["status"]["containerStatuses"]
    await runtime.close()


async def test_restart_does_not_make_the_node_unready(tmp_path: Path) -> None:
    runtime = FakeRuntime()
    async with api() as client:
        async with node(client, runtime, tmp_path):
            before = (await client.get(NODE, NAME))["status"]["conditions"]
        config = AgentConfig(data_dir=tmp_path / "d", run_dir=tmp_path / "r", fake_runtime=True, node_name=NAME)
        events = EventRecorder(client, "kubelet")
        agent = app.make_context(config, NAME, "192.0.2.1", client, WatchInformers(client), events, runtime, REAL_CLOCK)
        agent.set_ready("network", "still starting")
        told = asyncio.Event()
        task = asyncio.create_task(conditions.run(agent, told.set))
        await asyncio.sleep(0.2)
        assert not told.is_set(), "a part that starts is waited for"
        agent.set_ready("network")
        await asyncio.wait_for(told.wait(), 2)
        after = (await client.get(NODE, NAME))["status"]["conditions"]
        assert [(c["type"], c["status"], c["lastTransitionTime"]) for c in after] == [
            (c["type"], c["status"], c["lastTransitionTime"]) for c in before
        ]
        task.cancel()
    await runtime.close()


class _Client:
    """Takes patches as slowly and as badly as it is told to."""

    def __init__(self, clock: VirtualClock) -> None:
        self.pause = clock.sleep
        self.patches: list[Object] = []
        self.gate = asyncio.Event()
        self.failures: list[ApiError] = []
        self.version = 10
        self.others: Object = {}  # what somebody else has put into the status meanwhile

    async def patch(self, resource: Any, name: str, namespace: str, patch: Object, **options: Any) -> Object:
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.patches.append(patch["status"])
        self.version += 1
        return {
            "metadata": {**patch["metadata"], "resourceVersion": str(self.version)},
            "status": {**patch["status"], **self.others},
        }


async def test_reports_are_merged_ordered_and_retried() -> None:
    clock = VirtualClock()
    client = _Client(clock)
    reporter = StatusReporter(client, clock)  # type: ignore[arg-type]
    obj: Object = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "status": {"phase": "Pending"}}
    reporter.report(obj, {"phase": "Pending"})
    assert reporter.last(obj) == {"phase": "Pending"}
    for message in ("a", "b", "c"):
        reporter.report(obj, {"phase": "Running", "message": message})
        await asyncio.sleep(0)
    client.failures = [ApiError(500, "InternalError", "try again")]
    client.gate.set()
    await clock.advance(1)
    await reporter.flush("u")
    # While the first was under way the others were merged into one.
    assert client.patches == [{"phase": "Running", "message": "c"}]
    reporter.report(obj, {"phase": "Running", "message": "c"})
    assert len(client.patches) == 1
    client.failures = [ApiError(404, "NotFound", "gone")]
    reporter.report(obj, {"phase": "Failed"})
    await clock.advance(1)
    await reporter.flush("u")
    assert len(client.patches) == 1, "a pod that is gone is not told about again"
    await reporter.close()


def _conditions(ready: str) -> Object:
    return {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}


@pytest.mark.parametrize("when", ["later", "earlier than our answer"])
async def test_a_condition_that_somebody_overruled_is_told_again(when: str) -> None:
    """A node that was silent for a while has its pods set to not ready; back again, only its agent can set them right."""
    clock = VirtualClock()
    client = _Client(clock)
    client.gate.set()
    reporter = StatusReporter(client, clock)  # type: ignore[arg-type]
    obj: Object = {
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "9"},
        "status": {"phase": "Pending"},
    }
    client.others = _conditions("False") if when != "later" else {}
    reporter.report(obj, _conditions("True"))
    await reporter.flush("u")
    client.others = {}
    stale = {"metadata": {**obj["metadata"], "resourceVersion": "10"}, "status": {"phase": "Pending"}}
    reporter.seen(stale)  # from before our patch: says nothing
    if when == "later":
        reporter.report(obj, _conditions("True"))
        assert len(client.patches) == 1
        reporter.seen({"metadata": {**obj["metadata"], "resourceVersion": "12"}, "status": _conditions("False")})
    reporter.report(obj, _conditions("True"))
    await reporter.flush("u")
    assert client.patches[1:] == [{"conditions": [{"type": "Ready", "status": "True"}]}]
    reporter.seen({"metadata": {**obj["metadata"], "resourceVersion": "13"}, "status": _conditions("True")})
    reporter.report(obj, _conditions("True"))
    await reporter.flush("u")
    assert len(client.patches) == 2
    await reporter.close()
