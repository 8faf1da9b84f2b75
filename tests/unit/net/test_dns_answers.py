"""The cluster zone's answers, one line a question. Names end without a dot; expected values as dig prints them."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable
from typing import Any

import pytest

from k1s.net.dns import wire
from k1s.net.dns.answers import Answer, ClusterZone

TYPES = {"A": wire.A, "AAAA": wire.AAAA, "SRV": wire.SRV, "PTR": wire.PTR, "CNAME": wire.CNAME, "TXT": wire.TXT}
TYPES |= {"SOA": wire.SOA, "NS": wire.NS, "ANY": wire.ANY}


def service(name: str, ip: str | None = "None", *, ports: Iterable[tuple[str, str, int]] = (), **spec: Any) -> dict:
    listed = [{"name": n, "protocol": p, "port": port} for n, p, port in ports]
    return {
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": listed, **spec},
    }


def piece(name: str, endpoints: list[dict], ports: Iterable[tuple[str, str, int]] = (), kind: str = "IPv4") -> dict:
    listed = [{"name": n, "protocol": p, "port": port} for n, p, port in ports]
    labels = {"kubernetes.io/service-name": name}
    meta = {"name": f"{name}-x", "namespace": "shop", "labels": labels}
    return {"metadata": meta, "addressType": kind, "ports": listed or None, "endpoints": endpoints}


HTTP = [("http", "TCP", 80), ("dns", "UDP", 53)]
SERVICES = [
    service("web", "10.43.0.7", ports=HTTP),
    service("dual", "10.43.0.8", ports=HTTP, clusterIPs=["10.43.0.8", "fd00::8"]),
    service("db", ports=[("sql", "TCP", 5432)]),
    service("bare"),
    service("empty"),
    service("out", None, type="ExternalName", externalName="Example.ORG."),
    service("inward", None, type="ExternalName", externalName="web.shop.svc.cluster.local"),
    service("broken", None, type="ExternalName", externalName="a..b"),
]
SLICES = [
    piece("web", [{"addresses": ["10.42.0.3"]}], [("http", "TCP", 8080)]),
    piece(
        "db",
        [
            {"addresses": ["10.42.0.4"], "hostname": "db-0", "conditions": {"ready": True}},
            {"addresses": ["10.42.1.5"], "conditions": {"ready": True}},
            {"addresses": ["10.42.1.6"], "hostname": "db-2", "conditions": {"ready": False}},
        ],
        [("sql", "TCP", 5432)],
    ),
    piece("db", [{"addresses": ["fd00:42::4"], "hostname": "db-0"}], [("sql", "TCP", 5432)], kind="IPv6"),
    piece("bare", [{"addresses": ["10.42.0.9"], "hostname": "only"}]),
]


class FixedZone:
    def service(self, namespace: str, name: str) -> dict | None:
        return next((s for s in SERVICES if (s["metadata"]["namespace"], s["metadata"]["name"]) == (namespace, name)), None)

    def slices(self, namespace: str, name: str) -> list[dict]:
        return [s for s in SLICES if namespace == "shop" and s["metadata"]["labels"]["kubernetes.io/service-name"] == name]

    def has_services(self, namespace: str) -> bool:
        return namespace == "shop"

    def services_at(self, address: str) -> list[dict]:
        return [s for s in SERVICES if address in s["spec"]["clusterIPs"]]

    def slices_at(self, address: str) -> list[dict]:
        return [s for s in SLICES if any(address in e["addresses"] for e in s["endpoints"])]


REVERSE = [ipaddress.ip_network(n) for n in ("10.43.0.0/16", "10.42.0.0/16", "fd00:42::/64")]
ZONE = ClusterZone(FixedZone(), "cluster.local", ["10.43.0.10"], REVERSE)


def shown(record: wire.Record) -> str:
    match record.type:
        case wire.A:
            return socket.inet_ntoa(record.data)
        case wire.AAAA:
            return socket.inet_ntop(socket.AF_INET6, record.data)
        case wire.SRV:
            priority, weight, port = struct.unpack_from(">HHH", record.data)
            return f"{priority} {weight} {port} {'.'.join(wire.read_name(record.data, 6))}"
        case wire.TXT:
            return record.data[1:].decode()
        case wire.SOA:
            return "soa"
        case _:
            return ".".join(wire.read_name(record.data, 0))


def ask(name: str, kind: str) -> Answer:
    return ZONE.answer(tuple(name.split(".")), TYPES[kind])


SVC = "svc.cluster.local"
FOUND = [
    (f"web.shop.{SVC}", "A", ["10.43.0.7"]),
    (f"dual.shop.{SVC}", "A", ["10.43.0.8"]),
    (f"dual.shop.{SVC}", "AAAA", ["fd00::8"]),
    (f"dual.shop.{SVC}", "ANY", ["10.43.0.8"]),
    (f"_http._tcp.web.shop.{SVC}", "SRV", [f"0 100 80 web.shop.{SVC}"]),
    (f"_dns._udp.web.shop.{SVC}", "SRV", [f"0 100 53 web.shop.{SVC}"]),
    (f"web.shop.{SVC}", "SRV", [f"0 50 80 web.shop.{SVC}", f"0 50 53 web.shop.{SVC}"]),
    (f"db.shop.{SVC}", "A", ["10.42.0.4", "10.42.1.5"]),
    (f"db.shop.{SVC}", "AAAA", ["fd00:42::4"]),
    (f"db-0.db.shop.{SVC}", "A", ["10.42.0.4"]),
    (f"db-0.db.shop.{SVC}", "AAAA", ["fd00:42::4"]),
    (f"10-42-1-5.db.shop.{SVC}", "A", ["10.42.1.5"]),
    (f"_sql._tcp.db.shop.{SVC}", "SRV", [f"0 33 5432 db-0.db.shop.{SVC}", f"0 33 5432 10-42-1-5.db.shop.{SVC}"]),
    (f"bare.shop.{SVC}", "A", ["10.42.0.9"]),
    (f"only.bare.shop.{SVC}", "A", ["10.42.0.9"]),
    (f"10-42-0-3.web.shop.{SVC}", "A", ["10.42.0.3"]),
    (f"out.shop.{SVC}", "A", ["example.org"]),
    (f"out.shop.{SVC}", "CNAME", ["example.org"]),
    ("10-42-7-8.shop.pod.cluster.local", "A", ["10.42.7.8"]),
    ("fd00--8.shop.pod.cluster.local", "AAAA", ["fd00::8"]),
    ("7.0.43.10.in-addr.arpa", "PTR", [f"web.shop.{SVC}"]),
    ("4.0.42.10.in-addr.arpa", "PTR", [f"db-0.db.shop.{SVC}"]),
    ("5.1.42.10.in-addr.arpa", "PTR", [f"10-42-1-5.db.shop.{SVC}"]),
    ("4." + "0." * 18 + "4.0.0." + "0.0.d.f.ip6.arpa", "PTR", None),
    ("dns-version.cluster.local", "TXT", ["1.1.0"]),
    ("cluster.local", "SOA", ["soa"]),
    ("cluster.local", "NS", ["ns.dns.cluster.local"]),
    ("ns.dns.cluster.local", "A", ["10.43.0.10"]),
]


@pytest.mark.parametrize(("name", "kind", "wanted"), [case for case in FOUND if case[2]])
def test_found(name: str, kind: str, wanted: list[str]) -> None:
    answer = ask(name, kind)
    assert answer.code == wire.NOERROR
    assert [shown(record) for record in answer.records] == wanted
    assert answer.authority == []
    assert all(".".join(record.name) == name for record in answer.records)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"web.shop.{SVC}", "AAAA"),
        (f"web.shop.{SVC}", "TXT"),
        (f"_http._tcp.web.shop.{SVC}", "A"),
        (f"shop.{SVC}", "A"),
        (SVC, "A"),
        ("cluster.local", "A"),
        ("pod.cluster.local", "A"),
        ("shop.pod.cluster.local", "A"),
        ("dns.cluster.local", "A"),
        ("10-42-7-8.shop.pod.cluster.local", "AAAA"),
        (f"bare.shop.{SVC}", "SRV"),
    ],
)
def test_exists_without_such_a_record(name: str, kind: str) -> None:
    answer = ask(name, kind)
    assert (answer.code, answer.records) == (wire.NOERROR, [])
    assert [record.type for record in answer.authority] == [wire.SOA]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"nobody.shop.{SVC}", "A"),
        (f"web.elsewhere.{SVC}", "A"),
        (f"elsewhere.{SVC}", "A"),
        (f"_nope._tcp.web.shop.{SVC}", "SRV"),
        (f"_http._udp.web.shop.{SVC}", "SRV"),
        (f"_nope._tcp.db.shop.{SVC}", "SRV"),
        (f"db-2.db.shop.{SVC}", "A"),
        (f"empty.shop.{SVC}", "A"),
        (f"a.b.web.shop.{SVC}", "A"),
        (f"x._http._tcp.web.shop.{SVC}", "A"),
        (f"sub.out.shop.{SVC}", "A"),
        ("nope.cluster.local", "A"),
        ("not-an-address.shop.pod.cluster.local", "A"),
        ("x.10-42-7-8.shop.pod.cluster.local", "A"),
        ("99.0.43.10.in-addr.arpa", "PTR"),
        # Endpoints of a Service with an address of its own have no name.
        ("3.0.42.10.in-addr.arpa", "PTR"),
    ],
)
def test_does_not_exist(name: str, kind: str) -> None:
    answer = ask(name, kind)
    assert (answer.code, answer.records) == (wire.NXDOMAIN, [])
    assert [record.type for record in answer.authority] == [wire.SOA]


def test_ipv6_pointer() -> None:
    nibbles = ".".join(reversed(ipaddress.ip_address("fd00:42::4").exploded.replace(":", "")))
    assert [shown(r) for r in ask(f"{nibbles}.ip6.arpa", "PTR").records] == [f"db-0.db.shop.{SVC}"]


def test_srv_carries_the_addresses_of_its_targets() -> None:
    answer = ask(f"_sql._tcp.db.shop.{SVC}", "SRV")
    assert {(".".join(r.name), shown(r)) for r in answer.additional} == {
        (f"db-0.db.shop.{SVC}", "10.42.0.4"),
        (f"db-0.db.shop.{SVC}", "fd00:42::4"),
        (f"10-42-1-5.db.shop.{SVC}", "10.42.1.5"),
    }


def test_external_name_says_where_to_go_on() -> None:
    assert ask(f"out.shop.{SVC}", "A").alias == ("example", "org")
    assert ask(f"inward.shop.{SVC}", "A").alias == ("web", "shop", "svc", "cluster", "local")
    assert ask(f"broken.shop.{SVC}", "A").code == wire.SERVFAIL


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("web.shop.svc.cluster.local", True),
        ("cluster.local", True),
        ("example.org", False),
        ("local", False),
        ("xcluster.local", False),
        ("7.0.43.10.in-addr.arpa", True),
        ("8.8.8.8.in-addr.arpa", False),
        ("43.10.in-addr.arpa", False),
        ("x.0.43.10.in-addr.arpa", False),
    ],
)
def test_what_is_ours(name: str, ours: bool) -> None:
    assert ZONE.owns(tuple(name.split("."))) is ours
