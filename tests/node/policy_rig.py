"""Two hosts with pods of three namespaces, and a world outside: everything in network namespaces, every probe a real packet.

outside (bridge br0, 192.0.2.254) -- host a 192.0.2.1 (pods x/a x/b y/a y/b z/a)   -- host b 192.0.2.2 (pods x/c y/c z/b z/c)
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import netlab
import policy_model
from policy_model import End

from k1s.net import netns, setup, sysctl
from k1s.net.cni import add
from k1s.net.cni.call import Call
from k1s.net.family import IPV4, IPV6
from k1s.net.nft import Nft
from k1s.net.policy.apply import PolicyRules
from k1s.net.policy.chains import Setting
from k1s.net.policy.guard import BridgeGuard, judged_above
from k1s.net.policy.model import compile_policy, pod_of
from k1s.net.proxy.apply import ServiceProxy
from k1s.net.proxy.endpoints import Place
from k1s.net.proxy.table import Ranges

CLUSTER = (ipaddress.ip_network("10.142.0.0/16"), ipaddress.ip_network("fd42:142::/48"))
SERVICES = (ipaddress.ip_network("10.143.0.0/16"),)
DNS = "10.143.0.10"
OUTSIDE = "192.0.2.254"
NAMESPACES = ("x", "y", "z")
PLACES = {"x/a": "a", "x/b": "a", "y/a": "a", "y/b": "a", "z/a": "a", "x/c": "b", "y/c": "b", "z/b": "b", "z/c": "b"}
PORTS = {"tcp": [80, 81], "udp": [80, 81]}
HOST_PORTS = {"tcp": [53, 80, 81], "udp": [53, 80, 81]}
HOSTS = {"host a": "192.0.2.1", "host b": "192.0.2.2", "outside": OUTSIDE}
PROTOCOLS = ("tcp", "udp", "sctp")
_SECONDS = 0.5
_NO_LIMITS = {
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv4/icmp_msgs_per_sec": "1000000",
    "net/ipv4/icmp_msgs_burst": "100000",
    "net/ipv6/icmp/ratelimit": "0",
}


def pod_object(key: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    namespace, _, name = key.partition("/")
    given = {"pod": name, "app": "web" if name != "c" else "db"} if labels is None else labels
    # A named port means another number in every other pod.
    number = 80 if name in ("a", "c") else 81
    ports = [{"name": "serve", "containerPort": number}, {"name": "query", "containerPort": 81, "protocol": "UDP"}]
    meta = {"namespace": namespace, "name": name, "labels": given}
    return {"metadata": meta, "spec": {"containers": [{"name": "c", "ports": ports}]}}


@dataclass
class Speaker:
    """A prober somewhere."""

    process: subprocess.Popen[str]

    @classmethod
    def start(cls, where: str, ports: dict[str, list[int]]) -> Speaker:
        script = Path(__file__).with_name("prober.py")
        python = shutil.which("python3") or "python3"
        command = ["ip", "netns", "exec", where, python, "-IS", str(script), json.dumps(ports)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return cls(process)

    def tell(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@dataclass
class HostRig:
    name: str
    netns: str
    network: Any
    rules: PolicyRules
    proxy: ServiceProxy
    guard: BridgeGuard


@dataclass
class Rig:
    loop: asyncio.AbstractEventLoop
    hosts: dict[str, HostRig] = field(default_factory=dict)
    speakers: dict[str, Speaker] = field(default_factory=dict)
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    netns_of: dict[str, str] = field(default_factory=dict)
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    probes: int = 0

    def on(self, host: HostRig, work: Any) -> Any:
        """Run a coroutine with the host's network around new threads."""
        with netns.entered(netlab.path_of(host.netns)):
            return self.loop.run_until_complete(work)

    # State

    def set_pod(self, key: str, obj: dict[str, Any]) -> None:
        self.objects[key] = obj
        pod = pod_of(obj, self.addresses[key])
        for host in self.hosts.values():
            host.rules.cluster.set_pod(key, pod)
            if host.name == PLACES[key]:
                host.rules.isolation.set_local(key, pod.namespace, pod.labels, pod.addresses)

    def set_namespace(self, name: str, labels: dict[str, str]) -> None:
        self.namespaces[name] = labels
        for host in self.hosts.values():
            host.rules.cluster.set_namespace(name, labels)

    def set_policies(self, policies: Iterable[dict[str, Any]]) -> None:
        """Exactly these, by steps from what was there."""
        wanted = {f"{p['metadata']['namespace']}/{p['metadata']['name']}": p for p in policies}
        for key in self.policies.keys() | wanted.keys():
            compiled = compile_policy(wanted[key]) if key in wanted else None
            for host in self.hosts.values():
                host.rules.isolation.set_policy(key, compiled)
        self.policies = wanted

    def commit(self) -> None:
        for host in self.hosts.values():
            self.on(host, self._write(host))

    @staticmethod
    async def _write(host: HostRig) -> None:
        await host.rules.update()
        await host.guard.update(host.network.ipam.attachments(), wanted=host.rules.isolated > 0, judged=judged_above())

    # Probes

    def end(self, key: str, version: int) -> End:
        address = next(a for a in self.addresses[key] if (":" in a) == (version == 6))
        obj = self.objects[key]
        namespace, _, name = key.partition("/")
        ports = tuple(
            (port["name"], port.get("protocol", "TCP"), port["containerPort"])
            for container in obj["spec"]["containers"]
            for port in container.get("ports") or ()
        )
        return End(address, namespace, name, obj["metadata"].get("labels") or {}, ports, PLACES[key])

    def service_address(self, key: str) -> str:
        return f"10.143.1.{1 + sorted(PLACES).index(key)}"

    def expect(self, source: End, target: End, protocol: str, port: int) -> bool:
        policies = list(self.policies.values())
        return policy_model.allowed(policies, self.namespaces, source, target, protocol.upper(), port)

    def matrix(self, version: int, protocols: Sequence[str], *, services: bool = False) -> list[tuple[str, Any, bool]]:
        """(speaker, [protocol, address, port], expected) for every pair and port."""
        found = []
        ends = {key: self.end(key, version) for key in PLACES}
        for source in PLACES:
            for target in PLACES:
                for protocol in protocols:
                    # A packet to oneself never meets a rule, and there is nobody to answer it in SCTP.
                    if protocol == "sctp" and source == target:
                        continue
                    for port in (80, 81):
                        address = self.service_address(target) if services else ends[target].address
                        good = self.expect(ends[source], ends[target], protocol, port)
                        found.append((source, [protocol, address, port], good))
        return found

    def ask(self, probes: Iterable[tuple[str, Any, bool]], seconds: float = _SECONDS) -> list[str]:
        """Those that went otherwise than expected, after a second try."""
        wrong = self._try(list(probes), seconds)
        if wrong:
            wrong = self._try([probe for probe, _ in wrong], 2.0)
        return [
            f"{source} -> {' '.join(map(str, probe))}: {said or 'passed'}, not as expected" for (source, probe, _), said in wrong
        ]

    def _try(self, probes: list[tuple[str, Any, bool]], seconds: float) -> list[tuple[tuple[str, Any, bool], str]]:
        # Numbers never come again: an SCTP packet may be late.
        numbered = dict(enumerate(probes, self.probes))
        self.probes += len(probes)
        by_speaker: dict[str, list[Any]] = {}
        for number, (source, probe, _) in numbered.items():
            by_speaker.setdefault(source, []).append([number, *probe])
        for source, wanted in by_speaker.items():
            self.speakers[source].tell(probe=wanted, seconds=seconds)
        said = {number: "lost" for number, (_, probe, _) in numbered.items() if probe[0] == "sctp"}
        for source in by_speaker:
            for number, wrong, _ in self.speakers[source].hear():
                said[number] = wrong
        if any(probe[0] == "sctp" for _, probe, _ in probes):
            # Nobody answers these: the second try gives them some time.
            time.sleep(0.2 if seconds > _SECONDS else 0)
            for speaker in self.speakers.values():
                speaker.tell(collect=1)
                said.update((number, "") for number in speaker.hear() if number in numbered)
        return [(numbered[number], wrong) for number, wrong in sorted(said.items()) if (wrong == "") != numbered[number][2]]


