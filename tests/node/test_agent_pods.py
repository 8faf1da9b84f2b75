"""Pods on a node: the real API server (in process, in memory), a real containerd, the agent's parts but for network and serving.

Pods are on the host's network, so no CNI is needed. Needs root. One node for the module's cases, in order: a containerd takes a
second to start.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from k1s.agent import app
from k1s.agent.config import AgentConfig
from k1s.agent.containerd import ContainerdPaths, running_pid
from k1s.agent.context import AgentContext
from k1s.agent.node import conditions, images, lease, register
from k1s.agent.pods import manager
from k1s.agent.resources.cgroups import cgroup_root
from k1s.agent.teardown import stop_all
from k1s.agent.volumes import mounts
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.clock import REAL_CLOCK
from k1s.base.process import find_binary
from k1s.base.tasks import Supervisor
from k1s.client.events import EventRecorder
from k1s.client.informer import WatchInformers
from k1s.client.rest import RestClient
from k1s.client.transport import LocalTransport
from k1s.server.apiserver.app import ApiServer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.storage.memory import MemoryStore

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
POD, NODE, CONFIG_MAP, SECRET, EVENT = (builtin(k) for k in ("Pod", "Node", "ConfigMap", "Secret", "Event"))
Object = dict[str, Any]
CLAIM, VOLUME = builtin("PersistentVolumeClaim"), builtin("PersistentVolume")
BUSYBOX = "docker.io/library/busybox:1.36"
NAME = "node-a"
LIMIT = 30.0


class _Anyone:
    async def authenticate(self, request: Any) -> UserInfo:
        return UserInfo("admin", ("system:masters",))

    async def authorize(self, user: UserInfo, info: RequestInfo) -> None:
        return None


def _builder() -> Any:
    spec = importlib.util.spec_from_file_location("k1s_images", ROOT / "packaging" / "images.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build_images(directory: Path) -> None:
    module = _builder()
    busybox = Path(find_binary("busybox") or "")
    directory.mkdir(parents=True)
    module.build(
        directory / "pause.tar",
        "k1s.io/pause:1",
        {"busybox": busybox.read_bytes()},
        config={"Entrypoint": ["/busybox", "sleep", "2147483647"]},
    )
    module.build_busybox(directory / "busybox.tar", busybox, BUSYBOX)


@dataclass
class Lab:
    """An API and one node."""

    client: RestClient
    config: AgentConfig
    agent: AgentContext | None = None
    tasks: Supervisor | None = None
    running: asyncio.Task[None] | None = None

    async def start_agent(self) -> None:
        """The agent's parts; `stop_agent` ends them as a crash would: nothing is cleaned up."""
        up = asyncio.Event()

        async def run() -> None:
            async with Supervisor() as tasks:
                runtime = await app.start_runtime(self.config, REAL_CLOCK, tasks)
                client = self.client.named("kubelet")
                informers = WatchInformers(client)
                events = EventRecorder(client, "kubelet", host=NAME)
                self.agent = app.make_context(self.config, NAME, "127.0.0.1", client, informers, events, runtime, REAL_CLOCK)
                try:
                    tasks.spawn("informers", informers.run())
                    tasks.spawn("events", events.run())
                    for part in (register, images, manager, lease, conditions):
                        await tasks.start(part.__name__, _bound(part.run, self.agent))
                    up.set()
                    await asyncio.get_running_loop().create_future()
                finally:
                    await self.agent.objects.close()
                    await runtime.close()

        self.running = asyncio.create_task(run())
        waiter = asyncio.create_task(up.wait())
        await asyncio.wait({self.running, waiter}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if self.running.done():
            self.running.result()

    async def stop_agent(self) -> None:
        assert self.running is not None
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.running

    async def run(self, name: str, *command: str, **spec: Any) -> Object:
        container = {"name": "c", "image": "busybox:1.36", "command": list(command), **spec.pop("container", {})}
        return await self.client.create(POD, pod(name, [container, *spec.pop("more", [])], **spec))

    async def until(self, name: str, test: Callable[[Object], bool], what: str = "") -> Object:
        """Watch the pod until `test` holds."""
        obj = await self.client.get(POD, name, "default")
        try:
            async with asyncio.timeout(LIMIT):
                while not test(obj):
                    version = obj["metadata"]["resourceVersion"]
                    stream = self.client.watch(POD, "default", resource_version=version, field_selector=f"metadata.name={name}")
                    async with contextlib.aclosing(stream) as pairs:  # type: ignore[type-var]
                        async for kind, changed in pairs:
                            if kind in ("ADDED", "MODIFIED"):
                                obj = changed
                                if test(obj):
                                    return obj
        except TimeoutError:
            import json

            raise AssertionError(f"{name}: not {what or test}: {json.dumps(obj.get('status'), indent=1)}") from None
        return obj

    async def gone(self, name: str) -> None:
        async with asyncio.timeout(LIMIT):
            while True:
                try:
                    await self.client.get(POD, name, "default")
                except ApiError as error:
                    assert error.code == 404
                    return
                await asyncio.sleep(0.05)

    async def delete(self, name: str, **options: Any) -> None:
        await self.client.delete(POD, name, "default", **options)
        await self.gone(name)

    async def events(self, name: str) -> list[tuple[str, str]]:
        assert self.agent is not None
        await self.agent.events.flush()
        found = [e for e in await self.client.list(EVENT, "default") if e["involvedObject"]["name"] == name]
        return [(e["reason"], e["message"]) for e in found]

    async def containers(self, pod: Object) -> list[Any]:
        assert self.agent is not None
        return await self.agent.runtime.list_containers({"io.kubernetes.pod.uid": pod["metadata"]["uid"]})

    async def exec(self, pod: Object, *command: str) -> str:
        assert self.agent is not None
        entry = self.agent.pods.by_name("default", pod["metadata"]["name"])
        assert entry is not None
        status = entry.container("c")
        assert status is not None
        result = await self.agent.runtime.exec_sync(status.id, command, 10)
        assert result.exit_code == 0, result
        return result.stdout.decode()


def _bound(run: Any, agent: AgentContext) -> Any:
    async def body(ready: Callable[[], None]) -> None:
        await run(agent, ready)

    return body


async def eventually(test: Callable[[], Awaitable[bool]]) -> None:
    """For what tells nobody when it changes: files in a container, containers of the runtime."""
    for _ in range(int(LIMIT * 10)):
        if await test():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("did not come true")


async def _none(bench: Lab, obj: Object) -> bool:
    return not await bench.containers(obj)


def pod(name: str, containers: list[Object], **spec: Any) -> Object:
    metadata = {"name": name, "namespace": "default", **spec.pop("metadata", {})}
    base = {"nodeName": NAME, "hostNetwork": True, "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**base, "containers": containers, **spec}}


def is_ready(obj: Object) -> bool:
    conditions = {c["type"]: c["status"] for c in obj["status"].get("conditions") or []}
    return conditions.get("Ready") == "True"


def state(obj: Object, name: str = "c") -> Object:
    for field in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for status in obj["status"].get(field) or []:
            if status["name"] == name:
                return status
    return {"state": {}, "restartCount": 0, "lastState": {}}


def waiting(obj: Object, name: str = "c") -> str:
    return str((state(obj, name)["state"].get("waiting") or {}).get("reason"))


async def _api() -> tuple[ApiServer, RestClient, asyncio.Task[None]]:
    store = MemoryStore()
    await store.open()
    server = ApiServer(store, authenticator=_Anyone(), authorizer=_Anyone())
    loaded = asyncio.Event()
    task = asyncio.create_task(server.run(loaded.set))
    await loaded.wait()
    client = RestClient(LocalTransport(server.handle, UserInfo("admin", ("system:masters",))))
    for name in ("default", "kube-node-lease"):
        await client.create(builtin("Namespace"), {"metadata": {"name": name}})
    return server, client, task


@contextlib.asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    directory = Path(tempfile.mkdtemp(prefix=f"k1s-a{os.getpid()}-", dir="/tmp"))
    config = AgentConfig(data_dir=directory / "d", run_dir=directory / "r", pod_log_dir=directory / "logs", node_name=NAME)
    _build_images(config.images_dir)
    _, client, task = await _api()
    bench = Lab(client, config)
    try:
        await bench.start_agent()
        yield bench
    finally:
        await bench.stop_agent()
        await stop_all(config)
        task.cancel()
        left = [t for t in mounts.targets() if t.startswith(str(directory))]
        assert not left, f"mounts left behind: {left}"
        assert not list(Path("/sys/fs/cgroup").glob(f"*{cgroup_root(config)}")), "cgroups left behind"
        shutil.rmtree(directory)


async def test_pods() -> None:
    """Every case on one node."""
    async with lab() as bench:
        chosen = os.environ.get("K1S_CASE", "")
        for case in CASES:
            if chosen and chosen not in case.__name__:
                continue
            try:
                async with asyncio.timeout(90):
                    await case(bench)
            except BaseException as error:
                error.add_note(f"case {case.__name__}")
                raise
            assert bench.running is not None and not bench.running.done(), f"the agent ended during {case.__name__}"


async def node_is_registered(bench: Lab) -> None:
    node = await bench.client.get(NODE, NAME)
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == NAME
    status = node["status"]
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "KubeletReady")
    assert status["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://")
    assert status["capacity"]["cpu"] == str(len(os.sched_getaffinity(0)))
    assert {a["type"]: a["address"] for a in status["addresses"]} == {"InternalIP": "127.0.0.1", "Hostname": NAME}
    assert any(BUSYBOX in i["names"] for i in status["images"])
    found = await bench.client.get(builtin("Lease"), NAME, "kube-node-lease")
    assert found["spec"]["holderIdentity"] == NAME


async def pod_runs_and_goes(bench: Lab) -> None:
    await bench.run("runs", "sleep", "1000")
    obj = await bench.until("runs", is_ready, "ready")
    status = obj["status"]
    assert status["phase"] == "Running" and status["podIP"] == "127.0.0.1" and status["hostIP"] == "127.0.0.1"
    assert status["qosClass"] == "BestEffort" and status["startTime"]
    assert state(obj)["containerID"].startswith("containerd://") and state(obj)["started"] is True
    events = await bench.events("runs")
    assert ("Pulled", 'Container image "busybox:1.36" already present on machine') in events
    assert ("Started", "Started container c") in events
    assert "# Kubernetes-managed hosts file" in await bench.exec(obj, "cat", "/etc/hosts")
    uid = obj["metadata"]["uid"]
    await bench.delete("runs")
    assert ("Killing", "Stopping container c") in await bench.events("runs")
    assert await bench.containers(obj) == []
    assert not (bench.config.pods_dir / uid).exists()
    assert bench.agent is not None and bench.agent.cgroups is not None
    assert uid not in bench.agent.cgroups.pods()


async def pod_succeeds_and_fails(bench: Lab) -> None:
    await bench.run("good", "true", restartPolicy="Never")
    await bench.run("bad", "sh", "-c", "echo last words > /dev/termination-log; exit 5", restartPolicy="Never")
    good = await bench.until("good", lambda o: o["status"].get("phase") == "Succeeded")
    bad = await bench.until("bad", lambda o: o["status"].get("phase") == "Failed")
    assert state(good)["state"]["terminated"]["reason"] == "Completed"
    ended = state(bad)["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (5, "Error", "last words\n")
    ready = next(c for c in good["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PodCompleted")
    await bench.delete("good")
    await bench.delete("bad")


async def container_crashes(bench: Lab) -> None:
    await bench.run("crash", "sh", "-c", "exit 1")
    obj = await bench.until("crash", lambda o: waiting(o) == "CrashLoopBackOff", "in crash loop")
    status = state(obj)
    assert status["restartCount"] == 1 and status["lastState"]["terminated"]["exitCode"] == 1
    assert "back-off 10s restarting failed container=c pod=crash_default" in status["state"]["waiting"]["message"]
    assert obj["status"]["phase"] == "Running"
    assert "BackOff" in [reason for reason, _ in await bench.events("crash")]
    await bench.delete("crash")


async def image_is_missing(bench: Lab) -> None:
    image = {"image": "localhost:1/absent:1"}
    await bench.run("noimage", "true", container=image)
    obj = await bench.until("noimage", lambda o: waiting(o) in ("ErrImagePull", "ImagePullBackOff"), "failing to pull")
    assert obj["status"]["phase"] == "Pending"
    events = await bench.events("noimage")
    assert ("Pulling", 'Pulling image "localhost:1/absent:1"') in events
    assert ("Failed", "Error: ErrImagePull") in events
    obj = await bench.until("noimage", lambda o: waiting(o) == "ImagePullBackOff", "backing off")
    assert state(obj)["state"]["waiting"]["message"].startswith('Back-off pulling image "localhost:1/absent:1": ErrImagePull: ')
    assert ("BackOff", 'Back-off pulling image "localhost:1/absent:1"') in await bench.events("noimage")
    await bench.delete("noimage")
    await bench.run("badname", "true", container={"image": "UPPER:1"})
    obj = await bench.until("badname", lambda o: waiting(o) == "InvalidImageName", "refused")
    await bench.delete("badname")
    await bench.run("never", "true", container={"image": "localhost:1/absent:1", "imagePullPolicy": "Never"})
    await bench.until("never", lambda o: waiting(o) == "ErrImageNeverPull", "refused")
    await bench.delete("never")


async def init_containers_run_in_order(bench: Lab) -> None:
    def step(name: str, text: str, **more: Any) -> Object:
        mount = {"name": "shared", "mountPath": "/shared"}
        return {"name": name, "image": "busybox:1.36", "command": ["sh", "-c", text], "volumeMounts": [mount], **more}

    inits = [
        step("one", "echo one >> /shared/log"),
        step("side", "echo side >> /shared/log; sleep 1000", restartPolicy="Always"),
        step("two", "grep -q side /shared/log && echo two >> /shared/log"),
    ]
    await bench.client.create(
        POD, pod("inits", [step("c", "sleep 1000")], initContainers=inits, volumes=[{"name": "shared", "emptyDir": {}}])
    )
    obj = await bench.until("inits", is_ready, "ready")
    assert await bench.exec(obj, "cat", "/shared/log") == "one\nside\ntwo\n"
    assert state(obj, "one")["state"]["terminated"]["reason"] == "Completed" and state(obj, "one")["ready"] is True
    assert "running" in state(obj, "side")["state"]
    await bench.delete("inits")


async def environment_and_volumes(bench: Lab) -> None:
    await bench.client.create(CONFIG_MAP, {"metadata": {"name": "cm", "namespace": "default"}, "data": {"k": "v1", "l": "w"}})
    await bench.client.create(
        SECRET, {"metadata": {"name": "sec", "namespace": "default"}, "data": {"pw": "c2VjcmV0"}, "type": "Opaque"}
    )
    container = {
        "env": [
            {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}},
            {"name": "B", "value": "$(A)-$(NONE)-$$(A)"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "envFrom": [{"prefix": "S_", "secretRef": {"name": "sec"}}],
        "volumeMounts": [
            {"name": "cm", "mountPath": "/cm"},
            {"name": "sec", "mountPath": "/sec", "readOnly": True},
            {"name": "down", "mountPath": "/down"},
            {"name": "cm", "mountPath": "/one/file", "subPath": "l"},
            {"name": "mem", "mountPath": "/mem"},
        ],
    }
    volumes = [
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 0o400}},
        {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
    ]
    await bench.run("vols", "sleep", "1000", container=container, volumes=volumes, metadata={"labels": {"x": "y"}})
    obj = await bench.until("vols", is_ready, "ready")
    out = await bench.exec(obj, "sh", "-c", "echo $A $B $NODE $S_pw; cat /cm/k /sec/pw /down/labels /one/file; df /mem | tail -1")
    assert out.startswith(f'v1 v1-$(NONE)-$(A) {NAME} secret\nv1secretx="y"w'), out
    assert "tmpfs" in out and " 8192 " in out
    assert bench.config.pods_dir.stat().st_mode & 0o007 == 0, "the host's other users could read the pods' secrets"
    await bench.client.patch(CONFIG_MAP, "cm", "default", {"data": {"k": "v2"}})

    async def changed() -> bool:
        return await bench.exec(obj, "cat", "/cm/k") == "v2"

    await eventually(changed)
    await bench.delete("vols")


async def missing_references(bench: Lab) -> None:
    await bench.run("nocm", "sleep", "1000", container={"envFrom": [{"configMapRef": {"name": "later"}}]})
    await bench.until("nocm", lambda o: waiting(o) == "CreateContainerConfigError", "refused")
    await bench.run("novol", "sleep", "1000", volumes=[{"name": "v", "configMap": {"name": "later"}}])

    async def refused() -> bool:
        return any(reason == "FailedMount" for reason, _ in await bench.events("novol"))

    await eventually(refused)
    await bench.client.create(CONFIG_MAP, {"metadata": {"name": "later", "namespace": "default"}, "data": {"k": "v"}})
    await bench.until("nocm", is_ready, "ready once the config map is there")
    await bench.until("novol", is_ready, "ready once the config map is there")
    await bench.delete("nocm")
    await bench.delete("novol")


async def probes_restart_and_hold_back(bench: Lab) -> None:
    quick = {"periodSeconds": 1, "failureThreshold": 1}
    live = {"exec": {"command": ["test", "!", "-e", "/tmp/ill"]}, **quick}
    ready = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, **quick}
    await bench.run("probes", "sleep", "1000", container={"livenessProbe": live, "readinessProbe": ready})
    obj = await bench.until("probes", lambda o: "running" in state(o)["state"], "running")
    assert not is_ready(obj)

    async def told() -> bool:
        return any(m.startswith("Readiness probe failed:") for _, m in await bench.events("probes"))

    await eventually(told)
    await bench.exec(obj, "touch", "/tmp/ready")
    obj = await bench.until("probes", is_ready, "ready")
    await bench.exec(obj, "touch", "/tmp/ill")
    obj = await bench.until("probes", lambda o: state(o)["restartCount"] == 1, "restarted")
    messages = [m for _, m in await bench.events("probes")]
    assert "Container c failed liveness probe, will be restarted" in messages
    await bench.delete("probes")


async def hooks_run(bench: Lab) -> None:
    lifecycle = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo started > /out/post"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stopped > /out/pre"]}},
    }
    out = bench.config.data_dir / "hook-out"
    volumes = [{"name": "out", "hostPath": {"path": str(out), "type": "DirectoryOrCreate"}}]
    container = {"lifecycle": lifecycle, "volumeMounts": [{"name": "out", "mountPath": "/out"}]}
    await bench.run("hooks", "sleep", "1000", container=container, volumes=volumes, terminationGracePeriodSeconds=3)
    await bench.until("hooks", is_ready, "ready")
    assert (out / "post").read_text() == "started\n"
    await bench.delete("hooks")
    assert (out / "pre").read_text() == "stopped\n"


