"""Network policies against a real kernel: every probe is a packet between network namespaces on two hosts.

What a probe should find comes from policy_model, which knows the documentation and nothing of the rules.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import netlab
import policy_rig
from policy_model import End
from policy_rig import HOSTS, NAMESPACES, PLACES, PROTOCOLS, Rig, pod_object

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with policy_rig.rig(tmp_path_factory.mktemp("policy")) as made:
        yield made


@pytest.fixture
def rig(shared: Rig, caplog: pytest.LogCaptureFixture) -> Iterator[Rig]:
    yield shared
    shared.set_policies([])
    for key in PLACES:
        shared.set_pod(key, pod_object(key))
    for name in NAMESPACES:
        shared.set_namespace(name, {"ns": name, "kubernetes.io/metadata.name": name})
    shared.commit()
    assert "writing it anew" not in caplog.text, "an update was refused and hidden by a full load"


def policy(name: str, namespace: str = "x", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name}, "spec": {"podSelector": {}, **spec}}


def pods(**labels: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": labels}}


def spaces(**labels: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": labels}}


def block(cidr: str, *holes: str) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr, **({"except": list(holes)} if holes else {})}}


def tcp(port: int | str, end: int | None = None) -> dict[str, Any]:
    return {"protocol": "TCP", "port": port, **({"endPort": end} if end else {})}


def check(rig: Rig) -> None:
    """Every pair, port and protocol, by address and through Services, in both families."""
    rig.commit()
    wrong = rig.ask(rig.matrix(4, PROTOCOLS)) + rig.ask(rig.matrix(6, PROTOCOLS))
    wrong += rig.ask(rig.matrix(4, ("tcp", "udp"), services=True))
    assert wrong == [], json.dumps(list(rig.policies.values()), indent=1)


DENY = policy("deny", policyTypes=["Ingress", "Egress"])
WEB = {"podSelector": {"matchLabels": {"app": "web"}}}
IN = {"policyTypes": ["Ingress"]}
OUT = {"policyTypes": ["Egress"]}

SCENARIOS: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "deny ingress to a namespace": [policy("deny")],
    "deny egress from a namespace": [policy("deny", policyTypes=["Egress"])],
    "deny everything in two namespaces": [DENY, policy("deny", "y", policyTypes=["Ingress", "Egress"])],
    "deny one pod": [policy("deny", **pods(pod="a"))],
    "a rule without anything allows everything": [policy("open", ingress=[{}], egress=[{}], policyTypes=["Ingress", "Egress"])],
    "deny and allow-all together": [DENY, policy("open", ingress=[{}])],
    "from pods of the namespace": [policy("p", ingress=[{"from": [pods(pod="b")]}])],
    "from every pod of the namespace": [policy("p", ingress=[{"from": [{"podSelector": {}}]}])],
    "from a namespace": [policy("p", **WEB, ingress=[{"from": [spaces(ns="y")]}])],
    "from a namespace by its name": [policy("p", ingress=[{"from": [spaces(**{"kubernetes.io/metadata.name": "z"})]}])],
    "from all namespaces": [policy("p", ingress=[{"from": [{"namespaceSelector": {}}]}])],
    "pods and namespace in one peer": [policy("p", ingress=[{"from": [{**spaces(ns="y"), **pods(pod="c")}]}])],
    "pods and namespace in two peers": [policy("p", ingress=[{"from": [spaces(ns="y"), pods(pod="c")]}])],
    "expressions": [
        policy(
            "p",
            podSelector={"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "api"]}]},
            ingress=[
                {
                    "from": [
                        {
                            "namespaceSelector": {"matchExpressions": [{"key": "ns", "operator": "NotIn", "values": ["x"]}]},
                            "podSelector": {
                                "matchExpressions": [
                                    {"key": "pod", "operator": "Exists"},
                                    {"key": "gone", "operator": "DoesNotExist"},
                                    {"key": "pod", "operator": "NotIn", "values": ["b"]},
                                ]
                            },
                        }
                    ]
                }
            ],
        )
    ],
    "a port": [policy("p", ingress=[{"ports": [tcp(80)]}])],
    "two ports and two protocols": [policy("p", ingress=[{"ports": [tcp(80), tcp(81), {"protocol": "UDP", "port": 81}]}])],
    "a protocol without a port": [policy("p", ingress=[{"ports": [{"protocol": "UDP"}]}])],
    "the default protocol is TCP": [policy("p", ingress=[{"ports": [{"port": 81}]}])],
    "SCTP": [policy("p", ingress=[{"ports": [{"protocol": "SCTP", "port": 80}]}])],
    "SCTP range": [policy("p", ingress=[{"ports": [{"protocol": "SCTP", "port": 70, "endPort": 80}]}])],
    "a range": [policy("p", ingress=[{"ports": [tcp(81, 90)]}])],
    "ranges that overlap": [policy("p", ingress=[{"ports": [tcp(70, 80), tcp(75, 81), tcp(80)]}])],
    "a named port": [policy("p", ingress=[{"ports": [tcp("serve")]}])],
    "a named port of another protocol": [policy("p", ingress=[{"ports": [{"protocol": "UDP", "port": "serve"}]}])],
    "a named port that nobody has": [policy("p", ingress=[{"ports": [tcp("nobody")]}])],
    "egress to a named port": [policy("p", **OUT, egress=[{"to": [spaces(ns="y")], "ports": [tcp("serve")]}])],
    "egress to a named port of anybody": [policy("p", **OUT, egress=[{"ports": [tcp("serve")]}])],
    "egress to pods": [policy("p", **OUT, egress=[{"to": [pods(app="web")]}])],
    "egress to a namespace and a port": [policy("p", **OUT, egress=[{"to": [spaces(ns="z")], "ports": [tcp(81)]}])],
    "egress to a range": [policy("p", **OUT, egress=[{"to": [{"namespaceSelector": {}}], "ports": [tcp(1, 80)]}])],
    "egress to SCTP": [policy("p", **OUT, egress=[{"ports": [{"protocol": "SCTP", "port": 81}]}])],
    "both ends are judged": [
        policy("p", **OUT, egress=[{"to": [spaces(ns="y")]}]),
        policy("p", "y", ingress=[{"from": [spaces(ns="z")]}]),
    ],
    "both ends agree": [
        policy("p", **OUT, egress=[{"to": [{**spaces(ns="y"), **pods(pod="a")}]}]),
        policy("p", "y", ingress=[{"from": [{**spaces(ns="x"), **pods(app="web")}], "ports": [tcp(80)]}]),
    ],
    "policies add up": [
        policy("one", ingress=[{"from": [spaces(ns="y")], "ports": [tcp(80)]}]),
        policy("two", ingress=[{"from": [spaces(ns="z")], "ports": [tcp(81)]}]),
    ],
    "rules of one policy add up": [
        policy("p", ingress=[{"from": [spaces(ns="y")], "ports": [tcp(80)]}, {"from": [pods(pod="c")]}, {"ports": [tcp(81)]}])
    ],
    "one direction leaves the other alone": [policy("p", policyTypes=["Egress"], ingress=[{"from": [pods(pod="nobody")]}])],
    "egress rules without types": [policy("p", egress=[{"to": [pods(app="web")]}])],
    "block of pods": [policy("p", ingress=[{"from": [block("10.142.1.0/24"), block("fd42:142:0:1::/64")]}])],
    "block with holes": [
        policy("p", ingress=[{"from": [block("10.0.0.0/8", "10.142.1.2/31", "10.142.2.0/24")], "ports": [tcp(80)]}])
    ],
    "everything but a block": [
        policy("p", **OUT, egress=[{"to": [block("0.0.0.0/0", "10.142.1.0/24"), block("::/0", "fd42:142:0:2::/64")]}])
    ],
    "blocks that overlap": [policy("p", ingress=[{"from": [block("10.142.0.0/16", "10.142.2.0/24"), block("10.142.2.4/32")]}])],
    "all addresses": [policy("p", **OUT, egress=[{"to": [block("0.0.0.0/0")]}])],
    "blocks and selectors in one rule": [policy("p", ingress=[{"from": [block("10.142.2.2/32"), spaces(ns="z")]}])],
    "a null rule": [policy("p", ingress=[None])],
    "selectors that select nobody": [policy("p", ingress=[{"from": [pods(pod="nobody"), spaces(ns="nowhere")]}])],
    "nobody is selected": [policy("p", podSelector={"matchLabels": {"pod": "nobody"}}, policyTypes=["Ingress", "Egress"])],
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_matrix(rig: Rig, name: str) -> None:
    rig.set_policies(SCENARIOS[name])
    check(rig)


def test_labels_of_pods_and_namespaces_change(rig: Rig) -> None:
    rig.set_policies([policy("p", **WEB, ingress=[{"from": [{**spaces(team="a"), **pods(role="client")}]}])])
    check(rig)
    rig.set_pod("y/c", pod_object("y/c", {"pod": "c", "role": "client"}))
    check(rig)
    rig.set_namespace("y", {"ns": "y", "team": "a"})
    check(rig)
    assert rig.expect(rig.end("y/c", 4), rig.end("x/a", 4), "tcp", 80)
    # An isolated pod is let go, and another one taken.
    rig.set_pod("x/a", pod_object("x/a", {"pod": "a", "app": "db"}))
    rig.set_pod("x/c", pod_object("x/c", {"pod": "c", "app": "web"}))
    check(rig)
    rig.set_namespace("y", {"ns": "y"})
    check(rig)
    assert not rig.expect(rig.end("y/c", 4), rig.end("x/c", 4), "tcp", 80)


def test_policies_change_and_go(rig: Rig) -> None:
    rig.set_policies([policy("p", ingress=[{"from": [spaces(ns="y")]}]), DENY])
    check(rig)
    rig.set_policies([policy("p", ingress=[{"from": [spaces(ns="z")]}]), DENY])
    check(rig)
    rig.set_policies([policy("p", ingress=[{"from": [spaces(ns="z")]}])])
    check(rig)
    rig.set_policies([])
    check(rig)
    for host in rig.hosts.values():
        listing = netlab.run("ip", "netns", "exec", host.netns, "nft", "list", "table", "ip", "k1s-policy")
        assert "chain" not in listing, "without policies packets meet no rule"


# Everything that a policy can say about this world, and some that says nothing.
_labels = st.sampled_from([("pod", "a"), ("pod", "b"), ("pod", "c"), ("app", "web"), ("app", "db"), ("role", "none")])
_terms = st.sampled_from(
    [
        {"key": "pod", "operator": "In", "values": ["a", "b"]},
        {"key": "pod", "operator": "NotIn", "values": ["a"]},
        {"key": "app", "operator": "Exists"},
        {"key": "role", "operator": "DoesNotExist"},
        {"key": "app", "operator": "DoesNotExist"},
    ]
)
_pod_selectors = st.one_of(
    st.just({}),
    st.builds(lambda pair: {"matchLabels": dict([pair])}, _labels),
    st.builds(lambda term: {"matchExpressions": [term]}, _terms),
)
_space_selectors = st.one_of(
    st.just({}),
    st.builds(lambda name: {"matchLabels": {"ns": name}}, st.sampled_from(NAMESPACES)),
    st.just({"matchExpressions": [{"key": "ns", "operator": "NotIn", "values": ["y"]}]}),
)
_cidrs = [
    ("0.0.0.0/0", ["10.142.1.0/24", "10.142.2.4/32", "10.142.0.0/16"]),
    ("10.142.0.0/16", ["10.142.1.2/32", "10.142.1.4/30", "10.142.2.0/24"]),
    ("10.142.1.0/24", ["10.142.1.3/32", "10.142.1.2/31"]),
    ("10.142.2.2/32", []),
    ("fd42:142::/32", ["fd42:142:0:1::/64", "fd42:142:0:2::3/128"]),
]
_blocks = st.sampled_from(_cidrs).flatmap(
    lambda pair: st.lists(st.sampled_from(pair[1] or [""]), max_size=2, unique=True).map(
        lambda holes: block(pair[0], *filter(None, holes))
    )
)
_peers = st.one_of(
    st.builds(lambda s: {"podSelector": s}, _pod_selectors),
    st.builds(lambda s: {"namespaceSelector": s}, _space_selectors),
    st.builds(lambda s, p: {"namespaceSelector": s, "podSelector": p}, _space_selectors, _pod_selectors),
    _blocks,
)
_ports = st.one_of(
    st.builds(
        lambda kind, port: {"protocol": kind, "port": port}, st.sampled_from(["TCP", "UDP", "SCTP"]), st.sampled_from([80, 81])
    ),
    st.builds(lambda kind: {"protocol": kind}, st.sampled_from(["TCP", "UDP"])),
    st.sampled_from([tcp(1, 80), tcp(81, 90), tcp("serve"), tcp("none"), {"protocol": "UDP", "port": "query"}, {"port": 80}]),
)
_rules = {
    side: st.lists(
        st.fixed_dictionaries({}, optional={side: st.lists(_peers, max_size=2), "ports": st.lists(_ports, max_size=2)}),
        max_size=2,
    )
    for side in ("from", "to")
}
_specs = st.fixed_dictionaries(
    {"podSelector": _pod_selectors},
    optional={
        "policyTypes": st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
        "ingress": _rules["from"],
        "egress": _rules["to"],
    },
)
_policies = st.lists(st.tuples(st.sampled_from(NAMESPACES), st.integers(0, 3), _specs), max_size=5, unique_by=lambda p: p[:2])


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(chosen=_policies, changed=st.sampled_from(sorted(PLACES)), role=st.sampled_from(["web", "db", "none"]))
def test_random_policies(rig: Rig, chosen: list[Any], changed: str, role: str) -> None:
    """Each example is a step from the one before, so that this tries changes as much as states."""
    rig.set_policies({"metadata": {"namespace": ns, "name": f"p{number}"}, "spec": spec} for ns, number, spec in chosen)
    labels = {"pod": changed[-1], "app": role} if role != "none" else {"pod": changed[-1], "role": "none"}
    rig.set_pod(changed, pod_object(changed, labels))
    check(rig)
    for host in rig.hosts.values():
        before = _listing(host.netns)
        rig.on(host, host.rules.load())
        assert _listing(host.netns) == before, "what came by steps is what a full load gives"


def _listing(space: str) -> list[str]:
    """The tables, in an order of our own."""
    lines: list[str] = []
    for family in ("ip", "ip6"):
        items = json.loads(netlab.run("ip", "netns", "exec", space, "nft", "-j", "list", "table", family, "k1s-policy"))[
            "nftables"
        ]
        for item in items:
            for kind, value in item.items():
                if kind == "metainfo":
                    continue
                value.pop("handle", None)
                if isinstance(value.get("elem"), list):
                    value["elem"] = sorted(value["elem"], key=json.dumps)
                lines.append(f"{family} {kind} {json.dumps(value, sort_keys=True)}")
    # Rules keep their order within a chain; chains may stand in any.
    return sorted(lines)


def ends(rig: Rig, sources: list[str], targets: list[str], ports: tuple[int, ...] = (80,)) -> list[tuple[str, Any, bool]]:
    """Probes among pods, hosts and the world outside, in IPv4. Host to own pod: "always allowed"."""
    found = []
    for source in sources:
        for target in targets:
            a, b = (End(HOSTS[e]) if e in HOSTS else rig.end(e, 4) for e in (source, target))
            for kind in ("tcp", "udp"):
                for port in ports:
                    own_node = source in HOSTS and b.node == source.removeprefix("host ")
                    found.append((source, [kind, b.address, port], own_node or rig.expect(a, b, kind, port)))
    return found


def test_nodes_and_the_world_outside(rig: Rig) -> None:
    everybody = [*HOSTS, "x/a", "x/c"]
    for chosen in (
        [DENY],
        [policy("p", ingress=[{"from": [block("192.0.2.0/24", "192.0.2.1/32")]}])],
        [policy("p", **OUT, egress=[{"to": [block("192.0.2.1/32"), block("192.0.2.254/32")], "ports": [tcp(80)]}])],
        [policy("p", ingress=[{"from": [{"namespaceSelector": {}}]}], egress=[{"to": [{"namespaceSelector": {}}]}])],
        [policy("p", ingress=[{}], egress=[{}])],
    ):
        rig.set_policies(chosen)
        rig.commit()
        assert rig.ask(ends(rig, everybody, ["x/a", "x/c", *HOSTS])) == [], chosen
    # Probes of the kubelet: from the node of the pod, whatever policies say.
    rig.set_policies([DENY])
    rig.commit()
    address = rig.addresses["x/a"][0]
    assert rig.ask([("host a", ["tcp", address, 80], True), ("host b", ["tcp", address, 80], False)]) == []


def test_dns_of_the_node(rig: Rig) -> None:
    """Default deny blocks it; what people write to let pods reach CoreDNS lets them reach the agent."""
    port = {"protocol": "UDP", "port": 53}
    kube_dns = {**spaces(**{"kubernetes.io/metadata.name": "kube-system"}), **pods(**{"k8s-app": "kube-dns"})}
    cases: list[tuple[list[dict[str, Any]] | None, bool, bool]] = [
        ([], False, False),
        ([{"to": [kube_dns], "ports": [port]}], True, False),
        ([{"to": [kube_dns], "ports": [port, tcp(53)]}], True, True),
        ([{"to": [spaces(**{"kubernetes.io/metadata.name": "kube-system"})], "ports": [port]}], True, False),
        ([{"to": [{"namespaceSelector": {}}], "ports": [port]}], True, False),
        ([{"to": [{"namespaceSelector": {}}], "ports": [{"protocol": "UDP", "port": "dns"}, tcp("dns-tcp")]}], True, True),
        ([{"ports": [port]}], True, False),
        ([{"to": [block("10.143.0.10/32")], "ports": [tcp(53)]}], False, True),
        ([{"to": [spaces(ns="y")], "ports": [port]}], False, False),
        ([{"to": [{"podSelector": {}}]}], False, False),
        ([{}], True, True),
    ]
    for egress, udp_good, tcp_good in cases:
        rig.set_policies([policy("p", **OUT, egress=egress)])
        rig.commit()
        probes = [("x/a", ["udp", policy_rig.DNS, 53], udp_good), ("x/a", ["tcp", policy_rig.DNS, 53], tcp_good)]
        # Pods that no policy selects ask on.
        assert rig.ask([*probes, ("y/a", ["udp", policy_rig.DNS, 53], True)]) == [], egress


_STREAM = r"""
import socket, sys
s = socket.create_connection((sys.argv[1], 8000), 3)
s.settimeout(3)
for line in sys.stdin:
    s.sendall(line.encode())
    print(s.recv(100).decode().strip(), flush=True)
"""
_ECHO = r"""
import socket
l = socket.create_server(("0.0.0.0", 8000))
print("ready", flush=True)
c, _ = l.accept()
while d := c.recv(100):
    c.sendall(d)
"""


def test_connections_that_are_open_go_on(rig: Rig) -> None:
    python = ["ip", "netns", "exec"]
    with netlab_process(*python, rig.netns_of["x/a"], "python3", "-c", _ECHO) as server:
        assert server.stdout.readline() == "ready\n"
        with netlab_process(*python, rig.netns_of["y/a"], "python3", "-c", _STREAM, rig.addresses["x/a"][0]) as client:
            client.stdin.write("one\n")
            client.stdin.flush()
            assert client.stdout.readline() == "one\n"
            rig.set_policies([DENY])
            rig.commit()
            assert rig.ask([("y/a", ["tcp", rig.addresses["x/a"][0], 80], False)]) == []
            client.stdin.write("two\n")
            client.stdin.flush()
            assert client.stdout.readline() == "two\n"


def netlab_process(*command: str) -> Any:
    import contextlib
    import subprocess

    @contextlib.contextmanager
    def running() -> Iterator[Any]:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    return running()
