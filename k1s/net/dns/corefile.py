"""k3s' ConfigMap kube-system/coredns-custom, as far as it says what k1s' DNS can do.

Owns: reading Corefile text into Settings. Called by: agent.network.dns_settings; pure. Never does: guess: a directive that
would change answers and is not known here is an error, and nothing of the ConfigMap is taken.

Keys `*.override` hold directives for everything, `*.server` server blocks (`corp.example:53 { ... }`); other keys are files
that `hosts` may name. Understood: `forward` to addresses, `hosts` with lines or a file of the ConfigMap, `rewrite name
[exact]`. Passed over, because k1s does it anyway or has no use for it: _PASSED_OVER. Source: CoreDNS's Corefile manual, k3s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from k1s.net.dns.settings import (
    Data,
    Host,
    Settings,
    SettingsError,
    host_line,
    parse_name,
    parse_servers,
    stub_domain,
)
from k1s.net.dns.wire import Name

_PASSED_OVER = frozenset(
    ("errors", "log", "cache", "loop", "reload", "loadbalance", "health", "ready", "prometheus", "bufsize", "minimal", "any",
     "debug", "lameduck", "pprof", "timeouts", "metadata", "cancel", "chaos")
)  # fmt: skip
_HOSTS_OPTIONS = ("fallthrough", "ttl", "reload", "no_reverse")
_DEEPEST = 4


@dataclass(slots=True)
class _Directive:
    """A line, and the lines in the block behind it."""

    words: list[str]
    where: str
    block: list[_Directive] = field(default_factory=list)


def read_custom(data: Data, own_addresses: frozenset[str], domain: str) -> Settings:
    """ConfigMap coredns-custom. Raises SettingsError."""
    found = _Reader(data, own_addresses, domain)
    for key in sorted(data):
        if key.endswith(".override"):
            for directive in _parse(key, data[key]):
                found.directive(directive, ())
        elif key.endswith(".server"):
            for directive in _parse(key, data[key]):
                found.server(directive)
    return found.settings.checked()


def _parse(key: str, text: str) -> list[_Directive]:
    stack: list[list[_Directive]] = [[]]
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{key}, line {number}"
        words = [word.strip('"') for word in line.partition("#")[0].split()]
        if words == ["}"]:
            if len(stack) == 1:
                raise SettingsError(f"{where}: a '}}' that closes nothing")
            stack.pop()
            continue
        if not words:
            continue
        opens = words[-1].endswith("{")
        if opens:
            words = [word for word in (*words[:-1], words[-1][:-1]) if word]
        if not words or any("{" in word or "}" in word for word in words):
            raise SettingsError(f"{where}: '{line.strip()}' is not understood; braces end a line or stand alone")
        directive = _Directive(words, where)
        stack[-1].append(directive)
        if opens:
            if len(stack) > _DEEPEST:
                raise SettingsError(f"{where}: blocks in blocks in blocks")
            stack.append(directive.block)
    if len(stack) > 1:
        raise SettingsError(f"{key}: a block is not closed")
    return stack[0]


class _Reader:
    def __init__(self, data: Data, own_addresses: frozenset[str], domain: str) -> None:
        self._data, self._own, self._domain = data, own_addresses, domain
        self.settings = Settings()

    def server(self, block: _Directive) -> None:
        """`corp.example:53 lab.example { ... }`"""
        for text in block.words:
            zone = self._zone(block.where, text.rstrip(","))
            for directive in block.block:
                self.directive(directive, zone)

    def _zone(self, where: str, text: str) -> Name:
        name, _, port = text.removeprefix("dns://").partition(":")
        if "/" in name or port not in ("", "53"):
            raise SettingsError(f"{where}: '{text}': only names of domains on port 53 are possible")
        return () if name == "." else parse_name(where, name)

    def directive(self, directive: _Directive, zone: Name) -> None:
        match directive.words[0]:
            case "forward" | "proxy":
                self._forward(directive, zone)
            case "hosts":
                self._hosts(directive)
            case "rewrite":
                self._rewrite(directive)
            case name if name not in _PASSED_OVER:
                raise SettingsError(
                    f"{directive.where}: '{name}' is not something k1s' DNS does; see ConfigMap k1s-dns for what is"
                )

    def _forward(self, directive: _Directive, zone: Name) -> None:
        words, where = directive.words, directive.where
        if len(words) < 3:
            raise SettingsError(f"{where}: '{' '.join(words)}' is not 'forward . server'")
        source = zone if words[1] in (".", "/") else parse_name(where, words[1])
        if [word.startswith("/") for word in words[2:]] == [True]:
            return  # a resolv.conf: the host's resolvers are asked anyway
        servers = parse_servers(where, [word.removeprefix("dns://") for word in words[2:]], self._own)
        if source:
            self.settings.stubs[stub_domain(where, ".".join(source), self._domain)] = servers
        else:
            self.settings.upstreams = servers

    def _hosts(self, directive: _Directive) -> None:
        lines: list[tuple[str, Sequence[str]]] = []
        for path in directive.words[1:2]:
            if "/" in path:
                name = path.rpartition("/")[2]
                if name not in self._data:
                    raise SettingsError(f"{directive.where}: '{path}' is no key of the ConfigMap")
                text = [line.partition("#")[0].split() for line in self._data[name].splitlines()]
                lines += [(f"{name}, line {number}", words) for number, words in enumerate(text, 1) if words]
        lines += [(row.where, row.words) for row in directive.block if row.words[0] not in _HOSTS_OPTIONS]
        found: list[Host] = [host_line(where, " ".join(words)) for where, words in lines]
        self.settings.hosts += found

    def _rewrite(self, directive: _Directive) -> None:
        words = [word for word in directive.words[1:] if word not in ("stop", "continue")]
        if words[:1] == ["name"]:
            words = words[1:]
            if words[:1] == ["exact"]:
                words = words[1:]
            if len(words) == 2 and words[0] not in ("prefix", "suffix", "substring", "regex"):
                self.settings.aliases[parse_name(directive.where, words[0])] = parse_name(directive.where, words[1])
                return
        raise SettingsError(f"{directive.where}: of rewrites only 'rewrite name exact FROM TO' is possible")
