"""Network policies in the agent's network part: from the API's objects to packets, and the moment when a pod starts.

Informers are the client's own stores; what the agent asks of other nodes comes from a client that the test answers for.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netlab
from test_net_agent import config, eventually, make_agent, node_object, piece, resolve, running, scenario, service, wire

from k1s.agent.config import AgentConfig
from k1s.agent.network import policy_watch
from k1s.api.errors import ApiError
from k1s.net import link

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


FROM = r"""
import socket, sys
try:
    socket.create_connection((sys.argv[2], 8080), 0.5, (sys.argv[1], 0))
    print("passed")
except TimeoutError:
    print("timeout")
except OSError:
    print("refused")
"""


def try_from(where: str, source: str, target: str) -> str:
    return netlab.run("ip", "netns", "exec", where, "python3", "-ISc", FROM, source, target).strip()


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
                    elsewhere = policy("elsewhere", ingress=[{"from": peers}])
                    elsewhere["metadata"]["namespace"] = "other"
                    agent.informers.put("NetworkPolicy", elsewhere)
                    await asyncio.sleep(0.1)
                    assert client.open == set(), "nor does a policy that isolates nobody here"
                    agent.informers.put("NetworkPolicy", policy("some", ingress=[{"from": peers}]))
                    # The peer plays a pod of another node.
                    client.say(
                        "Namespace", "ADDED", {"metadata": {"name": "far", "labels": {"team": "a"}, "resourceVersion": "1"}}
                    )
                    client.say("Namespace", "BOOKMARK", END)
                    client.say("Pod", "ADDED", pod("client", "far", ip="192.0.2.2"))
                    client.say("Pod", "BOOKMARK", END)
                    await eventually(passes, "a pod of another node is let in")
                    # One that nobody has told of gets no answer, so that its next try counts; one that is known is refused.
                    netlab.run("ip", "-n", peer, "addr", "add", "10.142.9.9/32", "dev", "lo")
                    netlab.run("ip", "route", "add", "10.142.9.9/32", "via", "192.0.2.2")
                    assert await asyncio.to_thread(try_from, peer, "10.142.9.9", address) == "timeout"
                    for name in ("default", "foes"):
                        client.say("Namespace", "ADDED", {"metadata": {"name": name, "resourceVersion": "2"}})
                    client.say("Pod", "ADDED", pod("foe", "foes", ip="10.142.9.9"))
                    await eventually(lambda: try_from(peer, "10.142.9.9", address) == "refused", "it is known")
                    client.say("Pod", "ADDED", pod("foe", "far", ip="10.142.9.9"))
                    await eventually(lambda: try_from(peer, "10.142.9.9", address) == "passed", "and let in")
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
                    agent.informers.stores["NetworkPolicy"].remove("other", "elsewhere")
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
                    assert await asyncio.to_thread(netlab.ask, three, address, 8080, timeout=0.5) == ["TimeoutError"]
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


def test_dns_where_somebody_has_port_53(config: AgentConfig) -> None:
    """The proxy leads to another port then; a policy that lets port 53 of kube-dns through means this one too."""

    async def work(peer: str) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.create_server(("0.0.0.0", 53)):
            udp.bind(("0.0.0.0", 53))
            agent = an_agent(config)
            agent.informers.put("Pod", pod("pod-c1"))
            agent.informers.put("Service", service("web", "10.143.0.7"))
            agent.informers.put("NetworkPolicy", policy("deny", policyTypes=["Egress"]))
            labels = {"kubernetes.io/metadata.name": "kube-system"}
            agent.client.say(
                "Namespace", "ADDED", {"metadata": {"name": "kube-system", "labels": labels, "resourceVersion": "1"}}
            )
            for kind in ("Namespace", "Pod"):
                agent.client.say(kind, "BOOKMARK", END)
            kube_dns = {"namespaceSelector": {"matchLabels": labels}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
            ports = [{"protocol": "UDP", "port": 53}]
            with netlab.namespace() as one:
                async with running(agent):
                    await wire(config, "c1", one)

                    def answered(tcp: bool = False) -> bool:
                        try:
                            return resolve(one, "web.shop.svc.cluster.local", tcp=tcp) == ["0", "10.143.0.7"]
                        except AssertionError:
                            return False

                    assert not await asyncio.to_thread(answered)
                    agent.informers.put("NetworkPolicy", policy("dns", egress=[{"to": [kube_dns], "ports": ports}]))
                    await eventually(answered, "DNS is let through")
                    assert not await asyncio.to_thread(answered, True)

    scenario(work, config)


@contextmanager
def closing(servers: netlab.Servers) -> Iterator[None]:
    try:
        yield
    finally:
        servers.stop()


FORGER = r"""
import socket, struct, sys, time
source, target, mac = sys.argv[1:4]
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
own = open("/sys/class/net/eth0/address").read().strip()
def packet(to):
    payload = sys.argv[4].encode()
    udp = struct.pack(">HHHH", 7000, 9000, 8 + len(payload), 0) + payload
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    head = struct.pack(">BBHHHBBH8s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, ends)
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]
    return bytes.fromhex(to.replace(":", "")) + bytes.fromhex(own.replace(":", "")) + b"\x08\0" + head + udp
