"""Pools as text, and the plan's rarer cases."""

from __future__ import annotations

from typing import Any

import pytest

from k1s.net.announce import eligible
from k1s.server.controllers.service_lb_plan import BalancerConfig, Outcome, plan
from k1s.server.controllers.service_lb_pool import PoolError, configured_pools, parse_pools

Object = dict[str, Any]


def service(name: str, *, age: int = 0, port: int = 80, families: tuple[str, ...] = ("IPv4",), **spec: Any) -> Object:
    metadata = {"name": name, "namespace": "default", "creationTimestamp": f"2026-01-01T00:00:{age:02}Z"}
    full = {"type": "LoadBalancer", "ipFamilies": list(families), "ports": [{"port": port, "protocol": "TCP"}], **spec}
    return {"metadata": metadata, "spec": full}


def node(name: str, *addresses: str, kind: str = "InternalIP", **labels: str) -> Object:
    entries = [{"type": kind if kind == "ExternalIP" else "InternalIP", "address": a} for a in addresses]
    if kind == "ExternalIP":
        entries.append({"type": "InternalIP", "address": "10.0.0.9"})
    return {
        "metadata": {"name": name, "labels": labels},
        "status": {"addresses": entries, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def outcome_of(services: list[Object], nodes: list[Object], *pools: str, **given: tuple[str, ...]) -> dict[str, Outcome]:
    config = BalancerConfig(pools=parse_pools(pools))
    found = plan(services, nodes, lambda _: (), config, {f"default/{name}": a for name, a in given.items()})
    return {key.removeprefix("default/"): outcome for key, outcome in found.items()}


@pytest.mark.parametrize(
    ("text", "first", "count"),
    [
        ("192.168.1.240-192.168.1.250", "192.168.1.240", 11),
        ("192.168.1.0/29", "192.168.1.1", 7),
        ("192.168.1.7", "192.168.1.7", 1),
        ("192.168.1.7/32", "192.168.1.7", 1),
        ("fd00::/126", "fd00::1", 3),
        ("fd00::10 - fd00::1f", "fd00::10", 16),
    ],
)
def test_a_pool_has_these_addresses(text: str, first: str, count: int) -> None:
    (pool,) = parse_pools([text])
    addresses = list(pool)
    assert (str(addresses[0]), len(addresses)) == (first, count)
    assert all(address in pool for address in addresses)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["192.168.1.240-192.168.1.2500"], "write a range"),
        (["192.168.1.5/24"], "has host bits set"),
        (["tomorrow"], "write a range"),
        (["192.168.1.9-192.168.1.2"], "behind the last"),
        (["192.168.1.9-fd00::1"], "one family"),
        (["10.42.7.0/24"], "overlaps --cluster-cidr 10.42.0.0/16"),
        (["10.40.0.0-10.50.0.0"], "overlaps --cluster-cidr"),
        (["10.43.0.9"], "overlaps --service-cidr"),
        (["192.168.1.1-192.168.1.9", "192.168.1.9-192.168.1.10"], "name each address once"),
        (["224.0.0.0/28"], "not an address that a host"),
    ],
)
def test_what_cannot_be_a_pool_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(PoolError, match=said):
        configured_pools(texts, "10.42.0.0/16", "10.43.0.0/16")


def test_a_huge_pool_costs_no_more_than_what_is_taken() -> None:
    services = [service(f"s{n:02}", families=("IPv6",)) for n in range(50)]
    found = outcome_of(services, [], "fd00::/64")
    assert [found[f"s{n:02}"].addresses[0] for n in (0, 49)] == ["fd00::1", "fd00::32"]


def test_external_addresses_come_before_internal_ones() -> None:
    found = outcome_of([service("a")], [node("n1", "198.51.100.1", kind="ExternalIP"), node("n2", "10.0.0.2")])
    assert found["a"].addresses == ("198.51.100.1", "10.0.0.2")


