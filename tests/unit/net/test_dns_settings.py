"""ConfigMaps of the DNS: what they mean, and what is said of mistakes."""

from __future__ import annotations

import pytest

from k1s.net.dns import wire
from k1s.net.dns.hosts import HostTable
from k1s.net.dns.settings import MOST_NAMES, Settings, SettingsError, merged, read_classic, read_ours

OWN = frozenset({"10.43.0.10"})

OURS = {
    "stub-domains": """
        # the office
        corp.example: 10.0.0.53, 10.0.0.54:5353
        Lab.Example.:   fd00::53
        10.in-addr.arpa: 10.0.0.53   # and its addresses
    """,
    "upstreams": "1.1.1.1, 9.9.9.9\n",
    "hosts": "192.168.1.20 NAS.home nas # the shelf\n\nfd00::20 nas.home\n192.168.1.30 *.apps.home\n"
    "192.168.1.31 fixed.apps.home\n",
    "rewrite": "shop.example.com shop.default.svc.cluster.local\n*.dev.example.com web.default.svc.cluster.local.\n",
}


def ours(**data: str) -> Settings:
    return read_ours(data, OWN, "cluster.local")


def name(text: str) -> tuple[str, ...]:
    return tuple(text.split("."))


def shown(settings: Settings) -> tuple[dict[str, list[str]], list[str]]:
    stubs = {".".join(domain): [str(s) for s in servers] for domain, servers in settings.stubs.items()}
    return stubs, [str(s) for s in settings.upstreams]


def test_every_key() -> None:
    found = read_ours(OURS, OWN, "cluster.local")
    assert shown(found) == (
        {
            "corp.example": ["10.0.0.53:53", "10.0.0.54:5353"],
            "lab.example": ["[fd00::53]:53"],
            "10.in-addr.arpa": ["10.0.0.53:53"],
        },
        ["1.1.1.1:53", "9.9.9.9:53"],
    )


@pytest.mark.parametrize(
    ("asked", "kind", "wanted"),
    [
        ("nas.home", wire.A, [bytes((192, 168, 1, 20))]),
        ("nas.home", wire.AAAA, [bytes.fromhex("fd00" + "0" * 26 + "20")]),
        ("nas", wire.A, [bytes((192, 168, 1, 20))]),
        ("nas", wire.AAAA, []),
        ("nas.home", wire.TXT, []),
        ("nas.home", wire.ANY, [bytes((192, 168, 1, 20))]),
        ("x.apps.home", wire.A, [bytes((192, 168, 1, 30))]),
        ("x.y.apps.home", wire.A, [bytes((192, 168, 1, 30))]),
        ("fixed.apps.home", wire.A, [bytes((192, 168, 1, 31))]),
        ("apps.home", wire.A, None),
        ("20.1.168.192.in-addr.arpa", wire.PTR, [b"\3nas\4home\0"]),
        ("30.1.168.192.in-addr.arpa", wire.PTR, None),
        ("shop.example.com", wire.A, [wire.pack_name(name("shop.default.svc.cluster.local"))]),
        ("x.dev.example.com", wire.AAAA, [wire.pack_name(name("web.default.svc.cluster.local"))]),
        ("dev.example.com", wire.A, None),
        ("", wire.A, None),
    ],
)
def test_fixed_names(asked: str, kind: int, wanted: list[bytes] | None) -> None:
    found = read_ours(OURS, OWN, "cluster.local").hosts.answer(name(asked) if asked else (), kind)
    assert ([r.data for r in found.records] if found is not None else None) == wanted


def test_an_empty_table_knows_nothing() -> None:
    assert HostTable().answer(name("nas.home"), wire.A) is None
    assert shown(ours()) == ({}, [])


def test_the_classic_config_map_and_ours_together() -> None:
    data = {"stubDomains": '{"acme.local": ["1.2.3.4"], "corp.example": ["4.3.2.1"]}', "upstreamNameservers": '["8.8.8.8:54"]'}
    classic = read_classic(data, OWN, "cluster.local")
    assert shown(classic) == ({"acme.local": ["1.2.3.4:53"], "corp.example": ["4.3.2.1:53"]}, ["8.8.8.8:54"])
    both = shown(merged(ours(**{"stub-domains": "corp.example: 10.0.0.53"}), classic))
    assert both == ({"acme.local": ["1.2.3.4:53"], "corp.example": ["10.0.0.53:53"]}, ["8.8.8.8:54"])
    assert shown(merged(ours(upstreams="9.9.9.9"), classic))[1] == ["9.9.9.9:53"]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"stub-domain": "x: 1.1.1.1"}, "unknown key 'stub-domain'; there are stub-domains, upstreams, hosts, rewrite"),
        (
            {"stub-domains": "corp.example 10.0.0.53"},
            "stub-domains, line 1: 'corp.example 10.0.0.53' is not 'domain: server, server'",
        ),
        ({"stub-domains": "\ncorp.example: dns.corp"}, "stub-domains, line 2: 'dns.corp' is not an address, nor address:port"),
        ({"stub-domains": "corp.example:"}, "stub-domains, line 1: 0 servers; 1 to 8 are possible"),
        ({"stub-domains": "corp.example: 10.43.0.10"}, "10.43.0.10 is the cluster's own DNS"),
        ({"stub-domains": "svc.cluster.local: 10.0.0.53"}, "svc.cluster.local belongs to the cluster itself"),
        ({"stub-domains": "*.corp: 10.0.0.53"}, "'*.corp' is not a name"),
        ({"upstreams": "one.one"}, "upstreams: 'one.one' is not an address"),
        ({"hosts": "nas 10.0.0.1"}, "hosts, line 1: 'nas' is not an IP address"),
        ({"hosts": "10.0.0.1"}, "hosts, line 1: no name after 10.0.0.1"),
        ({"hosts": "10.0.0.1 a..b"}, "hosts, line 1: 'a..b' is not a name"),
        ({"hosts": "10.0.0.1 " + "a" * 64}, "is not a name"),
        ({"hosts": "10.0.0.1 *"}, "'*' is not a name"),
        ({"rewrite": "a b c"}, "rewrite, line 1: 'a b c' is not 'name target'"),
        ({"rewrite": "a.example *.b"}, "'*.b' is not a name"),
        ({"hosts": "\n".join(f"10.0.0.1 n{n}" for n in range(MOST_NAMES + 1))}, "more than 10000 names"),
        ({"stub-domains": "\n".join(f"n{n}.example: 10.0.0.1" for n in range(257))}, "more than 256 stub domains"),
    ],
)
def test_mistakes(data: dict[str, str], fault: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_ours(data, OWN, "cluster.local")
    assert fault in str(error.value)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"stubDomains": "{"}, "stubDomains: not JSON"),
        ({"stubDomains": "[]"}, "stubDomains: not a JSON object"),
        ({"stubDomains": '{"a.example": "1.1.1.1"}'}, "the servers of 'a.example' are not a list of addresses"),
        ({"upstreamNameservers": "{}"}, "upstreamNameservers: not a JSON list"),
        ({"upstreamNameservers": '["x"]'}, "upstreamNameservers: 'x' is not an address"),
        ({"federations": "{}"}, "unknown key 'federations'"),
    ],
)
def test_classic_mistakes(data: dict[str, str], fault: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_classic(data, OWN, "cluster.local")
    assert fault in str(error.value)
