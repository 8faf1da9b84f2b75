"""Network policies in the agent's network part: from the API's objects to packets, and the moment when a pod starts.

Informers are the client's own stores; what the agent asks of other nodes comes from a client that the test answers for.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netlab
from test_net_agent import config, eventually, make_agent, node_object, running, scenario, wire

from k1s.agent.config import AgentConfig
from k1s.agent.network import policy_watch
from k1s.api.errors import ApiError

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
__all__ = ["config"]

END = {"metadata": {"resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}}}


class Client:
    """Watches that say what the test puts in."""

    def __init__(self) -> None:
        self.queues: dict[str, asyncio.Queue[Any]] = {}
        self.asked: dict[str, str] = {}
        self.open: set[str] = set()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(0.01)

    async def watch(self, resource: Any, namespace: str = "", **options: Any) -> AsyncGenerator[tuple[str, Any], None]:
        self.asked[resource.kind] = options["field_selector"]
        queue = self.queues.setdefault(resource.kind, asyncio.Queue())
        self.open.add(resource.kind)
        try:
            while True:
                item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.open.discard(resource.kind)

    def say(self, kind: str, event: str, obj: dict[str, Any]) -> None:
        self.queues.setdefault(kind, asyncio.Queue()).put_nowait((event, obj))


def an_agent(config: AgentConfig, runtime: Any = None) -> Any:
    agent = make_agent(config, runtime)
    agent.client = Client()
    agent.informers.put("Node", node_object())
    return agent


def policy(name: str, version: str = "1", **spec: Any) -> dict[str, Any]:
    meta = {"namespace": "default", "name": name, "resourceVersion": version}
    return {"metadata": meta, "spec": {"podSelector": {}, **spec}}


def pod(name: str, namespace: str = "default", version: str = "1", ip: str = "", **labels: str) -> dict[str, Any]:
    meta = {"namespace": namespace, "name": name, "uid": f"{namespace}-{name}", "resourceVersion": version, "labels": labels}
    return {"metadata": meta, "spec": {"containers": []}, "status": {"podIP": ip} if ip else {}}


SENDER = r"""
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("ready", flush=True)
sent = 0
while True:
    try:
        s.sendto(b"%d" % sent, (sys.argv[1], 9000))
        sent += 1
        if sent == 1:
            print("sending", flush=True)
    except OSError:
        pass
    if sent > 200:
        time.sleep(0.01)
"""
LISTENER = r"""
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 9000))
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(100)
    print(peer[0], data.decode(), flush=True)
