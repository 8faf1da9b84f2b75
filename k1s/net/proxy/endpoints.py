"""Which endpoints of a Service a node's proxy may use.

Owns: reading EndpointSlices: conditions, ports, locality, topology hints. Called by: proxy.plan; pure.
Never does: rules. Source: upstream pkg/proxy/topology.go (CategorizeEndpoints), KEP-1669 (terminating endpoints), KEP-2433 and
KEP-3015 (zone and node hints).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from k1s.net.family import Family

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where this proxy runs. `addresses`: the node's own, as its Node object has them."""

    node: str
    zone: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """Targets as `address . port`: `cluster` for traffic that may go anywhere, `local` for what must stay on the node."""

    cluster: tuple[str, ...]
    local: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Endpoint:
    target: str
    ready: bool
    serving: bool
    local: bool
    nodes: tuple[str, ...]
    zones: tuple[str, ...]


def choose(port: Object, slices: Iterable[Object], family: Family, place: Place) -> Choice:
    """The targets of one Service port. Ready ones; where there are none, those that terminate but still serve.

    Hints concern the ready ones only, and only traffic that may go anywhere.
    """
    found = _collect(port, slices, family, place)
    ready = [endpoint for endpoint in found if endpoint.ready]
    return Choice(
        cluster=_targets(_near(ready, place) if ready else _usable(found)),
        local=_targets(_usable([endpoint for endpoint in found if endpoint.local])),
    )


def _usable(endpoints: Sequence[_Endpoint]) -> list[_Endpoint]:
    ready = [endpoint for endpoint in endpoints if endpoint.ready]
    return ready or [endpoint for endpoint in endpoints if endpoint.serving]


def _near(endpoints: Sequence[_Endpoint], place: Place) -> Sequence[_Endpoint]:
    """Follow hints, but only where every endpoint has them: one half rolled out must not black-hole. Node before zone."""
    for here, hints in ((place.node, [e.nodes for e in endpoints]), (place.zone, [e.zones for e in endpoints])):
        if here and all(hints):
            near = [endpoint for endpoint, names in zip(endpoints, hints, strict=True) if here in names]
            if near:
                return near
    return endpoints


def _targets(endpoints: Iterable[_Endpoint]) -> tuple[str, ...]:
    return tuple(sorted({endpoint.target for endpoint in endpoints}))


def _collect(port: Object, slices: Iterable[Object], family: Family, place: Place) -> list[_Endpoint]:
    name, protocol = port.get("name") or "", port.get("protocol") or "TCP"
    found = []
    for piece in slices:
        if piece.get("addressType") != family.kind:
            continue
        for slice_port in piece.get("ports") or ():
            number = slice_port.get("port")
            if (slice_port.get("name") or "") != name or (slice_port.get("protocol") or "TCP") != protocol or not number:
                continue
            # One address that nft refuses would keep every Service's change out of the kernel.
            usable = (raw for raw in piece.get("endpoints") or () if raw.get("addresses") and family.owns(raw["addresses"][0]))
            found += [_endpoint(raw, number, place) for raw in usable]
    return found


def _endpoint(raw: Object, port: int, place: Place) -> _Endpoint:
    conditions, hints = raw.get("conditions") or {}, raw.get("hints") or {}
    # Absent means: ready unknown counts as ready, serving follows ready, terminating no.
    ready = conditions.get("ready") is not False
    serving = conditions.get("serving")
    terminating = conditions.get("terminating") is True
    return _Endpoint(
        target=f"{raw['addresses'][0]} . {port}",
        ready=ready,
        serving=terminating and (ready if serving is None else bool(serving)),
        local=bool(place.node) and raw.get("nodeName") == place.node,
        nodes=tuple(hint.get("name", "") for hint in hints.get("forNodes") or ()),
        zones=tuple(hint.get("name", "") for hint in hints.get("forZones") or ()),
    )
