"""ConfigMaps of the DNS: what they mean, and what is said of mistakes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k1s.net.dns import wire
from k1s.net.dns.corefile import read_custom
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
    found = read_ours(OURS, OWN, "cluster.local").table().answer(name(asked) if asked else (), kind)
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


CUSTOM = {
    "log.override": 'log\nerrors {\n  consolidate 5m ".*"\n}\n',
    "names.override": """
        hosts {
          192.168.1.20 nas.home nas   # the shelf
          ttl 60
          fallthrough
        }
        hosts /etc/coredns/custom/more.hosts {
            fallthrough
        }
        rewrite name shop.example.com shop.default.svc.cluster.local
        rewrite stop name exact b.example.com web.default.svc.cluster.local
        forward . 9.9.9.9 1.1.1.1 { max_concurrent 1000
        }
    """.replace("{ max_concurrent", "{\n max_concurrent"),
    "more.hosts": "# more\n192.168.1.30\tprinter.home\n",
    "office.server": """
        corp.example:53 lab.example {
            errors
            cache 30
            forward . 10.0.0.53 10.0.0.54:5353 {
                policy sequential
            }
        }
        host.example {
            forward . /etc/resolv.conf
        }
    """,
}


def test_what_k3s_users_have() -> None:
    found = read_custom(CUSTOM, OWN, "cluster.local")
    office = ["10.0.0.53:53", "10.0.0.54:5353"]
    assert shown(found) == ({"corp.example": office, "lab.example": office}, ["9.9.9.9:53", "1.1.1.1:53"])
    assert found.hosts == [
        ("192.168.1.20", [("nas", "home"), ("nas",)]),
        ("192.168.1.30", [("printer", "home")]),
    ]
    assert found.aliases == {
        name("shop.example.com"): name("shop.default.svc.cluster.local"),
        name("b.example.com"): name("web.default.svc.cluster.local"),
    }


def test_names_that_are_said_twice() -> None:
    first = ours(hosts="10.0.0.1 nas printer", rewrite="shop.example web.default.svc.cluster.local")
    second = read_custom({"a.override": "hosts {\n10.0.0.2 nas\n10.0.0.2 shop.example scanner\n}"}, OWN, "cluster.local")
    table = merged(first, Settings(), second).table()
    for asked, data in (("nas", [b"\x0a\0\0\1"]), ("printer", [b"\x0a\0\0\1"]), ("scanner", [b"\x0a\0\0\2"])):
        answer = table.answer(name(asked), wire.A)
        assert answer is not None and [r.data for r in answer.records] == data
    alias = table.answer(name("shop.example"), wire.A)
    assert alias is not None and alias.alias == name("web.default.svc.cluster.local")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("template IN A {\n answer x\n}", "x.override, line 1: 'template' is not something k1s' DNS does; see ConfigMap k1s-dns"),
        ("kubernetes cluster.local", "'kubernetes' is not something"),
        ("\nforward . tls://9.9.9.9", "x.override, line 2: 'tls://9.9.9.9' is not an address"),
        ("forward .", "'forward .' is not 'forward . server'"),
        ("forward . 10.43.0.10", "10.43.0.10 is the cluster's own DNS"),
        ("forward cluster.local 10.0.0.1", "cluster.local belongs to the cluster itself"),
        ("hosts /etc/hosts", "'/etc/hosts' is no key of the ConfigMap"),
        ("hosts {\n nas 10.0.0.1\n}", "x.override, line 2: 'nas' is not an IP address"),
        ("rewrite name suffix a.example b.example", "only 'rewrite name exact FROM TO'"),
        ("rewrite name a.example", "only 'rewrite name exact FROM TO'"),
        ("log {", "x.override: a block is not closed"),
        ("}", "x.override, line 1: a '}' that closes nothing"),
        ("log { class error }", "braces end a line or stand alone"),
        ("a {\nb {\nc {\nd {\ne {\n", "blocks in blocks in blocks"),
    ],
)
def test_mistakes_in_a_corefile(text: str, fault: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_custom({"x.override": text}, OWN, "cluster.local")
    assert fault in str(error.value)


def test_zones_of_server_blocks() -> None:
    with pytest.raises(SettingsError, match="only names of domains on port 53"):
        read_custom({"x.server": "corp.example:5353 {\n forward . 10.0.0.1\n}"}, OWN, "cluster.local")
    found = read_custom({"x.server": ".:53 {\n forward corp.example dns://10.0.0.1\n}"}, OWN, "cluster.local")
    assert shown(found) == ({"corp.example": ["10.0.0.1:53"]}, [])


@given(st.text(alphabet='ahosts {}\n"#.10:forward', max_size=120))
def test_any_text_is_read_or_refused(text: str) -> None:
    for key in ("x.override", "x.server"):
        try:
            read_custom({key: text, "hosts": text}, OWN, "cluster.local")
        except SettingsError:
            pass
    for read, names in ((read_ours, ("stub-domains", "upstreams", "hosts", "rewrite")), (read_classic, ("stubDomains",))):
        for key in names:
            try:
                read({key: text}, OWN, "cluster.local")
            except SettingsError:
                pass