"""


@contextmanager
def process(where: str, code: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        ["ip", "netns", "exec", where, "python3", "-ISc", code, *arguments], stdout=subprocess.PIPE
    ) as running_process:
        assert running_process.stdout is not None
        try:
            assert running_process.stdout.readline() == b"ready\n"
            os.set_blocking(running_process.stdout.fileno(), False)
            yield running_process
        finally:
            running_process.kill()


def said(process: subprocess.Popen[bytes]) -> str:
    """What it has printed since the last look."""
    assert process.stdout is not None
    try:
        return os.read(process.stdout.fileno(), 1 << 20).decode()
    except BlockingIOError:
        return ""


async def heard(listener: subprocess.Popen[bytes], seconds: float = 0.3) -> list[str]:
    await asyncio.sleep(seconds)
    return said(listener).splitlines()


@pytest.mark.parametrize("isolated", [True, False])
def test_a_pod_that_sends_as_soon_as_it_can(config: AgentConfig, isolated: bool) -> None:
    """It tries all the time while it is wired. Under default-deny not one datagram gets out; else the first one does."""

    async def work(peer: str) -> None:
        agent = an_agent(config)
        agent.informers.put("Pod", pod("pod-c1"))
        if isolated:
            agent.informers.put("NetworkPolicy", policy("deny", policyTypes=["Egress"]))
        with netlab.namespace() as space, process(peer, LISTENER) as listener, process(space, SENDER, "192.0.2.2") as sender:
            async with running(agent):
                await wire(config, "c1", space)
                await eventually(lambda: "sending" in said(sender), "the pod sends")
                if isolated:
                    assert await heard(listener) == []
                    agent.informers.stores["NetworkPolicy"].remove("default", "deny")
                came: list[str] = []
                await eventually(lambda: bool(came.extend(said(listener).splitlines()) or came), "it is heard")
                assert came[0].endswith(" 0") != isolated, "it was the policy and nothing else that kept it back"

    scenario(work, config)


def test_pods_of_other_nodes_only_while_somebody_asks(config: AgentConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(peer: str) -> None:
        agent = an_agent(config)
        client = agent.client
        agent.informers.put("Pod", pod("pod-c1"))
        agent.informers.put("NetworkPolicy", policy("deny"))
        servers = netlab.Servers()
        with netlab.namespace() as space:
            try:
                async with running(agent):
                    address = await wire(config, "c1", space)
                    servers.start(space, "one")

                    def passes() -> bool:
                        return netlab.ask(peer, address, 8080, timeout=0.3)[0].startswith("one")

                    netlab.run("ip", "-n", peer, "route", "replace", "10.142.3.0/24", "via", "192.0.2.1")
                    assert not await asyncio.to_thread(passes)
                    assert client.open == set(), "default-deny needs to know nobody"
                    peers = [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]
                    agent.informers.put("NetworkPolicy", policy("some", ingress=[{"from": peers}]))
                    # The peer plays a pod of another node.
                    client.say(
                        "Namespace", "ADDED", {"metadata": {"name": "far", "labels": {"team": "a"}, "resourceVersion": "1"}}
                    )
                    client.say("Namespace", "BOOKMARK", END)
                    client.say("Pod", "ADDED", pod("client", "far", ip="192.0.2.2"))
                    client.say("Pod", "BOOKMARK", END)
                    await eventually(passes, "a pod of another node is let in")
                    assert "spec.nodeName!=node-a" in client.asked["Pod"]
                    # The watch breaks and starts anew: who is gone meanwhile is forgotten.
                    client.queues["Pod"].put_nowait(ApiError(410, "Expired", "too old"))
                    client.say("Pod", "BOOKMARK", END)
                    await eventually(lambda: not passes(), "it is gone")
                    client.say("Pod", "ADDED", pod("client", "far", ip="192.0.2.2"))
                    await eventually(passes, "and back")
                    client.say(
                        "Pod", "MODIFIED", {**pod("client", "far"), "status": {"podIP": "192.0.2.2", "phase": "Succeeded"}}
                    )
                    await eventually(lambda: not passes(), "it ended")
                    agent.informers.stores["NetworkPolicy"].remove("default", "some")
                    await eventually(lambda: client.open == set(), "nobody asks any more")
                    assert not await asyncio.to_thread(passes)
                    agent.informers.stores["NetworkPolicy"].remove("default", "deny")
                    await eventually(passes, "no policy, no rule")
            finally:
                servers.stop()

    scenario(work, config)


def test_a_server_that_does_not_answer_closes_and_does_not_block(config: AgentConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_watch, "_PATIENCE", 0.3)

    async def work(peer: str) -> None:
        agent = an_agent(config)
        agent.informers.put("Pod", pod("pod-c1", app="web"))
        agent.informers.put("Pod", pod("pod-c2", app="client"))
        peers = [{"podSelector": {"matchLabels": {"app": "client"}}}]
        agent.informers.put(
            "NetworkPolicy", policy("some", podSelector={"matchLabels": {"app": "web"}}, ingress=[{"from": peers}])
        )
        servers = netlab.Servers()
        with netlab.namespace() as one, netlab.namespace() as two, netlab.namespace() as three:
            try:
                async with running(agent):
                    address = await wire(config, "c1", one)
                    await wire(config, "c2", two)
                    await wire(config, "c3", three)
                    servers.start(one, "one")
                    # Pods of this node are known without anybody.
                    assert (await asyncio.to_thread(netlab.ask, two, address, 8080))[0].startswith("one")
                    assert await asyncio.to_thread(netlab.ask, three, address, 8080) == ["ConnectionRefusedError"]
            finally:
                servers.stop()

    scenario(work, config)


def test_labels_restart_flush_and_address_that_is_used_again(config: AgentConfig) -> None:
    async def work(peer: str) -> None:
        servers = netlab.Servers()
        deny = policy("deny", podSelector={"matchLabels": {"app": "web"}})
        with netlab.namespace() as one, netlab.namespace() as two:
            try:
                first = an_agent(config)
                first.informers.put("Pod", pod("pod-c1", app="web"))
                first.informers.put("NetworkPolicy", deny)
                async with running(first):
                    address = await wire(config, "c1", one)
                    await wire(config, "c2", two)
                    servers.start(one, "one")

                    def passes() -> bool:
                        return netlab.ask(two, address, 8080, timeout=0.3)[0].startswith("one")

                    assert not await asyncio.to_thread(passes)
                    first.informers.put("Pod", pod("pod-c1", version="2", app="other"))
                    await eventually(passes, "its labels let it go")
                    first.informers.put("Pod", pod("pod-c1", version="3", app="web"))
                    await eventually(lambda: not passes(), "and take it again")
                    await asyncio.to_thread(netlab.run, "nft", "flush", "ruleset")
                    await eventually(lambda: not passes(), "somebody's flush is repaired")
                # The agent is away: its rules are not.
                assert not await asyncio.to_thread(passes)

                class Alive:
                    async def list_pod_sandboxes(self) -> list[Any]:
                        from types import SimpleNamespace

                        return [SimpleNamespace(id="c1"), SimpleNamespace(id="c2")]

                second = an_agent(config, Alive())
                second.informers.put("Pod", pod("pod-c1", version="3", app="web"))
                second.informers.put("NetworkPolicy", deny)
                async with running(second):
                    assert not await asyncio.to_thread(passes)
                    # Deleted in the API, its sandbox still there: it stays what it was.
                    second.informers.stores["Pod"].remove("default", "pod-c1")
                    await asyncio.sleep(0.2)
                    assert not await asyncio.to_thread(passes)
                    code, _ = await netlab.cni(
                        config.cni_bin_dir / "k1s-cni", "DEL", {"cniVersion": "1.0.0", "name": "k1s", "type": "k1s-cni",
                        "socket": str(config.cni_socket)}, container="c1", netns=netlab.path_of(one),
                    )  # fmt: skip
                    assert code == 0
                    listing = await asyncio.to_thread(netlab.run, "nft", "list", "table", "ip", "k1s-policy")
                    assert address not in listing
            finally:
                servers.stop()

    scenario(work, config)