async def deadline_ends_a_pod(bench: Lab) -> None:
    await bench.run("deadline", "sleep", "1000", activeDeadlineSeconds=2)
    obj = await bench.until("deadline", lambda o: o["status"].get("phase") == "Failed", "failed")
    assert obj["status"]["reason"] == "DeadlineExceeded"
    await bench.delete("deadline")


async def too_big_is_refused(bench: Lab) -> None:
    await bench.run("big", "sleep", "1000", container={"resources": {"requests": {"cpu": "1000"}}})
    obj = await bench.until("big", lambda o: o["status"].get("phase") == "Failed", "failed")
    assert obj["status"]["reason"] == "OutOfcpu"
    await bench.delete("big")


async def image_change_restarts_one_container(bench: Lab) -> None:
    await bench.run("image", "sleep", "1000")
    before = await bench.until("image", is_ready, "ready")
    patch = {"spec": {"containers": [{"name": "c", "image": "docker.io/library/busybox:1.36"}]}}
    await bench.client.patch(POD, "image", "default", patch, content_type="application/strategic-merge-patch+json")
    after = await bench.until("image", lambda o: state(o)["restartCount"] == 1 and is_ready(o), "restarted")
    assert state(before)["containerID"] != state(after)["containerID"]
    await bench.delete("image")


