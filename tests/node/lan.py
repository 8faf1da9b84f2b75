"""Several hosts on one LAN, each with the agent's real network part: namespaces on a common bridge, a thread and a loop each.

There is no server: the test tells every host of the Nodes. Pods are namespaces that the real plugin wires.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parent))
import netlab

from k1s.agent.config import AgentConfig
from k1s.agent.network import app as network
from k1s.base.clock import REAL_CLOCK
from k1s.base.metrics import Registry
from k1s.client.store import ObjectStore
from k1s.net import netns, teardown


class StoreInformer(ObjectStore):
    async def synced(self) -> None:
        return None


class StoreInformers:
    def __init__(self) -> None:
        self.stores: dict[str, StoreInformer] = {}

    def informer(self, resource: Any, *, namespace: str = "", field_selector: str = "") -> StoreInformer:
        return self.stores.setdefault(resource.kind + field_selector, StoreInformer())


class FakeEvents:
    def event(self, *_: Any, **__: Any) -> None:
        return None


@dataclass
class Agent(SimpleNamespace):
    """The fields of AgentContext that the network uses."""

    config: AgentConfig
    node_name: str
    node_ip: str
    runtime: Any
    other_ips: tuple[str, ...] = ()
    clock: Any = REAL_CLOCK
    metrics: Registry = field(default_factory=Registry)
    informers: StoreInformers = field(default_factory=StoreInformers)
    events: FakeEvents = field(default_factory=FakeEvents)
    address_handlers: list[Callable[[str], None]] = field(default_factory=list)
    readiness_handlers: list[Callable[[], None]] = field(default_factory=list)
    heartbeat_handlers: list[Callable[[], None]] = field(default_factory=list)
    removal_handlers: list[Callable[[], None]] = field(default_factory=list)
    not_ready: dict[str, str] = field(default_factory=dict)

    @property
    def node_ips(self) -> tuple[str, ...]:
        return (self.node_ip, *self.other_ips)

    def set_node_ip(self, address: str) -> None:
        self.node_ip, *others = address.split(",")
        self.other_ips = tuple(others)
        for handler in self.address_handlers:
            handler(address)

    def set_ready(self, part: str, why_not: str = "") -> None:
        if why_not:
            self.not_ready[part] = why_not
        else:
            self.not_ready.pop(part, None)


class Host:
    """One namespace with a link `eth0` to the LAN. `number` is in its address and its pods'."""

    def __init__(self, lan: Lan, number: int, config: AgentConfig) -> None:
        self.lan, self.number, self.config = lan, number, config
        self.name = f"node-{number}"
        self.netns = ""
        self.address = f"192.0.2.{number}"
        self.ranges = [f"10.142.{number}.0/24", *([f"fd42:0:0:{number}::/64"] if "," in config.cluster_cidr else [])]
        self.sandboxes: list[str] = []
        self.pods: dict[str, tuple[str, list[str]]] = {}
        self.agent: Agent | None = None
        self._stack = ExitStack()

    def run(self, *command: str, check: bool = True) -> str:
        return netlab.run("ip", "netns", "exec", self.netns, *command, check=check)

    def ip(self, *words: str) -> Any:
        return json.loads(netlab.run("ip", "-n", self.netns, "-j", "-d", *words) or "[]")

    def ip_bridge(self, *words: str) -> Any:
        return json.loads(netlab.run("bridge", "-n", self.netns, "-j", *words) or "[]")

    def restart_with(self, **options: Any) -> None:
        self.config = replace(self.config, **options)
        self.start()

    def start(self) -> None:
        """The agent's network, up when this returns."""
        ready = threading.Event()
        failed: list[BaseException] = []

        def body() -> None:
            with netns.entered(netlab.path_of(self.netns)):
                try:
                    uvloop.run(self._serve(ready))
                except BaseException as error:  # noqa: BLE001 - told by start()
                    failed.append(error)
                    ready.set()

        self._thread = threading.Thread(target=body, name=self.name)
        self._thread.start()
        assert ready.wait(20), "the network did not come up"
        if failed:
            raise failed[0]

    async def _serve(self, ready: threading.Event) -> None:
        async def alive() -> list[Any]:
            return [SimpleNamespace(id=identity) for identity in self.sandboxes]

        runtime = SimpleNamespace(list_pod_sandboxes=alive)
        self.agent = Agent(self.config, self.name, self.address, runtime)
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        for node in self.lan.nodes.values():
            self._put(node)
        task = asyncio.ensure_future(network.run(self.agent, ready.set))  # type: ignore[arg-type]
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def stop(self) -> None:
        if self.agent is not None:
            self.call(self._stop.set)
            self._thread.join(10)
            self.agent = None

    def call(self, work: Callable[[], Any]) -> None:
        self._loop.call_soon_threadsafe(work)

    def _put(self, node: dict[str, Any]) -> None:
        assert self.agent is not None
        names = ["Node"] + ([f"Nodemetadata.name={self.name}"] if node["metadata"]["name"] == self.name else [])
        for name in names:
            self.agent.informers.stores.setdefault(name, StoreInformer()).put(node)

    def tell(self, node: dict[str, Any]) -> None:
        if self.agent is not None:
            self.call(lambda: self._put(node))

    def put(self, kind: str, obj: dict[str, Any]) -> None:
        """As if the server had told of it."""
        agent = self.agent
        assert agent is not None
        self.call(lambda: agent.informers.stores.setdefault(kind, StoreInformer()).put(obj))

    def forget(self, name: str) -> None:
        agent, node = self.agent, self.lan.nodes[name]
        assert agent is not None
        self.call(lambda: agent.informers.stores["Node"].remove("", name, node))

    def pod(self, name: str, ports: list[dict[str, Any]] | None = None) -> str:
        """A namespace, wired by the plugin; returns its first address."""
        space = self._stack.enter_context(netlab.namespace())
        listed = json.loads((self.config.cni_conf_dir / "10-k1s.conflist").read_text())
        plugin = {"cniVersion": listed["cniVersion"], "name": listed["name"], **listed["plugins"][0]}
        plugin |= {"runtimeConfig": {"portMappings": ports}} if ports else {}
        call = netlab.cni(self.config.cni_bin_dir / "k1s-cni", "ADD", plugin, container=name, netns=netlab.path_of(space))
        code, answer = asyncio.run(call)
        assert code == 0, answer
        self.sandboxes.append(name)
        addresses = [entry["address"].partition("/")[0] for entry in answer["ips"]]
        self.pods[name] = (space, addresses)
        return str(addresses[0])

    def inside(self, pod: str, *command: str, check: bool = True, timeout: float = 20) -> str:
        return netlab.run("ip", "netns", "exec", self.pods[pod][0], *command, check=check, timeout=timeout)

    def close(self) -> None:
        self.stop()
        with netns.entered(netlab.path_of(self.netns)):
            teardown.remove_all(self.config.agent_dir / "network")
        self._stack.close()


