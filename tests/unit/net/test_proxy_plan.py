"""The proxy's plan: Services and EndpointSlices in, nftables elements out. Golden files below tests/golden/net/proxy.

Set K1S_UPDATE_GOLDEN=1 to write them anew, then read the difference.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from k1s.net.family import IPV4, IPV6
from k1s.net.proxy import affinity, apply, limits, table
from k1s.net.proxy.apply import ServiceProxy
from k1s.net.proxy.endpoints import Place, choose
from k1s.net.proxy.plan import Sources, arrange, plan_service

GOLDEN = Path(__file__).parents[2] / "golden" / "net" / "proxy"
HERE = Place("node-a", "zone-1")
RANGES = table.Ranges(
    (ipaddress.ip_network("10.42.0.0/24"),), (ipaddress.ip_network("10.42.0.0/16"),), (ipaddress.ip_network("10.43.0.0/16"),)
)


def check_golden(path: Path, text: str) -> None:
    if os.environ.get("K1S_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.input.yaml")), ids=lambda p: p.name.removesuffix(".input.yaml"))
def test_golden(path: Path) -> None:
    given_objects = yaml.safe_load(path.read_text())
    plan = plan_service(given_objects["service"], given_objects["slices"], family=IPV4, place=HERE)
    lines = [f"{name} {{ {key}{' : ' + value if value else ''} }}" for (name, key), value in plan.elements().items()]
    chains = [table.chain_text(IPV4, chain) for chain in sorted(plan.chains, key=lambda c: c.name)]
    check_golden(path.with_name(path.name.replace(".input.yaml", ".output.txt")), "\n".join([*lines, "", *chains]))


@pytest.mark.parametrize("family", [IPV4, IPV6], ids=["ip", "ip6"])
def test_golden_table(family: object) -> None:
    assert family in (IPV4, IPV6)
    found = IPV4 if family is IPV4 else IPV6
    check_golden(GOLDEN / f"table-{found.name}.txt", table.begin_text(found, RANGES))


def pieces(*endpoints: dict, ports: tuple[dict, ...] = ({"port": 8080},), kind: str = "IPv4") -> list[dict]:
    return [{"metadata": {}, "addressType": kind, "ports": list(ports), "endpoints": list(endpoints)}]


def endpoint(address: str, node: str = "node-a", **conditions: bool) -> dict:
    return {"addresses": [address], "nodeName": node, "conditions": conditions}


@pytest.mark.parametrize(
    ("endpoints", "cluster", "local"),
    [
        ([], [], []),
        ([endpoint("10.42.0.2")], ["10.42.0.2"], ["10.42.0.2"]),
        ([endpoint("10.42.0.2", ready=False)], [], []),
        ([endpoint("10.42.0.2", ready=False, serving=True, terminating=True)], ["10.42.0.2"], ["10.42.0.2"]),
        # Not ready and not terminating does not serve, whatever it says.
        ([endpoint("10.42.0.2", ready=False, serving=True)], [], []),
        (
            [endpoint("10.42.0.2", ready=False, serving=True, terminating=True), endpoint("10.42.1.2", "node-b")],
            ["10.42.1.2"],
            ["10.42.0.2"],
        ),
        ([endpoint("10.42.0.2"), endpoint("10.42.0.2")], ["10.42.0.2"], ["10.42.0.2"]),
    ],
)
def test_conditions(endpoints: list[dict], cluster: list[str], local: list[str]) -> None:
    choice = choose({"port": 80}, pieces(*endpoints), IPV4, HERE)
    assert list(choice.cluster) == [f"{a} . 8080" for a in cluster]
    assert list(choice.local) == [f"{a} . 8080" for a in local]


def test_ports_match_by_name_and_protocol_and_family() -> None:
    two = ({"name": "a", "port": 1, "protocol": "TCP"}, {"name": "b", "port": 2, "protocol": "UDP"})
    both = pieces(endpoint("10.42.0.2"), ports=two) + pieces(endpoint("fd00::2"), ports=two, kind="IPv6")
    assert choose({"name": "a", "port": 80}, both, IPV4, HERE).cluster == ("10.42.0.2 . 1",)
    assert choose({"name": "b", "port": 80, "protocol": "UDP"}, both, IPV6, HERE).cluster == ("fd00::2 . 2",)
    assert choose({"name": "b", "port": 80}, both, IPV4, HERE).cluster == ()


def test_what_nft_would_refuse_never_gets_there() -> None:
    spec = {"type": "LoadBalancer", "clusterIP": "10.43.0.7", "externalIPs": ["not-an-address"], "ports": [{"port": 80}]}
    ranges = ["10.0.0.0/8", "10.1.2.0/24", "192.0.2.7/24", "garbage", "fd00::/8"]
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    service = {"metadata": {}, "spec": {**spec, "loadBalancerSourceRanges": ranges}, "status": status}
    plan = plan_service(service, pieces(endpoint("10.42.0.2"), endpoint("nonsense")), family=IPV4, place=HERE)
    assert Sources(("10.0.0.0/8", "192.0.2.0/24")) in plan.chains
    assert not any("nonsense" in value or "not-an" in key for (_, key), value in plan.elements().items())


def hinted(address: str, *, nodes: tuple[str, ...] = (), zones: tuple[str, ...] = ()) -> dict:
    hints = {"forNodes": [{"name": n} for n in nodes], "forZones": [{"name": z} for z in zones]}
    return {**endpoint(address, "node-b"), "hints": hints}


def test_hints_are_followed_only_when_all_endpoints_have_them() -> None:
    near, far = hinted("10.42.1.2", zones=("zone-1",)), hinted("10.42.1.3", zones=("zone-2",))
    assert choose({"port": 80}, pieces(near, far), IPV4, HERE).cluster == ("10.42.1.2 . 8080",)
    assert len(choose({"port": 80}, pieces(near, far, endpoint("10.42.1.4")), IPV4, HERE).cluster) == 3
    assert len(choose({"port": 80}, pieces(near, far), IPV4, Place("node-a", "zone-3")).cluster) == 2
    same = hinted("10.42.1.5", nodes=("node-a",), zones=("zone-2",))
    other = hinted("10.42.1.6", nodes=("node-b",), zones=("zone-1",))
    assert choose({"port": 80}, pieces(same, other), IPV4, HERE).cluster == ("10.42.1.5 . 8080",)


@given(st.lists(st.integers(0, 30), unique=True), st.sets(st.integers(0, 30)))
def test_arrange_keeps_who_stays(before: list[int], wanted: set[int]) -> None:
    names = [f"{n:02}" for n in before]
    slots = arrange(names, {f"{n:02}" for n in wanted})
    assert sorted(slots) == sorted(f"{n:02}" for n in wanted)
    moved = [old for old, new in zip(names, slots, strict=False) if old != new and int(old) in wanted]
    # Somebody who stays moves only into a gap that no newcomer fills.
    assert len(moved) <= max(len(before) - len(wanted), 0)


@pytest.mark.parametrize(
    ("spec", "labels"),
    [
        ({"type": "ExternalName", "externalName": "x"}, {}),
        ({"clusterIP": "None"}, {}),
        ({"clusterIP": ""}, {}),
        ({"clusterIP": "10.43.0.7"}, {"service.kubernetes.io/service-proxy-name": "other"}),
        ({"clusterIP": "10.43.0.7"}, {"service.kubernetes.io/headless": ""}),
    ],
)
def test_not_for_the_proxy(spec: dict, labels: dict) -> None:
    service = {"metadata": {"labels": labels}, "spec": {"ports": [{"port": 80}], **spec}}
    assert plan_service(service, pieces(endpoint("10.42.0.2")), family=IPV4, place=HERE).elements() == {}


def test_own_address_is_left_to_its_server() -> None:
    service = {"metadata": {}, "spec": {"clusterIP": "10.43.0.10", "ports": [{"port": 53, "protocol": "UDP"}]}}
    plan = plan_service(service, [], family=IPV4, place=HERE, own_addresses=frozenset({"10.43.0.10"}))
    assert plan.elements() == {}


class Kernel:
    """Applies element commands to a dict, and refuses what nftables refuses: adding twice, deleting nothing."""

    def __init__(self) -> None:
        self.elements: dict[tuple[str, str], str] = {}
        self.transactions: list[str] = []

    async def query(self, text: str) -> list[dict]:
        return []

    async def run(self, text: str) -> None:
        self.transactions.append(text)
        if "delete table" in text:
            self.elements.clear()
        for line in text.splitlines():
            words = line.split()
            if words[1:2] != ["element"]:
                continue
            for item in line[line.index("{") + 1 : line.rindex("}")].split(", "):
                key, _, value = item.strip().partition(" : ")
                if words[0] == "add":
                    assert (words[4], key) not in self.elements, f"added twice: {item}"
                    self.elements[(words[4], key)] = value
                else:
                    del self.elements[(words[4], key)]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 4), st.booleans(), st.sampled_from(["", "Local", "gone"])), max_size=12
    )
)
def test_any_sequence_of_changes_ends_like_a_fresh_load(steps: list[tuple[str, int, bool, str]]) -> None:
    """Incremental updates and a full load of the final state hold the same frontends, also when Services share an address."""
    import asyncio

    services: dict[str, dict] = {}
    slices: dict[str, list[dict]] = {}

    def lookup(key: str) -> tuple[dict | None, list[dict]]:
        return services.get(key), slices.get(key, [])

    async def scenario() -> None:
        kernel, fresh = Kernel(), Kernel()
        proxy = ServiceProxy(kernel, lookup, place=HERE, ranges=RANGES)  # type: ignore[arg-type]
        await proxy.load([])
        for name, targets, shared, policy in steps:
            key = f"ns/{name}"
            if policy == "gone":
                services.pop(key, None)
            else:
                spec = {"type": "NodePort", "clusterIP": f"10.43.0.{ord(name)}", "externalTrafficPolicy": policy}
                spec |= {"externalIPs": ["198.51.100.1"]} if shared else {}
                services[key] = {"metadata": {}, "spec": {**spec, "ports": [{"port": 80, "nodePort": 30000 + ord(name)}]}}
                nodes = ["node-a", "node-b"]
                slices[key] = pieces(*(endpoint(f"10.42.{n}.{ord(name)}", nodes[n % 2]) for n in range(targets)))
            await proxy.update({key})
        other = ServiceProxy(fresh, lookup, place=HERE, ranges=RANGES)  # type: ignore[arg-type]
        await other.load(services)
        unshared = {k for k in kernel.elements if "198.51.100.1" not in k[1] and "slots" not in k[0]}
        assert unshared == {k for k in fresh.elements if "198.51.100.1" not in k[1] and "slots" not in k[0]}
        # The shared address has one owner in both, though perhaps not the same.
        claims = {k for k in kernel.elements if k[0] == "outside-ips-tcp"}
        assert claims == {k for k in fresh.elements if k[0] == "outside-ips-tcp"}
        slots = {k for k in kernel.elements if "slots" in k[0] and "198.51.100.1" not in k[1]}
        assert {kernel.elements[k] for k in slots} == {v for k, v in fresh.elements.items() if k in slots}

    asyncio.run(scenario())


async def test_one_changed_endpoint_is_two_elements() -> None:
    kernel = Kernel()
    service = {"metadata": {}, "spec": {"clusterIP": "10.43.0.7", "ports": [{"port": 80}]}}
    now = pieces(*(endpoint(f"10.42.0.{n}") for n in range(2, 12)))
    proxy = ServiceProxy(kernel, lambda key: (service, now), place=HERE, ranges=RANGES)  # type: ignore[arg-type]
    await proxy.load(["ns/web"])
    now[0]["endpoints"][3] = endpoint("10.42.0.99")
    await proxy.update(["ns/web"])
    assert kernel.transactions[-1] == (
        "delete element ip k1s-proxy ip-slots-tcp { 10.43.0.7 . 80 . 5 }\n"
        "add element ip k1s-proxy ip-slots-tcp { 10.43.0.7 . 80 . 5 : 10.42.0.99 . 8080 }\n"
    )
    await proxy.update(["ns/web"])
    assert len(kernel.transactions) == 2, "nothing changed, nothing is sent"


async def test_many_chains_end_in_a_full_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "_MOST_CHAINS", 20)
    kernel = Kernel()
    service = {"metadata": {}, "spec": {"clusterIP": "10.43.0.7", "ports": [{"port": 80}]}}
    now: list[dict] = []
    proxy = ServiceProxy(kernel, lambda key: (service, now), place=HERE, ranges=RANGES)  # type: ignore[arg-type]
    await proxy.load(["ns/web"])
    for count in range(17, 40):
        now[:] = pieces(*(endpoint(f"10.42.0.{n}") for n in range(count)))
        await proxy.update(["ns/web"])
    assert sum("delete table" in text for text in kernel.transactions) > 1


def test_stale_affinity() -> None:
    listed = [
        {
            "map": {
                "elem": [
                    [
                        {"elem": {"val": {"concat": ["10.42.0.9", "10.43.0.7", "tcp", 80]}, "timeout": 9}},
                        {"concat": ["10.42.0.2", 8080]},
                    ],
                    [
                        {"elem": {"val": {"concat": ["10.42.0.9", "192.0.2.1", "tcp", 30080]}, "timeout": 9, "expires": 5}},
                        {"concat": ["10.42.0.3", 8080]},
                    ],
                    [
                        {"elem": {"val": {"concat": ["10.42.0.9", "10.43.0.8", "udp", 53]}, "timeout": 9}},
                        {"concat": ["10.42.0.3", 53]},
                    ],
                ]
            }
        }
    ]
    found = affinity.entries(listed)
    sticky = {"10.43.0.7 . tcp . 80": frozenset({"10.42.0.3 . 8080"}), "tcp . 30080": frozenset({"10.42.0.3 . 8080"})}
    assert affinity.plan(IPV4, found, sticky) == (
        "delete element ip k1s-proxy affinity { 10.42.0.9 . 10.43.0.7 . tcp . 80 }\n"
        "delete element ip k1s-proxy affinity { 10.42.0.9 . 10.43.0.8 . udp . 53 }\n"
    )
    assert affinity.carry_over(IPV4, found, sticky) == (
        "add element ip k1s-proxy affinity { 10.42.0.9 . 192.0.2.1 . tcp . 30080 timeout 9s expires 5s : 10.42.0.3 . 8080 }\n"
    )
    assert affinity.carry_over(IPV4, [], sticky) == ""


@pytest.mark.parametrize(("cpus", "size", "table_size"), [(2, 65536, "131072"), (8, 65536, "262144"), (8, 1 << 20, None)])
def test_the_tracker_has_room_and_is_never_made_smaller(cpus: int, size: int, table_size: str | None) -> None:
    found = limits.plan(cpus, size)
    assert found.get("net/netfilter/nf_conntrack_max") == table_size
    assert found["net/netfilter/nf_conntrack_tcp_timeout_close_wait"] == "3600"