async def sandbox_death_is_mended(bench: Lab) -> None:
    assert bench.agent is not None
    await bench.run("sandbox", "sleep", "1000")
    obj = await bench.until("sandbox", is_ready, "ready")
    (box,) = await bench.agent.runtime.list_pod_sandboxes({"io.kubernetes.pod.uid": obj["metadata"]["uid"]})
    await bench.agent.runtime.stop_pod_sandbox(box.id)
    await bench.until("sandbox", lambda o: state(o)["restartCount"] == 1 and is_ready(o), "running in a new sandbox")
    assert "SandboxChanged" in [reason for reason, _ in await bench.events("sandbox")]
    await bench.delete("sandbox")


async def agent_restart_touches_nothing(bench: Lab) -> None:
    await bench.run("stays", "sleep", "1000")
    await bench.run("goes", "sleep", "1000")
    before = await bench.until("stays", is_ready, "ready")
    other = await bench.until("goes", is_ready, "ready")
    await bench.stop_agent()
    (running,) = await _ids(bench, before)
    # Gone from the API while the agent is down: it must be ended afterwards.
    await bench.client.delete(POD, "goes", "default", grace_period_seconds=0)
    await bench.start_agent()
    assert await _ids(bench, before) == [running]
    after = await bench.client.get(POD, "stays", "default")
    assert is_ready(after) and state(after)["restartCount"] == 0
    assert state(after)["containerID"] == state(before)["containerID"]
    await eventually(lambda: _none(bench, other))
    assert bench.agent is not None
    await bench.agent.runtime.stop_container(running, 0)
    await bench.until("stays", lambda o: state(o)["restartCount"] == 1, "restarted: events work after the restart")
    await bench.delete("stays")


