"""ipBlocks as spans of addresses.

Owns: Span, and the arithmetic of cidr and except. Called by: policy.model. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from k1s.net.family import parse_network


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """All addresses from `first` to `last`, both included."""

    version: int
    first: int
    last: int

    def __str__(self) -> str:
        """As nft takes it: a prefix where it is one."""
        kind = ipaddress.IPv4Address if self.version == 4 else ipaddress.IPv6Address
        first, last = kind(self.first), kind(self.last)
        if first == last:
            return str(first)
        networks = list(ipaddress.summarize_address_range(first, last))
        return str(networks[0]) if len(networks) == 1 else f"{first}-{last}"


def spans(blocks: Iterable[tuple[str, Sequence[str]]]) -> tuple[Span, ...]:
    """What (cidr, excepts) pairs hold together: sorted, apart from each other."""
    found: list[Span] = []
    for cidr, excepts in blocks:
        network = parse_network(cidr)
        if network is None:
            continue
        left = [Span(network.version, int(network.network_address), int(network.broadcast_address))]
        for text in excepts:
            hole = parse_network(text)
            if hole is not None and hole.version == network.version:
                left = [
                    piece for span in left for piece in _without(span, int(hole.network_address), int(hole.broadcast_address))
                ]
        found += left
    return _united(found)


def _without(span: Span, first: int, last: int) -> list[Span]:
    if last < span.first or first > span.last:
        return [span]
    before = [Span(span.version, span.first, first - 1)] if first > span.first else []
    after = [Span(span.version, last + 1, span.last)] if last < span.last else []
    return before + after


def _united(found: list[Span]) -> tuple[Span, ...]:
    united: list[Span] = []
    for span in sorted(found):
        top = united[-1] if united else None
        if top is not None and top.version == span.version and span.first <= top.last + 1:
            united[-1] = Span(top.version, top.first, max(top.last, span.last))
        else:
            united.append(span)
    return tuple(united)
