"""What a person may set of the cluster's DNS, in ConfigMaps of kube-system.

Owns: reading them. Called by: agent.network.dns_settings; pure. Never does: watch, look anything up.

ConfigMap `k1s-dns`, every key optional, `#` begins a comment:

    stub-domains: |          # who is asked for a domain and everything below it, instead of the host's resolvers
      corp.example: 10.0.0.53, 10.0.0.54:5353
      10.in-addr.arpa: 10.0.0.53
    upstreams: 1.1.1.1, 9.9.9.9       # instead of the host's resolvers for everything else
    hosts: |                 # as in /etc/hosts; these win over everything else, also over names of the cluster
      192.168.1.20  nas.home nas
      192.168.1.30  *.apps.home
    rewrite: |               # a name that stands for another (answered as an alias, CNAME)
      shop.example.com  shop.default.svc.cluster.local
      *.dev.example.com  ingress.kube-system.svc.cluster.local

ConfigMap `kube-dns`, as kube-dns took it and CoreDNS's migration documents it: `stubDomains`, JSON of domain to servers, and
`upstreamNameservers`, a JSON list. ConfigMap `coredns-custom`, as k3s takes it: see corefile. What `k1s-dns` says wins over
`kube-dns`, and that over `coredns-custom`.

Bounds: 10,000 names of hosts and rewrites, 256 stub domains, 8 servers each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from k1s.net.dns.hosts import HostTable
from k1s.net.dns.upstream import Upstream, parse_upstream
from k1s.net.dns.wire import Name
from k1s.net.family import parse_address

OURS, CLASSIC, CUSTOM = "k1s-dns", "kube-dns", "coredns-custom"
MOST_NAMES, MOST_STUBS, MOST_SERVERS = 10_000, 256, 8
_KEYS = {OURS: ("stub-domains", "upstreams", "hosts", "rewrite"), CLASSIC: ("stubDomains", "upstreamNameservers")}

Data = Mapping[str, str]
Stubs = dict[Name, list[Upstream]]
# An address and its names.
Host = tuple[str, list[Name]]


class SettingsError(Exception):
    """What is wrong: key, line and what was expected. Nothing of the ConfigMap is taken."""


@dataclass(slots=True)
class Settings:
    stubs: Stubs = field(default_factory=dict)
    upstreams: list[Upstream] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)
    aliases: dict[Name, Name] = field(default_factory=dict)

    def checked(self) -> Settings:
        """Raises SettingsError if it is too much."""
        if sum(len(names) for _, names in self.hosts) + len(self.aliases) > MOST_NAMES:
            raise SettingsError(f"hosts and rewrite: more than {MOST_NAMES} names")
        if len(self.stubs) > MOST_STUBS:
            raise SettingsError(f"more than {MOST_STUBS} stub domains")
        return self

    def table(self) -> HostTable:
        return HostTable(self.hosts, self.aliases)


def read_ours(data: Data, own_addresses: frozenset[str], domain: str) -> Settings:
    """ConfigMap k1s-dns. Raises SettingsError."""
    _check_keys(OURS, data)
    hosts = [host_line(key, line) for key, line in _lines(data, "hosts")]
    aliases = dict(_alias(key, line) for key, line in _lines(data, "rewrite"))
    stubs: Stubs = {}
    for where, line in _lines(data, "stub-domains"):
        name, colon, servers = line.partition(":")
        if not colon:
            raise SettingsError(f"{where}: '{line}' is not 'domain: server, server'")
        stubs[stub_domain(where, name, domain)] = parse_servers(where, servers.replace(",", " ").split(), own_addresses)
    upstreams = [word for _, line in _lines(data, "upstreams") for word in line.replace(",", " ").split()]
    found = parse_servers("upstreams", upstreams, own_addresses) if upstreams else []
    return Settings(stubs, found, hosts, aliases).checked()


def read_classic(data: Data, own_addresses: frozenset[str], domain: str) -> Settings:
    """ConfigMap kube-dns. Raises SettingsError."""
    _check_keys(CLASSIC, data)
    stubs: Stubs = {}
    for name, servers in _json(data, "stubDomains", dict).items():
        if not isinstance(servers, list) or not all(isinstance(server, str) for server in servers):
            raise SettingsError(f"stubDomains: the servers of '{name}' are not a list of addresses")
        stubs[stub_domain("stubDomains", str(name), domain)] = parse_servers("stubDomains", servers, own_addresses)
    upstreams = _json(data, "upstreamNameservers", list)
    return Settings(stubs, parse_servers("upstreamNameservers", upstreams, own_addresses) if upstreams else []).checked()


def merged(*found: Settings) -> Settings:
    """All of them; where two say something of the same name, the first."""
    out = Settings()
    for settings in reversed(found):
        out.stubs |= settings.stubs
        out.upstreams = settings.upstreams or out.upstreams
        known = {name for _, names in settings.hosts for name in names} | set(settings.aliases)
        rest = [(address, [name for name in names if name not in known]) for address, names in out.hosts]
        out.hosts = [*settings.hosts, *((address, names) for address, names in rest if names)]
        out.aliases = {**{a: b for a, b in out.aliases.items() if a not in known}, **settings.aliases}
    return out


def _check_keys(name: str, data: Data) -> None:
    unknown = sorted(set(data) - set(_KEYS[name]))
    if unknown:
        raise SettingsError(f"unknown key '{unknown[0]}'; there are {', '.join(_KEYS[name])}")


def _lines(data: Data, key: str) -> Iterator[tuple[str, str]]:
    """(where, text) of each line that says something."""
    for number, line in enumerate((data.get(key) or "").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if text:
            yield f"{key}, line {number}", text


def _json(data: Data, key: str, kind: type) -> Any:
    text = (data.get(key) or "").strip()
    if not text:
        return kind()
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise SettingsError(f"{key}: not JSON: {error}") from error
    if not isinstance(found, kind):
        raise SettingsError(f"{key}: not a JSON {'object' if kind is dict else 'list'}")
    return found


def host_line(where: str, line: str) -> Host:
    address, *names = line.split()
    if parse_address(address) is None:
        raise SettingsError(f"{where}: '{address}' is not an IP address")
    if not names:
        raise SettingsError(f"{where}: no name after {address}")
    return address, [parse_name(where, name, wild=True) for name in names]


def _alias(where: str, line: str) -> tuple[Name, Name]:
    words = line.split()
    if len(words) != 2:
        raise SettingsError(f"{where}: '{line}' is not 'name target'")
    return parse_name(where, words[0], wild=True), parse_name(where, words[1])


def stub_domain(where: str, text: str, domain: str) -> Name:
    name = parse_name(where, text)
    cluster = tuple(domain.lower().strip(".").split("."))
    if name[-len(cluster) :] == cluster:
        raise SettingsError(f"{where}: {'.'.join(name)} belongs to the cluster itself")
    return name


def parse_servers(where: str, texts: object, own_addresses: frozenset[str]) -> list[Upstream]:
    found = []
    for text in texts if isinstance(texts, list) else ():
        upstream = parse_upstream(text) if isinstance(text, str) else None
        if upstream is None:
            raise SettingsError(f"{where}: '{text}' is not an address, nor address:port")
        if upstream.address in own_addresses:
            raise SettingsError(f"{where}: {upstream.address} is the cluster's own DNS")
        found.append(upstream)
    if not 0 < len(found) <= MOST_SERVERS:
        raise SettingsError(f"{where}: {len(found)} servers; 1 to {MOST_SERVERS} are possible")
    return found


def parse_name(where: str, text: str, *, wild: bool = False) -> Name:
    name = tuple(text.strip().lower().rstrip(".").split("."))
    labels = name[1:] if wild and name[0] == "*" else name
    if not labels or len(text) > 253:
        raise SettingsError(f"{where}: '{text}' is not a name")
    for label in labels:
        if not (0 < len(label) < 64 and label.isascii() and label.replace("-", "").replace("_", "").isalnum()):
            raise SettingsError(f"{where}: '{text}' is not a name")
    return name