async def containerd_dies_and_comes_back(bench: Lab) -> None:
    await bench.run("survivor", "sleep", "1000")
    before = await bench.until("survivor", is_ready, "ready")
    pid = running_pid(ContainerdPaths.of(bench.config))
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    async def back() -> bool:
        return running_pid(ContainerdPaths.of(bench.config)) not in (None, pid)

    await eventually(back)
    await bench.run("later", "sh", "-c", "exit 0", restartPolicy="Never")
    await bench.until("later", lambda o: o["status"].get("phase") == "Succeeded", "run by the new containerd, its exit seen")
    after = await bench.client.get(POD, "survivor", "default")
    assert state(after)["restartCount"] == 0 and state(after)["containerID"] == state(before)["containerID"]
    await bench.delete("survivor")
    await bench.delete("later")


async def ephemeral_container_joins(bench: Lab) -> None:
    await bench.run("debugged", "sleep", "1000")
    obj = await bench.until("debugged", is_ready, "ready")
    extra = {"name": "debug", "image": "busybox:1.36", "command": ["sleep", "1000"], "targetContainerName": "c"}
    extra |= {"terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"}
    obj["spec"]["ephemeralContainers"] = [extra]
    await bench.client.update(POD, obj, subresource="ephemeralcontainers")
    obj = await bench.until("debugged", lambda o: "running" in state(o, "debug")["state"], "running beside the other")
    assert state(obj)["restartCount"] == 0
    await bench.delete("debugged")


