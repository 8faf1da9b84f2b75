"""Network policies, service CIDRs and addresses.

Called by: table.py. Never does: ingresses (ingresses.py).
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

from k1s.api import names
from k1s.api.addresses import canonical_cidr, sloppy_cidr
from k1s.api.errors import forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.rules import IMMUTABLE, Errors, immutable, strings
from k1s.api.validation.selectors import label_selector

_PROTOCOLS = ("TCP", "UDP", "SCTP")
_DIRECTIONS = (("ingress", "from"), ("egress", "to"))


def _policy_port(errs: Errors, at: str, entry: Object) -> None:
    protocol, number, end = entry.get("protocol"), entry.get("port"), entry.get("endPort")
    if protocol is not None and protocol not in _PROTOCOLS:
        errs.append(not_supported(f"{at}.protocol", protocol, _PROTOCOLS, as_given=True))
    if number is None:
        if end is not None:
            errs.append(invalid_value(f"{at}.endPort", end, "may not be specified when `port` is not specified"))
    elif isinstance(number, str):
        if end is not None:
            errs.append(invalid_value(f"{at}.endPort", end, "may not be specified when `port` is non-numeric"))
        strings(errs, f"{at}.port", number, names.port_name)
    else:
        errs.extend(invalid_value(f"{at}.port", number, message) for message in names.port_number(number))
        if end is not None:
            if end < number:
                errs.append(invalid_value(f"{at}.endPort", end, "must be greater than or equal to `port`"))
            errs.extend(invalid_value(f"{at}.endPort", end, message) for message in names.port_number(end))


def _block(errs: Errors, at: str, text: str, before: Container[str]) -> None:
    """A CIDR; what stood in the policy before the rules became strict may stay."""
    if text not in before:
        strings(errs, at, text, names.cidr)


def _ip_block(errs: Errors, at: str, block: Object, before: Container[str]) -> None:
    text = block.get("cidr")
    if not text:
        errs.append(required(f"{at}.cidr"))
        return
    _block(errs, f"{at}.cidr", text, before)
    outer = sloppy_cidr(text)
    if outer is None:
        return
    for index, excepted in enumerate(block.get("except") or ()):
        here = f"{at}.except[{index}]"
        _block(errs, here, excepted, before)
        inner = sloppy_cidr(excepted)
        if inner is None:
            continue
        inside = inner.version == outer.version and inner.network_address in outer and inner.prefixlen > outer.prefixlen
        if not inside:
            errs.append(invalid_value(here, excepted, "must be a strict subset of `cidr`"))


def _peer(errs: Errors, at: str, peer: Object, before: Container[str]) -> None:
    given = [key for key in ("podSelector", "namespaceSelector", "ipBlock") if peer.get(key) is not None]
    for key in ("podSelector", "namespaceSelector"):
        label_selector(errs, f"{at}.{key}", peer.get(key))
    if "ipBlock" in given:
        _ip_block(errs, f"{at}.ipBlock", peer["ipBlock"], before)
    if not given:
        errs.append(required(at, "must specify a peer"))
    elif "ipBlock" in given and len(given) > 1:
        errs.append(forbidden_field(at, "may not specify both ipBlock and another peer"))


def network_policy(errs: Errors, obj: Object, before: Container[str] = ()) -> None:
    spec = obj.get("spec") or {}
    label_selector(errs, "spec.podSelector", spec.get("podSelector"))
    for direction, peers in _DIRECTIONS:
        for index, rule in enumerate(spec.get(direction) or ()):
            at = f"spec.{direction}[{index}]"
            for number, entry in enumerate(rule.get("ports") or ()):
                _policy_port(errs, f"{at}.ports[{number}]", entry)
            for number, peer in enumerate(rule.get(peers) or ()):
                _peer(errs, f"{at}.{peers}[{number}]", peer, before)
    kinds = spec.get("policyTypes") or []
    if len(kinds) > 2:
        errs.append(invalid_value("spec.policyTypes", kinds, "may not specify more than two policyTypes"))
        return
    for index, kind in enumerate(kinds):
        if kind not in ("Ingress", "Egress"):
            errs.append(not_supported(f"spec.policyTypes[{index}]", kind, ("Ingress", "Egress"), as_given=True))


def _blocks(obj: Object) -> Iterator[str]:
    spec = obj.get("spec") or {}
    for direction, peers in _DIRECTIONS:
        for rule in spec.get(direction) or ():
            for peer in rule.get(peers) or ():
                block = peer.get("ipBlock") or {}
                yield from (block.get("cidr") or "", *(block.get("except") or ()))


def network_policy_update(errs: Errors, obj: Object, old: Object) -> None:
    network_policy(errs, obj, frozenset(_blocks(old)))


def service_cidr(errs: Errors, obj: Object) -> None:
    at, blocks = "spec.cidrs", (obj.get("spec") or {}).get("cidrs") or []
    if not blocks:
        errs.append(required(at, "at least one CIDR required"))
        return
    if len(blocks) > 2:
        errs.append(invalid_value(at, obj["spec"], "may only hold up to 2 values"))
        return
    for index, block in enumerate(blocks):
        strings(errs, f"{at}[{index}]", block, canonical_cidr)
    families = [network.version for network in map(sloppy_cidr, blocks) if network is not None]
    if len(families) == 2 and families[0] == families[1]:
        text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
        errs.append(invalid_value(at, blocks, text))


def service_cidr_update(errs: Errors, obj: Object, old: Object) -> None:
    """A second family may be added; what there is stays."""
    at = "spec.cidrs"
    new, was = ((o.get("spec") or {}).get("cidrs") or [] for o in (obj, old))
    if len(new) != len(was) and (len(was), len(new)) != (1, 2):
        errs.append(invalid_value(at, new, IMMUTABLE))
        return
    for index, block in enumerate(was):
        if new[index] != block:
            errs.append(invalid_value(f"{at}[{index}]", new[index], IMMUTABLE))
    if len(new) > len(was):
        service_cidr(errs, obj)


def ip_address(errs: Errors, obj: Object) -> None:
    at = "spec.parentRef"
    parent: Any = (obj.get("spec") or {}).get("parentRef")
    if parent is None:
        errs.append(required(at))
        return
    if parent.get("group"):
        strings(errs, f"{at}.group", parent["group"], names.dns1123_subdomain)
    for key in ("resource", "name", "namespace"):
        if parent.get(key):
            strings(errs, f"{at}.{key}", parent[key], names.path_segment_name)
        elif key != "namespace":
            errs.append(required(f"{at}.{key}"))


def ip_address_update(errs: Errors, obj: Object, old: Object) -> None:
    new, was = ((o.get("spec") or {}).get("parentRef") for o in (obj, old))
    immutable(errs, "spec.parentRef", new, was)
