"""Names with fixed addresses, and names that stand for others.

Owns: looking them up. Called by: dns.resolver, before the zone (what a person wrote) and after it (names of nodes).
Never does: read configuration (settings). Source: CoreDNS's plugins hosts and rewrite; hosts(5).

A name that is here exists: asked for records that it lacks it has none, and nobody else is asked. A `*` as first label
stands for any one or more labels; names in full come first, then the longest.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping

from k1s.net.dns import wire
from k1s.net.dns.answers import TTL, Answer
from k1s.net.dns.wire import Name, Record


class HostTable:
    """Immutable: a change makes a new one."""

    def __init__(self, hosts: Iterable[tuple[str, Iterable[Name]]] = (), aliases: Mapping[Name, Name] | None = None) -> None:
        """`hosts`: (address, names); the first name of an address is what it is called in return."""
        self._addresses: dict[Name, dict[int, list[bytes]]] = {}
        self._pointers: dict[Name, bytes] = {}
        self._aliases = dict(aliases or {})
        for address, names in hosts:
            self._add(address, names)
        self._wild = any(name[:1] == ("*",) for name in (*self._addresses, *self._aliases))

    def _add(self, address: str, names: Iterable[Name]) -> None:
        parsed = ipaddress.ip_address(address)
        kind = wire.AAAA if parsed.version == 6 else wire.A
        data = socket.inet_pton(socket.AF_INET6 if parsed.version == 6 else socket.AF_INET, str(parsed))
        for name in names:
            found = self._addresses.setdefault(name, {}).setdefault(kind, [])
            if data not in found:
                found.append(data)
            if name[0] != "*":
                self._pointers.setdefault(tuple(parsed.reverse_pointer.split(".")), wire.pack_name(name))

    def __len__(self) -> int:
        return len(self._addresses) + len(self._aliases)

    def answer(self, name: Name, kind: int) -> Answer | None:
        """None for what is not here."""
        pointer = self._pointers.get(name)
        if pointer is not None:
            return Answer(records=[Record(name, wire.PTR, TTL, pointer)] if kind in (wire.PTR, wire.ANY) else [])
        for entry in self._candidates(name):
            target = self._aliases.get(entry)
            if target is not None:
                return Answer(records=[Record(name, wire.CNAME, TTL, wire.pack_name(target))], alias=target)
            data = self._addresses.get(entry)
            if data is not None:
                kind = next(iter(data)) if kind == wire.ANY else kind
                return Answer(records=[Record(name, kind, TTL, value) for value in data.get(kind, ())])
        return None

    def _candidates(self, name: Name) -> Iterable[Name]:
        yield name
        if self._wild:
            for at in range(1, len(name)):
                yield ("*", *name[at:])