async def image_archive_appears(bench: Lab) -> None:
    name = "docker.io/library/appears:1"
    await bench.run("patient", "sleep", "1000", container={"image": name})
    await bench.until("patient", lambda o: waiting(o) in ("ErrImagePull", "ImagePullBackOff"), "waiting for its image")
    builder = _builder()
    builder.build_busybox(bench.config.images_dir / "late.tar", Path(find_binary("busybox") or ""), name)
    await bench.until("patient", is_ready, "ready once the archive is there")
    node = await bench.client.get(NODE, NAME)
    assert any(name in i["names"] for i in node["status"]["images"])
    await bench.delete("patient")


async def log_is_rotated(bench: Lab) -> None:
    assert bench.agent is not None
    await bench.run(
        "chatty", "sh", "-c", "dd if=/dev/zero bs=1M count=11 2>/dev/null | tr '\\0' 'x' | fold -w 1000; echo; sleep 1000"
    )
    obj = await bench.until("chatty", is_ready, "ready")
    directory = bench.config.pod_log_dir / f"default_chatty_{obj['metadata']['uid']}" / "c"

    async def rotated() -> bool:
        assert bench.agent is not None
        for handler in bench.agent.heartbeat_handlers:
            handler()
        return len(list(directory.iterdir())) == 2 and (directory / "0.log").exists()

    await eventually(rotated)
    await bench.delete("chatty")
    assert not directory.exists()


