"""A Service's clusterIPs, ipFamilies and ipFamilyPolicy.

Called by: service.py, and the apiserver before it allocates. Never does: know which families the cluster has.
Source: upstream ValidateServiceClusterIPsRelatedFields, validateUpgradeDowngradeClusterIPs and -IPFamilies.
"""

from __future__ import annotations

import ipaddress

from k1s.api import names
from k1s.api.errors import duplicate, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, one_of, strings

FAMILIES = ("IPv4", "IPv6")
POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")


def headless(spec: Object) -> bool:
    return (spec.get("clusterIPs") or []) == ["None"]


def usable_address(errs: Errors, field: str, address: str) -> None:
    """An address that can be an endpoint: not loopback, link-local, unspecified."""
    before = len(errs)
    strings(errs, field, address, names.ip_address)
    if len(errs) > before:
        return
    parsed = ipaddress.ip_address(address)
    if parsed.is_unspecified:
        errs.append(invalid_value(field, address, f"may not be unspecified ({address})"))
    if parsed.is_loopback:
        errs.append(invalid_value(field, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
    if parsed.is_link_local:
        errs.append(invalid_value(field, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
    if parsed.is_multicast and (parsed.packed[:3] == b"\xe0\0\0" or parsed.packed[:2] == b"\xff\x02"):
        errs.append(invalid_value(field, address, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"))


def cluster_addresses(errs: Errors, spec: Object) -> None:
    """All three fields together; a Service of type ExternalName has none of them, which is judged elsewhere."""
    if spec.get("type") == "ExternalName":
        return
    addresses, families = spec.get("clusterIPs") or [], spec.get("ipFamilies") or []
    _first(errs, spec, addresses)
    _families(errs, spec, families)
    fine = _valid(errs, addresses)
    if len(addresses) > 2:
        errs.append(invalid_value("spec.clusterIPs", addresses, "may only hold up to 2 values"))
    if not fine:
        return
    versions = [ipaddress.ip_address(address).version for address in addresses if address != "None"]
    if len(versions) > 1 and len(set(versions)) < 2:
        errs.append(invalid_value("spec.clusterIPs", addresses, "may specify no more than one IP for each IP family"))
    for index, (version, family) in enumerate(zip(versions, families, strict=False)):
        if family in FAMILIES and family != f"IPv{version}":
            text = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
            errs.append(invalid_value(f"spec.clusterIPs[{index}]", addresses[index], text))


def _first(errs: Errors, spec: Object, addresses: list[str]) -> None:
    """clusterIP is the older name of clusterIPs[0]."""
    first = spec.get("clusterIP")
    if first and not addresses:
        errs.append(required("spec.clusterIPs"))
    elif not first and addresses:
        errs.append(invalid_value("spec.clusterIPs", addresses, "must be empty when `clusterIP` is not specified"))
    elif addresses and addresses[0] != first:
        errs.append(invalid_value("spec.clusterIPs", addresses, "first value must match `clusterIP`"))


def _families(errs: Errors, spec: Object, families: list[str]) -> None:
    seen: set[str] = set()
    for index, family in enumerate(families):
        if family not in FAMILIES:
            errs.append(not_supported(f"spec.ipFamilies[{index}]", family, FAMILIES))
        if family in seen:
            errs.append(duplicate(f"spec.ipFamilies[{index}]", family))
        seen.add(family)
    one_of(errs, "spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), POLICIES)


def _valid(errs: Errors, addresses: list[str]) -> bool:
    before = len(errs)
    for index, address in enumerate(addresses):
        if index == 0 and address == "None":
            if len(addresses) > 1:
                errs.append(invalid_value("spec.clusterIPs", addresses, "'None' must be the first and only value"))
        else:
            strings(errs, f"spec.clusterIPs[{index}]", address, names.ip_address)
    return len(errs) == before


def cluster_addresses_update(errs: Errors, spec: Object, before: Object) -> None:
    """A second address and family may come and go, with ipFamilyPolicy; the first ones stay, but through ExternalName."""
    if "ExternalName" in (spec.get("type"), before.get("type")):
        return
    is_headless, was_headless = headless(spec), headless(before)
    if not (is_headless and was_headless):
        _kept(errs, spec, "clusterIPs", "clusterIP", spec.get("clusterIPs") or [], before.get("clusterIPs") or [])
    if not is_headless and not was_headless:
        _kept(errs, spec, "ipFamilies", "ipFamily", spec.get("ipFamilies") or [], before.get("ipFamilies") or [])


def _kept(errs: Errors, spec: Object, key: str, what: str, now: list[str], was: list[str]) -> None:
    compared = len(was) if len(now) == len(was) else 1
    for index, (new, old) in enumerate(zip(now[:compared], was[:compared], strict=False)):
        if new != old:
            at = index if key == "clusterIPs" else 0
            errs.append(invalid_value(f"spec.{key}[{at}]", now, "may not change once set"))
    if len(now) >= len(was):
        return
    policy = spec.get("ipFamilyPolicy")
    if not (now if key == "clusterIPs" else spec.get("clusterIPs")):
        errs.append(invalid_value(f"spec.{key}[0]", now, f"primary {what} can not be unset"))
    if len(now) == 1 and policy != "SingleStack":
        text = f"must be set to 'SingleStack' when releasing the secondary {what}"
        errs.append(invalid_value("spec.ipFamilyPolicy", policy, text))
