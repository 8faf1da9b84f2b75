"""Sequences of changes of Services: what they leave in the kernel is what a fresh load would write."""

from __future__ import annotations

import asyncio
import ipaddress
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from k1s.net.family import IPV4, IPV6
from k1s.net.proxy import apply, table
from k1s.net.proxy.apply import ServiceProxy
from k1s.net.proxy.endpoints import Place

RANGES = table.Ranges((ipaddress.ip_network("10.42.0.0/24"),), (ipaddress.ip_network("10.42.0.0/16"),), ())


class Kernels:
    """Applies element commands to a dict by (family and map, key), and refuses what nftables refuses: adding twice, deleting
    nothing."""

    def __init__(self) -> None:
        self.elements: dict[tuple[str, str], str] = {}
        self.rules = 0

    async def query(self, text: str) -> list[dict]:
        return []

    async def run(self, text: str) -> None:
        if "delete table" in text:
            self.elements.clear()
        for line in text.splitlines():
            words = line.split()
            if words[1:2] != ["element"]:
                continue
            for item in line[line.index("{") + 1 : line.rindex("}")].split(", "):
                key, _, value = item.strip().partition(" : ")
                place = (f"{words[2]} {words[4]}", key)
                if words[0] == "add":
                    assert place not in self.elements, f"added twice: {item}"
                    self.elements[place] = value
                else:
                    del self.elements[place]

    async def in_thread(self, work: object) -> None:
        self.rules += 1

    def content(self) -> tuple[dict, dict]:
        """What does not depend on history: everything, but for slots only how often each target stands there."""
        slots: dict[tuple[str, str], list[str]] = {}
        for (name, key), value in self.elements.items():
            if "slots" in name:
                base, _, slot = key.rpartition(" . ")
                slots.setdefault((name, f"{base} {'local' if int(slot) >= 1 << 16 else ''}"), []).append(value)
        return {k: v for k, v in self.elements.items() if "slots" not in k[0]}, {k: sorted(v) for k, v in slots.items()}


CONDITIONS = st.sampled_from(
    [{}, {"ready": False}, {"ready": False, "serving": True, "terminating": True}, {"ready": True, "serving": True}]
)
ENDPOINTS = st.lists(
    st.tuples(st.integers(2, 9), st.sampled_from(["node-a", "node-b"]), CONDITIONS, st.sampled_from(["", "zone-1", "zone-2"])),
    max_size=5,
)
PORTS = st.lists(
    st.tuples(st.sampled_from(["TCP", "UDP", "SCTP"]), st.sampled_from([80, 53]), st.booleans()),
    min_size=1,
    max_size=3,
    unique=True,
)
SPECS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]),
        "internalTrafficPolicy": st.sampled_from(["Cluster", "Local"]),
        "externalTrafficPolicy": st.sampled_from(["Cluster", "Local"]),
        "sessionAffinity": st.sampled_from(["None", "ClientIP"]),
        "loadBalancerSourceRanges": st.sampled_from([[], ["10.0.0.0/8"], ["192.0.2.0/24", "fd00::/8"]]),
    }
)
STEP = st.tuples(st.integers(1, 3), st.none() | st.tuples(SPECS, PORTS, ENDPOINTS, st.booleans(), st.booleans()))


def written(number: int, change: tuple) -> tuple[dict, list[dict]]:
    """A Service of that number and its slices, one of each family."""
    spec, ports, endpoints, dual, outside = change
    listed = [
        {"name": f"{p}-{n}", "port": n, "protocol": p, **({"nodePort": 30000 + 100 * number + n} if exposed else {})}
        for p, n, exposed in {(p, n): (p, n, e) for p, n, e in ports}.values()
    ]
    ips = [f"10.43.0.{number}", f"fd00:43::{number}"]
    status = {"loadBalancer": {"ingress": [{"ip": f"192.0.2.{number}"}, {"ip": f"fd00:2::{number}"}]}}
    body = {**spec, "clusterIP": ips[0], "clusterIPs": ips if dual else ips[:1], "ports": listed}
    body["externalIPs"] = [f"198.51.100.{number}"] if outside else []
    slices = []
    for kind, prefix in (("IPv4", "10.42.0."), ("IPv6", "fd00:42::")):
        ends = [
            {
                "addresses": [f"{prefix}{a}"], "nodeName": node, "conditions": conditions,
                "hints": {"forZones": [{"name": zone}]} if zone else {},
            }
            for a, node, conditions, zone in endpoints
        ]  # fmt: skip
        names = [{"name": p["name"], "port": 8000 + p["port"], "protocol": p["protocol"]} for p in listed]
        slices.append({"metadata": {}, "addressType": kind, "ports": names, "endpoints": ends})
    return {"metadata": {}, "spec": body, "status": status}, slices


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=10), st.lists(st.sampled_from(["", "zone-1", "zone-2"]), max_size=2))
def test_updates_end_where_a_fresh_load_ends(steps: list[tuple], moves: list[str]) -> None:
    """Every policy, protocol and family, with the node's zone changing in between: no element too many, none too few."""
    services: dict[str, dict] = {}
    slices: dict[str, list[dict]] = {}

    def lookup(key: str) -> tuple[dict | None, list[dict]]:
        return services.get(key), slices.get(key, [])

    def proxy(kernel: Kernels, zone: str) -> ServiceProxy:
        place = Place("node-a", zone, ("192.0.2.1",))
        return ServiceProxy(kernel, lookup, place=place, ranges=RANGES, families=(IPV4, IPV6))  # type: ignore[arg-type]

    async def scenario() -> None:
        kernel, fresh = Kernels(), Kernels()
        grown = proxy(kernel, "zone-1")
        await grown.load([])
        zone = "zone-1"
        for turn, (number, change) in enumerate(steps):
            key = f"ns/{number}"
            services.pop(key, None)
            slices.pop(key, None)
            if change is not None:
                services[key], slices[key] = written(number, change)
            await grown.update({key})
            if turn < len(moves):
                zone = moves[turn]
                await grown.move(Place("node-a", zone, ("192.0.2.1",)))
        await proxy(fresh, zone).load(services)
        assert kernel.content() == fresh.content()
        # Slots are without gaps, else a drawn number would find nobody.
        for name, key in kernel.elements:
            base, _, slot = key.rpartition(" . ")
            if "slots" in name and int(slot) not in (0, 1 << 16):
                assert (name, f"{base} . {int(slot) - 1}") in kernel.elements

    async def nobody(*_: object) -> None:
        """Flows are the kernel's."""

    with mock.patch.object(apply.conntrack, "cut_udp", nobody):
        asyncio.run(scenario())