async def second_delete_shortens_the_grace(bench: Lab) -> None:
    await bench.run("stubborn", "sleep", "1000", terminationGracePeriodSeconds=60)
    await bench.until("stubborn", is_ready, "ready")
    await bench.client.delete(POD, "stubborn", "default")
    obj = await bench.client.get(POD, "stubborn", "default")
    assert obj["metadata"]["deletionGracePeriodSeconds"] == 60 and is_ready(obj)
    await bench.delete("stubborn", grace_period_seconds=1)
    await eventually(lambda: _none(bench, obj))


async def resources_reach_the_kernel(bench: Lab) -> None:
    assert bench.agent is not None and bench.agent.cgroups is not None
    resources = {"requests": {"cpu": "100m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "32Mi"}}
    await bench.run("limited", "sleep", "1000", container={"resources": resources})
    obj = await bench.until("limited", is_ready, "ready")
    assert obj["status"]["qosClass"] == "Burstable"
    groups = bench.agent.cgroups
    path = groups.pod_path(obj["metadata"]["uid"], "Burstable")
    names = ("memory.max", "cpu.max") if groups.unified else ("memory.limit_in_bytes", "cpu.cfs_quota_us")
    memory, cpu = groups.file("memory", path, names[0]), groups.file("cpu", path, names[1])
    assert memory.read_text().strip() == str(32 << 20) and cpu.read_text().split()[0] == "20000"
    more = {"requests": {"cpu": "150m", "memory": "16Mi"}, "limits": {"cpu": "300m", "memory": "64Mi"}}
    patch = {"spec": {"containers": [{"name": "c", "resources": more}]}}
    kind = "application/strategic-merge-patch+json"
    await bench.client.patch(POD, "limited", "default", patch, content_type=kind, subresource="resize")
    resized = await bench.until("limited", lambda o: state(o).get("resources", {}).get("limits", {}).get("memory") == "64Mi")
    assert state(resized)["restartCount"] == 0 and state(resized)["containerID"] == state(obj)["containerID"]
    assert memory.read_text().strip() == str(64 << 20) and cpu.read_text().split()[0] == "30000"
    huge = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "900"}, "limits": {"cpu": "900"}}}]}}
    await bench.client.patch(POD, "limited", "default", huge, content_type=kind, subresource="resize")
    await bench.until("limited", lambda o: any(c.get("reason") == "Infeasible" for c in o["status"]["conditions"]), "infeasible")
    await bench.run("greedy", "sh", "-c", "tail /dev/zero", restartPolicy="Never", container={"resources": resources})
    obj = await bench.until("greedy", lambda o: o["status"].get("phase") == "Failed", "killed for memory")
    ended = state(obj)["state"]["terminated"]
    assert ended["exitCode"] in (1, 137) and ended["reason"] in ("OOMKilled", "Error")
    await bench.delete("limited")
    await bench.delete("greedy")


