"""The agent's network part as a whole, under uvloop, with real containerd calling the plugin.

Informers are the client's own store, fed by the test instead of a watch.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

sys.path.insert(0, str(Path(__file__).parent))
import netlab

from k1s.agent.config import AgentConfig
from k1s.agent.network import app as network
from k1s.api.catalog import Resource
from k1s.base.clock import REAL_CLOCK
from k1s.base.metrics import Registry
from k1s.client.store import ObjectStore
from k1s.net import link, names, teardown

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


class StoreInformer(ObjectStore):
    resource: Resource

    async def synced(self) -> None:
        return None


class StoreInformers:
    def __init__(self) -> None:
        self.stores: dict[str, StoreInformer] = {}

    def informer(self, resource: Resource, *, namespace: str = "", field_selector: str = "") -> StoreInformer:
        return self.stores.setdefault(resource.kind, StoreInformer())

    def put(self, kind: str, obj: dict) -> None:
        self.stores.setdefault(kind, StoreInformer()).put(obj)


class NoSandboxes:
    async def list_pod_sandboxes(self) -> list[Any]:
        return []


def make_agent(config: AgentConfig, runtime: Any = None) -> Any:
    agent = SimpleNamespace(config=config, node_name="node-a", node_ip="192.0.2.1", clock=REAL_CLOCK, metrics=Registry())
    agent.node_ips, agent.address_handlers = ("192.0.2.1",), []
    agent.readiness_handlers, agent.heartbeat_handlers = [], []
    agent.informers, agent.runtime = StoreInformers(), runtime or NoSandboxes()
    agent.heartbeat_handlers = []
    agent.states = []
    agent.set_ready = lambda part, why="": agent.states.append((part, why))
    return agent


def node_object() -> dict:
    return {"metadata": {"name": "node-a"}, "spec": {"podCIDR": "10.142.3.0/24", "podCIDRs": ["10.142.3.0/24"]}}


def service(name: str, ip: str, version: str = "1") -> dict:
    meta = {"name": name, "namespace": "shop", "resourceVersion": version}
    return {"metadata": meta, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}}


def piece(name: str, *addresses: str, version: str = "1") -> dict:
    labels = {"kubernetes.io/service-name": name}
    meta = {"name": f"{name}-x", "namespace": "shop", "labels": labels, "resourceVersion": version}
    endpoints = [{"addresses": [a], "nodeName": "node-a"} for a in addresses]
    return {"metadata": meta, "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints}


@pytest.fixture
def config() -> Iterator[AgentConfig]:
    base = Path(tempfile.mkdtemp(prefix=f"k1st{os.getpid()}-", dir="/tmp"))
    resolv = base / "resolv.conf"
    resolv.write_text("nameserver 192.0.2.2\n")
    # A fresh checkout may have no built shim: the Python twin does then.
    yield AgentConfig(
        data_dir=base / "data",
        run_dir=base / "run",
        cluster_cidr="10.142.0.0/16",
        service_cidr="10.143.0.0/16",
        cluster_dns="10.143.0.10",
        resolv_conf=str(resolv),
    )
    shutil.rmtree(base)


@asynccontextmanager
async def running(agent: Any) -> Any:
    ready = asyncio.Event()
    task = asyncio.ensure_future(network.run(agent, ready.set))
    waiter = asyncio.ensure_future(ready.wait())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    if task.done():
        task.result()
    assert ready.is_set()
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def scenario(work: Callable[[str], Awaitable[None]], config: AgentConfig) -> None:
    """Run under uvloop, as the agent does, in a host namespace of its own."""
    with netlab.host() as peer:

        async def main() -> None:
            try:
                await work(peer)
            finally:
                await asyncio.to_thread(teardown.remove_all, config.agent_dir / "network")

        uvloop.run(main())


async def eventually(check: Callable[[], bool], what: str) -> None:
    for _ in range(100):
        if await asyncio.to_thread(check):
            return
        await asyncio.sleep(0.03)
    raise AssertionError(f"never: {what}")


def resolve(where: str, name: str, *, tcp: bool = False) -> list[str]:
    code = (
        "import dnslib,sys\n"
        f"q=dnslib.DNSRecord.question('{name}')\n"
        f"a=dnslib.DNSRecord.parse(q.send('10.143.0.10',53,tcp={tcp},timeout=3))\n"
        "print(a.header.rcode, *[r.rdata for r in a.rr])"
    )
    inside = ["ip", "netns", "exec", where] if where else []
    return netlab.run(*inside, sys.executable, "-c", code).split()


async def wire(config: AgentConfig, container: str, netns: str) -> str:
    import json

    listed = json.loads((config.cni_conf_dir / "10-k1s.conflist").read_text())
    plugin = {"cniVersion": listed["cniVersion"], "name": listed["name"], **listed["plugins"][0]}
    code, answer = await netlab.cni(
        config.cni_bin_dir / "k1s-cni", "ADD", plugin, container=container, netns=netlab.path_of(netns)
    )
    assert code == 0, answer
    return str(answer["ips"][0]["address"].partition("/")[0])


def test_from_pod_range_to_service_and_dns(config: AgentConfig) -> None:
    async def work(peer: str) -> None:
        agent = make_agent(config)
        servers = netlab.Servers()
        with netlab.namespace() as one, netlab.namespace() as two:
            try:
                asyncio.get_running_loop().call_later(0.2, agent.informers.put, "Node", node_object())
                agent.informers.put("Service", service("web", "10.143.0.7"))
                async with running(agent):
                    assert agent.states[0][1] == "the node has no pod range (spec.podCIDR) yet"
                    assert agent.states[-2:] == [("pod network", ""), ("network", "")]
                    address = await wire(config, "c1", one)
                    await wire(config, "c2", two)
                    servers.start(one, "one")
                    assert await asyncio.to_thread(netlab.ask, two, "10.143.0.7", 80) == ["ConnectionRefusedError"]
                    agent.informers.put("EndpointSlice", piece("web", address))
                    await eventually(lambda: netlab.ask(two, "10.143.0.7", 80)[0].startswith("one"), "the endpoint serves")
                    for where in (two, ""):
                        for tcp in (False, True):
                            found = await asyncio.to_thread(resolve, where, "web.shop.svc.cluster.local", tcp=tcp)
                            assert found == ["0", "10.143.0.7"]
                    assert await asyncio.to_thread(resolve, two, "no.shop.svc.cluster.local") == ["3"]
                    assert b"k1s_pod_addresses 2" in agent.metrics.exposition()
                    # Somebody flushes the firewall.
                    await asyncio.to_thread(netlab.run, "nft", "flush", "ruleset")
                    await eventually(lambda: netlab.ask(two, "10.143.0.7", 80)[0].startswith("one"), "rules are back")
                    assert b"k1s" in (await asyncio.to_thread(netlab.run, "nft", "list", "tables")).encode()
            finally:
                servers.stop()

    scenario(work, config)


def test_outside_names_go_to_the_hosts_resolver(config: AgentConfig) -> None:
    resolver = (
        "import socket,dnslib\n"
        "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('192.0.2.2',53)); print('ready',flush=True)\n"
        "while True:\n"
        "  d,p=s.recvfrom(2000); q=dnslib.DNSRecord.parse(d); r=q.reply()\n"
        "  r.add_answer(dnslib.RR(q.q.qname,rdata=dnslib.A('203.0.113.5'),ttl=9)); s.sendto(r.pack(),p)\n"
    )

    async def work(peer: str) -> None:
        agent = make_agent(config)
        agent.informers.put("Node", node_object())
        command = ["ip", "netns", "exec", peer, sys.executable, "-c", resolver]
        upstream = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            assert upstream.stdout is not None
            await upstream.stdout.readline()
            with netlab.namespace() as one:
                async with running(agent):
                    await wire(config, "c1", one)
                    assert await asyncio.to_thread(resolve, one, "example.org") == ["0", "203.0.113.5"]
        finally:
            upstream.kill()
            await upstream.wait()

    scenario(work, config)


def test_restart_keeps_pods_connected_and_frees_the_dead(config: AgentConfig) -> None:
    async def work(peer: str) -> None:
        servers = netlab.Servers()
        with netlab.namespace() as one, netlab.namespace() as two:
            try:
                first = make_agent(config)
                first.informers.put("Node", node_object())
                async with running(first):
                    address = await wire(config, "c1", one)
                    await wire(config, "c2", two)
                    servers.start(one, "one")
                assert names_of(await asyncio.to_thread(netlab.ask, "", address, 8080)) == ["one"]

                class Alive:
                    async def list_pod_sandboxes(self) -> list[Any]:
                        return [SimpleNamespace(id="c1")]

                second = make_agent(config, Alive())
                second.informers.put("Node", node_object())
                async with running(second):
                    assert names_of(await asyncio.to_thread(netlab.ask, "", address, 8080)) == ["one"]
                    assert await asyncio.to_thread(link.find, names.veth("c1", "eth0")) is not None
                    assert await asyncio.to_thread(link.find, names.veth("c2", "eth0")) is None
                    assert await wire(config, "c3", two) == "10.142.3.4"
            finally:
                servers.stop()

    scenario(work, config)


def test_dns_beside_a_resolver_on_all_addresses(config: AgentConfig) -> None:
    async def work(peer: str) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.create_server(("0.0.0.0", 53)):
            udp.bind(("0.0.0.0", 53))
            agent = make_agent(config)
            agent.informers.put("Node", node_object())
            agent.informers.put("Service", service("web", "10.143.0.7"))
            # Somebody's Service on the very address changes nothing.
            agent.informers.put("Service", service("kube-dns", "10.143.0.10"))
            with netlab.namespace() as one:
                async with running(agent):
                    await wire(config, "c1", one)
                    for where in (one, ""):
                        for tcp in (False, True):
                            found = await asyncio.to_thread(resolve, where, "web.shop.svc.cluster.local", tcp=tcp)
                            assert found == ["0", "10.143.0.7"]

    scenario(work, config)


def names_of(answers: list[str]) -> list[str]:
    return [answer.partition(" ")[0] for answer in answers]


def test_containerd_runs_a_sandbox_through_the_plugin(config: AgentConfig) -> None:
    from k1s.agent import teardown as agent_teardown
    from k1s.agent.containerd import Containerd
    from k1s.base.tasks import Supervisor
    from k1s.cri.containerd import ContainerdRuntime

    if shutil.which("containerd") is None or shutil.which("gcc") is None:
        pytest.skip("containerd or gcc is not installed")

    async def work(peer: str) -> None:
        pause = await asyncio.to_thread(build_pause, config.data_dir)
        runtime = ContainerdRuntime(str(config.containerd_socket), ctr="ctr")
        async with Supervisor() as tasks:
            await tasks.start("containerd", Containerd(config, REAL_CLOCK).run)
            try:
                await runtime.import_images(str(pause))
                agent = make_agent(config, runtime)
                agent.informers.put("Node", node_object())
                async with running(agent):
                    await eventually_network_ready(runtime)
                    sandbox = {
                        "metadata": {"name": "p", "uid": "u1", "namespace": "shop", "attempt": 0},
                        "hostname": "p",
                        "port_mappings": [{"protocol": "TCP", "container_port": 8080, "host_port": 18080}],
                        "linux": {},
                    }
                    identifier = await runtime.run_pod_sandbox(sandbox)
                    status = await runtime.pod_sandbox_status(identifier)
                    assert status.ips == ("10.142.3.2",)
                    assert "18080" in await asyncio.to_thread(netlab.run, "nft", "list", "table", "ip", "k1s-hostport")
                    await runtime.stop_pod_sandbox(identifier)
                    await runtime.remove_pod_sandbox(identifier)
                    assert "18080" not in await asyncio.to_thread(netlab.run, "nft", "list", "table", "ip", "k1s-hostport")
                    assert not list((config.agent_dir / "network" / "addresses").iterdir())
            finally:
                await runtime.close()
                tasks.stop()

    try:
        scenario(work, config)
    finally:
        asyncio.run(agent_teardown.stop_all(config, cgroup_root=f"/k1st{os.getpid()}"))


async def eventually_network_ready(runtime: Any) -> None:
    for _ in range(200):
        if all(condition.status for condition in await runtime.status()):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("containerd never saw the conflist")


def build_pause(directory: Path) -> Path:
    root = Path(__file__).parents[2]
    directory.mkdir(parents=True, exist_ok=True)
    flags = "-Os -static -nostdlib -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -Wl,--build-id=none"
    netlab.run("gcc", *flags.split(), "-s", "-o", str(directory / "pause"), str(root / "packaging" / "pause" / "pause.c"))
    netlab.run(
        sys.executable, str(root / "packaging" / "images.py"), "pause", str(directory / "pause"), str(directory / "pause.tar")
    )
    return directory / "pause.tar"
