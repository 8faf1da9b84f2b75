"""Network policies without a kernel: what a policy means, which addresses stand where, and the text that follows."""

from __future__ import annotations

import ipaddress
import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from k1s.net.family import IPV4, IPV6
from k1s.net.nft import NftError
from k1s.net.policy import chains
from k1s.net.policy.apply import PolicyRules
from k1s.net.policy.blocks import spans
from k1s.net.policy.chains import Setting
from k1s.net.policy.cluster import Cluster
from k1s.net.policy.isolation import Isolation
from k1s.net.policy.model import NamedPort, Peer, Pod, Policy, addresses_of, compile_policy, on_pod_network, pod_of

SETTING = Setting(("10.43.0.10", "fd43::a"), 5353, (ipaddress.ip_network("10.42.0.0/16"), ipaddress.ip_network("fd42::/48")))
GOLDEN = Path(__file__).parents[2] / "golden" / "net" / "policy"


def policy(spec: dict[str, Any], namespace: str = "x") -> Policy:
    return compile_policy({"metadata": {"namespace": namespace, "name": "p"}, "spec": spec})


class Paper:
    """An Nft that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.refuse = 0

    async def run(self, commands: str) -> None:
        if self.refuse:
            self.refuse -= 1
            raise NftError("no")
        self.texts.append(commands)


# What a policy means


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ({}, True, False),
        ({"egress": [{}]}, True, True),
        ({"egress": []}, True, False),
        ({"policyTypes": ["Egress"]}, False, True),
        ({"policyTypes": ["Egress"], "ingress": [{}]}, False, True),
        ({"policyTypes": ["Ingress", "Egress"]}, True, True),
    ],
)
def test_directions(spec: dict[str, Any], ingress: bool, egress: bool) -> None:
    found = policy({"podSelector": {}, **spec})
    assert (found.ingress is not None, found.egress is not None) == (ingress, egress)


def test_ports_are_merged_by_protocol() -> None:
    given_ports = [{"port": 80}, {"port": 70, "endPort": 79}, {"port": 75, "endPort": 78}, {"port": 80, "protocol": "TCP"}]
    given_ports += [
        {"port": "web"},
        {"protocol": "UDP"},
        {"protocol": "UDP", "port": 5},
        {"protocol": "SCTP", "port": 7, "endPort": 7},
    ]
    found = policy({"ingress": [{"ports": given_ports}]}).ingress
    assert found is not None
    tcp, udp, sctp = found.rules[0].ports
    assert (tcp.numbers, tcp.ranges, tcp.names, tcp.every) == ((80,), ((70, 79),), (NamedPort("tcp", "web"),), False)
    assert udp.every
    assert (sctp.numbers, sctp.ranges) == ((7,), ())


def test_peers() -> None:
    both = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"a": "b"}}}
    found = policy(
        {"ingress": [{"from": [{"podSelector": {}}, {"namespaceSelector": {}}, both, both]}, {"from": []}, None]}
    ).ingress
    assert found is not None
    own, everywhere, some = found.rules[0].peers
    assert (own.namespace, own.namespaces) == ("x", None)
    assert everywhere.namespaces is not None
    assert everywhere.pods.empty
    assert some.name != everywhere.name
    assert [rule.anyone for rule in found.rules] == [False, True, True]


def test_who_needs_to_know_other_nodes() -> None:
    assert not policy({"policyTypes": ["Ingress", "Egress"]}).looks_beyond_node
    assert not policy(
        {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": "web"}]}]}
    ).looks_beyond_node
    assert policy({"egress": [{"ports": [{"port": "web"}]}]}).looks_beyond_node
    assert policy({"ingress": [{"from": [{"podSelector": {}}]}]}).looks_beyond_node


def test_pods_of_the_api() -> None:
    port = {"name": "http", "containerPort": 8080}
    sidecar = {"name": "s", "restartPolicy": "Always", "ports": [{"name": "metrics", "containerPort": 9, "protocol": "UDP"}]}
    spec = {"containers": [{"name": "c", "ports": [port, {"containerPort": 1}]}], "initContainers": [sidecar, {"ports": [port]}]}
    obj = {"metadata": {"namespace": "x", "name": "p"}, "spec": spec, "status": {"podIP": "10.0.0.1"}}
    assert pod_of(obj, addresses_of(obj)) == Pod("x", "p", {}, ("10.0.0.1",), (("tcp", "http", 8080), ("udp", "metrics", 9)))
    obj["status"] = {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}
    assert addresses_of(obj) == ("10.0.0.1", "fd00::1")
    assert on_pod_network(obj)
    assert not on_pod_network({**obj, "status": {"phase": "Succeeded"}})
    assert not on_pod_network({**obj, "spec": {"hostNetwork": True}})
    assert addresses_of({"metadata": {}}) == ()


_networks = st.builds(
    lambda address, bits: str(ipaddress.ip_network((0x0A000000 + address, 32 - bits), strict=False)),
    st.integers(0, 63),
    st.integers(0, 6),
)


@given(st.lists(st.tuples(_networks, st.lists(_networks, max_size=3)), max_size=4))
def test_blocks_are_their_addresses(blocks: list[tuple[str, list[str]]]) -> None:
    found = spans(blocks)
    for number in range(0x0A000000, 0x0A000040):
        address = ipaddress.ip_address(number)
        wanted = any(
            address in ipaddress.ip_network(cidr) and not any(address in ipaddress.ip_network(hole) for hole in holes)
            for cidr, holes in blocks
        )
        assert wanted == any(span.first <= number <= span.last for span in found)
    assert all(a.last + 1 < b.first for a, b in itertools.pairwise(found)), "sorted, and nothing in two"


def test_blocks_as_text() -> None:
    texts = [
        str(span) for span in spans([("10.0.0.0/8", ["10.0.0.0/9"]), ("fd00::/8", []), ("192.0.2.7/32", []), ("10.1.0.0/31", [])])
    ]
    assert texts == ["10.1.0.0/31", "10.128.0.0/9", "192.0.2.7", "fd00::/8"]
    assert str(spans([("10.0.0.0/30", ["10.0.0.0/32"])])[0]) == "10.0.0.1-10.0.0.3"


# Which addresses stand in which set

_PEERS = [
    peer
    for spec in (
        {"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}, {"podSelector": {}}]}]},
        {"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "t"}}}]}]},
        {"ingress": [{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "b"}}}]}]},
    )
    for rules in [policy(spec).ingress]
    if rules is not None
    for peer in rules.peers()
]
_PORTS = [NamedPort("tcp", "web"), NamedPort("udp", "web")]
_addresses = st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"]), max_size=2, unique=True).map(tuple)
_pods = st.builds(
    lambda ns, app, addresses, number: Pod(ns, "p", {"app": app}, addresses, (("tcp", "web", number),)),
    st.sampled_from(["x", "y"]),
    st.sampled_from(["a", "b"]),
    _addresses,
    st.sampled_from([80, 81]),
)
_steps = st.one_of(
    st.tuples(st.just("pod"), st.sampled_from(["one", "two", "three"]), st.one_of(st.none(), _pods)),
    st.tuples(st.just("namespace"), st.sampled_from(["x", "y"]), st.sampled_from([{}, {"team": "t"}])),
    st.tuples(st.just("want"), st.lists(st.sampled_from(_PEERS), unique=True), st.lists(st.sampled_from(_PORTS), unique=True)),
    st.tuples(st.just("take"), st.none(), st.none()),
)


@settings(max_examples=300)
@given(st.lists(_steps, max_size=25))
def test_steps_lead_where_a_start_from_nothing_does(steps: list[Any]) -> None:
    cluster, shadow = Cluster(), {4: set[tuple[str, str]](), 6: set[tuple[str, str]]()}
    pods: dict[str, Pod] = {}
    spaces: dict[str, dict[str, str]] = {}
    wanted: tuple[list[Peer], list[NamedPort]] = ([], [])

    def take() -> None:
        changes = cluster.take()
        for version, held in shadow.items():
            assert not changes.added[version] & held, "what is there is not added"
            assert changes.removed[version] <= held, "what is not there is not deleted"
            held -= changes.removed[version]
            held |= changes.added[version]

    for kind, first, second in steps:
        if kind == "pod":
            cluster.set_pod(first, second)
            pods.pop(first, None)
            if second is not None:
                pods[first] = second
        elif kind == "namespace":
            cluster.set_namespace(first, second)
            spaces[first] = second
        elif kind == "want":
            take()
            cluster.want(first, second)
            wanted = (first, second)
            names = {one.name for one in [*first, *second]}
            # Sets that nobody wants any more go with their elements.
            for held in shadow.values():
                held -= {element for element in held if element[0] not in names}
        else:
            take()
    take()
    fresh = Cluster()
    for name, labels in spaces.items():
        fresh.set_namespace(name, labels)
    fresh.want(*wanted)
    # In the order in which they claimed their addresses: that is all the past that counts.
    claims = {address: keys[-1] for address, keys in cluster._claims.items()}
    for key, pod in pods.items():
        owned = tuple(address for address in pod.addresses if claims[address] == key)
        fresh.set_pod(key, Pod(pod.namespace, pod.name, pod.labels, owned, pod.ports))
    for version, held in shadow.items():
        expected = {(name, element) for name, elements in fresh.elements(version).items() for element in elements}
        assert held == expected
        assert held == {(name, element) for name, elements in cluster.elements(version).items() for element in elements}


def test_an_address_used_again_is_the_new_pods() -> None:
    cluster = Cluster()
    cluster.want(_PEERS[:1], [])
    old, new = Pod("x", "old", {"app": "a"}, ("10.0.0.1",)), Pod("x", "new", {"app": "b"}, ("10.0.0.1",))
    cluster.set_pod("old", old)
    assert cluster.elements(4) == {_PEERS[0].name: ["10.0.0.1"]}
    cluster.set_pod("new", new)
    assert cluster.elements(4) == {}, "the API still has the old pod, its address speaks for the new one"
    cluster.set_pod("old", Pod("x", "old", {"app": "a", "more": "labels"}, ("10.0.0.1",)))
    assert cluster.elements(4) == {}
    cluster.set_pod("new", None)
    assert cluster.elements(4) == {_PEERS[0].name: ["10.0.0.1"]}


# Who is judged by what


def test_pods_alike_share_a_chain_whatever_policies_are_called() -> None:
    isolation = Isolation()
    isolation.set_policy("x/one", policy({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}))
    isolation.set_local("x/a", "x", {"app": "a"}, ("10.0.0.1",))
    isolation.set_local("x/b", "x", {"app": "b"}, ("10.0.0.2", "fd00::2"))
    isolation.set_local("y/a", "y", {"app": "a"}, ("10.0.0.3",))
    wanted = isolation.wanted()
    assert set(wanted.judged["ingress"]) == {"10.0.0.1", "10.0.0.2", "fd00::2"}
    assert wanted.judged["egress"] == {}
    assert len(wanted.verdicts) == 1
    assert isolation.wanted() is wanted
    # The same said by another policy, also in another namespace.
    isolation.set_policy("y/two", policy({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}, "y"))
    assert len(isolation.wanted().verdicts) == 1
    isolation.set_policy("x/one", policy({"podSelector": {"matchLabels": {"app": "b"}}, "egress": [{}]}))
    assert set(isolation.wanted().judged["egress"]) == {"10.0.0.2", "fd00::2"}
    assert "10.0.0.1" not in isolation.wanted().judged["ingress"]
    isolation.set_policy("x/one", None)
    isolation.set_policy("y/two", None)
    assert isolation.wanted().empty


# The text


def load_world(rules: PolicyRules, world: dict[str, Any]) -> None:
    for name, labels in world["namespaces"].items():
        rules.cluster.set_namespace(name, labels)
    for entry in world["pods"]:
        ports = tuple(tuple(port) for port in entry.get("ports", ()))
        pod = Pod(entry["namespace"], entry["name"], entry["labels"], tuple(entry["addresses"]), ports)
        key = f"{pod.namespace}/{pod.name}"
        rules.cluster.set_pod(key, pod)
        if entry.get("here"):
            rules.isolation.set_local(key, pod.namespace, pod.labels, pod.addresses)
    for obj in world["policies"]:
        rules.isolation.set_policy(f"{obj['metadata']['namespace']}/{obj['metadata']['name']}", compile_policy(obj))


async def test_golden() -> None:
    paper = Paper()
    rules = PolicyRules(paper, families=(IPV4, IPV6), setting=SETTING)  # type: ignore[arg-type]
    world = yaml.safe_load((GOLDEN / "shop.input.yaml").read_text())
    load_world(rules, world)
    await rules.load()
    paper.texts.append("\n# a pod of another node comes, one of this node goes, a policy changes\n")
    rules.cluster.set_pod("shop/new", Pod("shop", "new", {"app": "web"}, ("10.42.2.2",), (("tcp", "sql", 5432),)))
    rules.cluster.set_pod("shop/web-2", None)
    rules.isolation.set_local("shop/web-2", "shop", {}, ())
    changed = world["policies"][2]
    changed["spec"]["egress"] = [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]}]
    rules.isolation.set_policy("shop/web", compile_policy(changed))
    await rules.update()
    path = GOLDEN / "shop.output.txt"
    text = "".join(paper.texts)
    if os.environ.get("K1S_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


async def test_nothing_to_do_says_nothing() -> None:
    paper = Paper()
    rules = PolicyRules(paper)  # type: ignore[arg-type]
    await rules.load()
    assert paper.texts.pop() == chains.empty_text(IPV4)
    rules.cluster.set_pod("x/a", Pod("x", "a", {}, ("10.0.0.1",)))
    rules.isolation.set_local("x/a", "x", {}, ("10.0.0.1",))
    await rules.update()
    assert paper.texts == [], "pods cost nothing without a policy"
    rules.isolation.set_policy("x/p", policy({"podSelector": {}}))
    await rules.update()
    assert "type filter hook forward" in paper.texts.pop()
    rules.isolation.set_policy("y/p", policy({"podSelector": {}}, "y"))
    await rules.update()
    assert paper.texts == [], "a policy that isolates nobody here writes nothing"
    rules.isolation.set_policy("x/p", None)
    await rules.update()
    assert paper.texts == [chains.empty_text(IPV4)]


async def test_a_refused_change_is_answered_by_a_full_load() -> None:
    paper = Paper()
    rules = PolicyRules(paper)  # type: ignore[arg-type]
    rules.isolation.set_local("x/a", "x", {}, ("10.0.0.1",))
    rules.isolation.set_policy("x/p", policy({"podSelector": {}}))
    await rules.load()
    rules.isolation.set_local("x/b", "x", {}, ("10.0.0.2",))
    paper.refuse = 1
    await rules.update()
    assert paper.texts[-1].startswith("add table ip k1s-policy\ndelete table")
    assert "10.0.0.2" in paper.texts[-1]
    # And if that is refused too the error goes up, and the next call starts from nothing.
    rules.isolation.set_local("x/c", "x", {}, ("10.0.0.3",))
    paper.refuse = 2
    with pytest.raises(NftError):
        await rules.update()
    await rules.update()
    assert "10.0.0.3" in paper.texts[-1]
    assert paper.texts[-1].startswith("add table ip k1s-policy\ndelete table")