async def claims_are_mounted_once_bound(bench: Lab) -> None:
    path = bench.config.data_dir / "pv"
    size = {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"]}
    made = await bench.client.create(
        CLAIM, {"metadata": {"name": "data", "namespace": "default"}, "spec": {**size, "storageClassName": ""}}
    )
    await bench.run(
        "claims", "sleep", "1000", volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
        container={"volumeMounts": [{"name": "d", "mountPath": "/data"}]},
    )  # fmt: skip

    async def refused() -> bool:
        return any("is not bound" in message for _, message in await bench.events("claims"))

    await eventually(refused)
    # No controllers run here: the test binds, as the volume binder does.
    reference = {"kind": "PersistentVolumeClaim", "name": "data", "namespace": "default", "uid": made["metadata"]["uid"]}
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": str(path)},
        "claimRef": reference,
    }
    await bench.client.create(VOLUME, {"metadata": {"name": "pv"}, "spec": spec})
    await bench.client.patch(CLAIM, "data", "default", {"spec": {"volumeName": "pv"}})
    await bench.client.patch(CLAIM, "data", "default", {"status": {"phase": "Bound"}}, subresource="status")
    obj = await bench.until("claims", is_ready, "ready once the claim is bound")
    await bench.exec(obj, "sh", "-c", "echo kept > /data/file")
    await bench.delete("claims")
    assert (path / "file").read_text() == "kept\n"


async def _ids(bench: Lab, obj: Object) -> list[str]:
    assert bench.agent is not None
    from k1s.cri.containerd import ContainerdRuntime

    runtime = ContainerdRuntime(str(bench.config.containerd_socket))
    try:
        found = await runtime.list_containers({"io.kubernetes.pod.uid": obj["metadata"]["uid"]})
        return [c.id for c in found if c.state == "running"]
    finally:
        await runtime.close()


CASES = (
    node_is_registered,
    pod_runs_and_goes,
    pod_succeeds_and_fails,
    container_crashes,
    image_is_missing,
    init_containers_run_in_order,
    environment_and_volumes,
    missing_references,
    probes_restart_and_hold_back,
    hooks_run,
    deadline_ends_a_pod,
    too_big_is_refused,
    image_change_restarts_one_container,
    sandbox_death_is_mended,
    agent_restart_touches_nothing,
    containerd_dies_and_comes_back,
    ephemeral_container_joins,
    image_archive_appears,
    log_is_rotated,
    second_delete_shortens_the_grace,
    resources_reach_the_kernel,
    claims_are_mounted_once_bound,
)