for _ in range(5):
    raw.send(packet(mac))
    time.sleep(0.02)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("bridge_filter", ["0", "1"])
def test_a_pod_that_forges_frames(config: AgentConfig, bridge_filter: str) -> None:
    """With CAP_NET_RAW: straight to its neighbour's interface, and with the address of a pod that is let in."""

    async def work(peer: str) -> None:
        for family in ("ip", "ip6"):
            switch = Path(f"/proc/sys/net/bridge/bridge-nf-call-{family}tables")
            if switch.exists():
                switch.write_text(bridge_filter)
        agent = an_agent(config)
        for name, app in (("pod-c1", "target"), ("pod-c2", "friend"), ("pod-c3", "foe")):
            agent.informers.put("Pod", pod(name, app=app))
        peers = [{"podSelector": {"matchLabels": {"app": "friend"}}}]
        rules = policy("some", podSelector={"matchLabels": {"app": "target"}}, ingress=[{"from": peers}])
        servers = netlab.Servers()
        with closing(servers), netlab.namespace() as target, netlab.namespace() as friend, netlab.namespace() as foe:
            async with running(agent):
                client = agent.client
                client.say("Pod", "BOOKMARK", END)
                client.say("Namespace", "BOOKMARK", END)
                address = await wire(config, "c1", target)
                friends = await wire(config, "c2", friend)
                foes = await wire(config, "c3", foe)

                def mac(link: str, where: str) -> str:
                    return netlab.run("ip", "netns", "exec", where, "cat", f"/sys/class/net/{link}/address").strip()

                bridge = await asyncio.to_thread(link.find, "k1s0")
                assert bridge is not None
                direct, gateway = mac("eth0", target), bridge.mac

                async def come(listener: subprocess.Popen[bytes]) -> set[str]:
                    """Who is heard: each way of forging says its name."""
                    ways = {
                        "honest": (friend, friends, gateway),
                        "forbidden": (foe, foes, gateway),
                        "beside the host": (foe, foes, direct),
                        "as the friend": (foe, friends, gateway),
                        "as the friend beside the host": (foe, friends, direct),
                    }
                    for name, (where, source, to) in ways.items():
                        with process(where, FORGER, source, address, to, name):
                            pass
                    return {line.partition(" ")[2] for line in await heard(listener)}

                with process(target, LISTENER) as listener:
                    everything = await come(listener)
                    assert {"honest", "forbidden", "as the friend"} <= everything, "the test can forge"
                    assert bridge_filter == "1" or "beside the host" in everything
                    agent.informers.put("NetworkPolicy", rules)
                    await eventually(lambda: "forward-ingress" in netlab.run("nft", "list", "ruleset"), "rules")
                    assert await come(listener) == {"honest"}
                    servers.start(peer, "outside")
                    servers.start(foe, "foe")
                    assert (await asyncio.to_thread(netlab.ask, foe, "192.0.2.2", 8080))[0].startswith("outside")
                    assert (await asyncio.to_thread(netlab.ask, friend, foes, 8080))[0].startswith("foe")
                    agent.informers.put("Service", service("web", "10.143.0.7"))
                    agent.informers.put("EndpointSlice", piece("web", foes))
                    for where in (friend, foe):
                        await eventually(
                            lambda where=where: netlab.ask(where, "10.143.0.7", 80)[0].startswith("foe"), "a Service"
                        )
                    agent.informers.stores["NetworkPolicy"].remove("default", "some")
                    await eventually(lambda: "table bridge" not in netlab.run("nft", "list", "tables"), "no policy, no guard")

    scenario(work, config)