def _wire(host: str, number: int, outside: str) -> None:
    netlab.run("ip", "-n", host, "link", "add", "up0", "type", "veth", "peer", "name", f"port{number}", "netns", outside)
    netlab.run("ip", "-n", outside, "link", "set", f"port{number}", "master", "br0", "up")
    netlab.run("ip", "-n", host, "addr", "add", f"192.0.2.{number}/24", "dev", "up0")
    netlab.run("ip", "-n", host, "addr", "add", f"2001:db8::{number}/64", "dev", "up0", "nodad")
    netlab.run("ip", "-n", host, "link", "set", "up0", "up")
    netlab.run("ip", "-n", host, "route", "add", "default", "via", OUTSIDE)
    netlab.run("ip", "-n", host, "-6", "route", "add", "default", "via", "2001:db8::fe")


def _cross(where: str, number: int) -> None:
    """The way to the pods of host `number`."""
    netlab.run("ip", "-n", where, "route", "add", f"10.142.{number}.0/24", "via", f"192.0.2.{number}")
    netlab.run("ip", "-n", where, "-6", "route", "add", f"fd42:142:0:{number}::/64", "via", f"2001:db8::{number}")


@contextmanager
def rig(directory: Path) -> Iterator[Rig]:
    with ExitStack() as stack:
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)
        outside = stack.enter_context(netlab.namespace())
        netlab.run("ip", "-n", outside, "link", "add", "br0", "type", "bridge")
        for address in (f"{OUTSIDE}/24", "2001:db8::fe/64"):
            netlab.run("ip", "-n", outside, "addr", "add", address, "dev", "br0", "nodad")
        netlab.run("ip", "-n", outside, "link", "set", "br0", "up")
        made = Rig(loop)
        spaces = {name: stack.enter_context(netlab.namespace()) for name in ("a", "b")}
        for number, host in enumerate(spaces.values(), 1):
            _wire(host, number, outside)
        for number in (1, 2):
            _cross(outside, number)
            _cross(list(spaces.values())[2 - number], number)
        for number, (name, host) in enumerate(spaces.items(), 1):
            with netns.entered(netlab.path_of(host)):
                made.hosts[name] = stack.enter_context(_host(made, directory / name, name, number, host))
        for key, host_name in PLACES.items():
            _pod(made, stack, key, made.hosts[host_name])
        made.netns_of |= {"outside": outside, "host a": spaces["a"], "host b": spaces["b"]}
        for key, where in made.netns_of.items():
            made.speakers[key] = Speaker.start(where, HOST_PORTS if key in HOSTS else PORTS)
            stack.callback(made.speakers[key].stop)
        for name in NAMESPACES:
            made.set_namespace(name, {"ns": name, "kubernetes.io/metadata.name": name})
        made.set_namespace("kube-system", {"kubernetes.io/metadata.name": "kube-system"})
        for key in PLACES:
            made.set_pod(key, pod_object(key))
        for host in made.hosts.values():
            made.on(host, host.proxy.load(list(PLACES)))
        made.commit()
        # The hosts' links find their IPv6 neighbours.
        for _ in range(10):
            if not made.ask([("x/a", ["tcp", made.addresses["x/c"][1], 80], True)]):
                break
        yield made