def test_addresses_follow_the_services_families() -> None:
    nodes = [node("n2", "10.0.0.2", "fd00::2"), node("n1", "fd00::1", "10.0.0.1")]
    both = outcome_of([service("a", families=("IPv6", "IPv4"))], nodes)["a"]
    assert both.addresses == ("fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2")
    assert outcome_of([service("a", families=("IPv6",))], [node("n1", "10.0.0.1")])["a"].reason == "NoNodes"


def test_a_port_is_disputed_node_by_node() -> None:
    """Services on different nodes may use one port; where both want a node the older has it."""
    nodes = [node("n1", "10.0.0.1", **{eligible.POOL_LABEL: "a"}), node("n2", "10.0.0.2")]
    old = service("old", age=1)
    old["metadata"]["labels"] = {eligible.POOL_LABEL: "a"}
    found = outcome_of([service("young", age=2), old], nodes)
    assert (found["old"].addresses, found["young"].addresses) == (("10.0.0.1",), ("10.0.0.2",))
    assert outcome_of([service("young", age=2), service("old", age=1)], nodes)["young"].reason == "PortConflict"


def test_of_two_services_of_one_second_the_one_that_has_the_port_keeps_it() -> None:
    services = [service("a"), service("b")]
    assert outcome_of(services, [node("n1", "10.0.0.1")])["a"].good
    assert outcome_of(services, [node("n1", "10.0.0.1")], b=("10.0.0.1",))["b"].good
    services[1]["status"] = {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}
    assert outcome_of(services, [node("n1", "10.0.0.1")])["b"].good


def test_udp_and_tcp_do_not_dispute() -> None:
    udp = service("udp", ports=[{"port": 80, "protocol": "UDP"}])
    found = outcome_of([service("tcp"), udp], [node("n1", "10.0.0.1")])
    assert found["tcp"].good and found["udp"].good


def test_an_unready_or_excluded_node_serves_nobody() -> None:
    unready = node("n1", "10.0.0.1")
    unready["status"]["conditions"][0]["status"] = "Unknown"
    found = outcome_of([service("a")], [unready, node("n2", "10.0.0.2", **{eligible.EXCLUDE_LABEL: ""})])
    assert (found["a"].addresses, found["a"].reason) == ((), "NoNodes")


def test_a_pool_serves_both_families_or_the_one_it_has() -> None:
    asked = service("a", families=("IPv4", "IPv6"))
    assert outcome_of([asked], [], "192.0.2.240", "fd00::1")["a"].addresses == ("192.0.2.240", "fd00::1")
    one = outcome_of([asked], [], "192.0.2.240")["a"]
    assert one.addresses == ("192.0.2.240",)
    assert "has no IPv6 addresses" in one.message
    assert outcome_of([service("a", families=("IPv6",))], [], "192.0.2.240")["a"].reason == "PoolExhausted"


def test_what_was_given_but_is_not_seen_yet_is_not_given_again() -> None:
    services = [service("new", age=2), service("old", age=1)]
    found = outcome_of(services, [], "192.0.2.240-192.0.2.241", new=("192.0.2.240",))
    assert (found["new"].addresses, found["old"].addresses) == (("192.0.2.240",), ("192.0.2.241",))


def test_a_hosts_own_address_is_never_given_out() -> None:
    assert outcome_of([service("a")], [node("n1", "192.0.2.240")], "192.0.2.240-192.0.2.241")["a"].addresses == ("192.0.2.241",)


def test_of_two_services_with_one_address_the_older_keeps_it() -> None:
    """A backup that was restored, a status written by hand."""
    services = [service("young", age=2), service("old", age=1)]
    for one in services:
        one["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.241"}]}}
    found = outcome_of(services, [], "192.0.2.240-192.0.2.241")
    assert (found["old"].addresses, found["young"].addresses) == (("192.0.2.241",), ("192.0.2.240",))


@pytest.mark.parametrize("asked", ["here", "192.0.2.240,192.0.2.241", "fd00::1"])
def test_a_wish_that_makes_no_sense_is_told(asked: str) -> None:
    assert outcome_of([service("a", loadBalancerIP=asked)], [], "192.0.2.240/28")["a"].reason == "InvalidAddress"