class Lan:
    def __init__(self) -> None:
        self.hosts: list[Host] = []
        self.nodes: dict[str, dict[str, Any]] = {}
        self.switch = ""

    def put(self, host: Host, **changes: Any) -> None:
        """Tell every host of this one's Node."""
        node = {
            "metadata": {"name": host.name, "resourceVersion": str(time.monotonic_ns())},
            "spec": {"podCIDR": host.ranges[0], "podCIDRs": host.ranges},
            "status": {"addresses": [{"type": "InternalIP", "address": a} for a in host.address.split(",")]},
        }
        self.nodes[host.name] = {**node, **changes}
        for other in self.hosts:
            other.tell(self.nodes[host.name])

    def remove(self, host: Host) -> None:
        for other in self.hosts:
            if other.agent is not None:
                other.forget(host.name)
        del self.nodes[host.name]


# An ICMP echo request with the bit "do not fragment"; exit 0 when its answer came.
PING = r"""
import os, socket, struct, sys
address, size, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
six = ":" in address
s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, 58 if six else 1)
s.setsockopt(41, 23, 2) if six else s.setsockopt(0, 10, 2)
s.settimeout(seconds)
data = struct.pack("!BBHHH", 128 if six else 8, 0, 0, os.getpid() & 0xFFFF, 1) + bytes(size)
if not six:
    words = struct.unpack("!%dH" % (len(data + bytes(len(data) % 2)) // 2), data + bytes(len(data) % 2))
    total = sum(words)
    total = (total >> 16) + (total & 0xFFFF)
    data = data[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + data[4:]
try:
    s.sendto(data, (address, 0))
    while True:
        answer, _ = s.recvfrom(70000)
        body = answer if six else answer[20:]
        if body[0] == (129 if six else 0) and body[4:6] == data[4:6] and len(body) == len(data):
            sys.exit(0)
except OSError as error:
    print(error)
    sys.exit(1)
"""


def ping(host: Host, pod: str, address: str, *, size: int = 56, seconds: float = 0.3) -> bool:
    """Whether a packet of that size comes back, without being cut to pieces on the way."""
    space = host.pods[pod][0] if pod else host.netns
    python = shutil.which("python3") or "python3"
    command = ["ip", "netns", "exec", space, python, "-ISc", PING, address, str(size), str(seconds)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def eventually(check: Callable[[], Any], what: str, seconds: float = 5.0) -> float:
    """How long it took."""
    begin = time.monotonic()
    while not check():
        assert time.monotonic() - begin < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - begin


@contextmanager
def lan(count: int, *, start: bool = True, mtu: int = 1500, **options: Any) -> Iterator[Lan]:
    """`count` hosts 192.0.2.1, .2, ...; options are the agent's."""
    made = Lan()
    with ExitStack() as stack:
        made.switch = stack.enter_context(netlab.namespace())
        netlab.run("ip", "-n", made.switch, "link", "add", "lan", "type", "bridge")
        netlab.run("ip", "-n", made.switch, "link", "set", "lan", "up")
        for number in range(1, count + 1):
            made.hosts.append(_host(made, number, mtu, options, stack))
        for host in made.hosts:
            made.put(host)
        if start:
            for host in made.hosts:
                host.start()
        yield made


def _host(made: Lan, number: int, mtu: int, options: dict[str, Any], stack: ExitStack) -> Host:
    base = Path(tempfile.mkdtemp(prefix=f"k1st{os.getpid()}-", dir="/tmp"))
    stack.callback(shutil.rmtree, base)
    (base / "resolv.conf").write_text("nameserver 192.0.2.250\n")
    config = AgentConfig(
        data_dir=base / "data",
        run_dir=base / "run",
        cluster_cidr="10.142.0.0/16",
        service_cidr="10.143.0.0/16",
        cluster_dns="10.143.0.10",
        resolv_conf=str(base / "resolv.conf"),
    )
    host = Host(made, number, replace(config, **options))
    host.netns = stack.enter_context(netlab.namespace())
    port = f"h{number}"
    for command in (
        f"-n {made.switch} link add {port} type veth peer name eth0 netns {host.netns}",
        f"-n {made.switch} link set {port} master lan mtu {mtu} up",
        f"-n {host.netns} link set eth0 mtu {mtu} up",
        f"-n {host.netns} addr add {host.address}/24 dev eth0",
        f"-n {host.netns} route add default via 192.0.2.254",
    ):
        netlab.run("ip", *command.split())
    stack.callback(host.close)
    return host