@contextmanager
def _host(made: Rig, directory: Path, name: str, number: int, space: str) -> Iterator[HostRig]:
    directory.mkdir()
    ranges = [ipaddress.ip_network(f"10.142.{number}.0/24"), ipaddress.ip_network(f"fd42:142:0:{number}::/64")]
    nft = Nft()
    network = made.loop.run_until_complete(setup.open_network(directory, ranges, CLUSTER, nft))
    routes = setup.service_routes(SERVICES, {gateway.version: str(gateway) for gateway in network.ipam.gateways})
    held = setup.held_addresses([DNS])
    made.loop.run_until_complete(network.in_thread(lambda: setup.ensure_service_link(routes, held)))
    # Refusals come as fast as probes are sent.
    sysctl.write(_NO_LIMITS)
    # Host a is as one without br_netfilter, host b as one with it.
    for switch in Path("/proc/sys/net/bridge").glob("bridge-nf-call-ip*tables"):
        switch.write_text(str(number - 1))
    rules = PolicyRules(nft, families=(IPV4, IPV6), setting=Setting((DNS,), 53, CLUSTER))
    place = Place(f"node-{name}")
    proxy = ServiceProxy(nft, _lookup(made), place=place, ranges=Ranges(tuple(ranges), CLUSTER, SERVICES))
    made.loop.run_until_complete(rules.load())
    try:
        yield HostRig(name, space, network, rules, proxy, BridgeGuard(nft))
    finally:
        made.loop.run_until_complete(nft.close())
        network.pool.shutdown()


def _lookup(made: Rig) -> Any:
    """A Service a pod, of the pod's ports."""

    def lookup(key: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        ports = [
            {"name": f"{kind}{port}", "protocol": kind.upper(), "port": port} for kind, found in PORTS.items() for port in found
        ]
        address = made.service_address(key)
        spec = {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ports": ports}
        endpoints = [{"addresses": [made.addresses[key][0]], "nodeName": f"node-{PLACES[key]}", "conditions": {"ready": True}}]
        return {"metadata": {}, "spec": spec}, [{"addressType": "IPv4", "ports": ports, "endpoints": endpoints}]

    return lookup


def _pod(made: Rig, stack: ExitStack, key: str, host: HostRig) -> None:
    space = stack.enter_context(netlab.namespace())
    call = Call("ADD", key.replace("/", "-"), "eth0", netlab.path_of(space), {}, {"cniVersion": "1.0.0"})
    answer = made.on(host, add.add(host.network, call))
    made.addresses[key] = tuple(ip["address"].partition("/")[0] for ip in answer["ips"])
    made.netns_of[key] = space
