"""A Service's clusterIPs, ipFamilies and ipFamilyPolicy.

Called by: services.py, and the apiserver before it allocates. Never does: know which families the cluster has.
Source: upstream ValidateServiceClusterIPsRelatedFields, validateUpgradeDowngradeClusterIPs and -IPFamilies.
"""

from __future__ import annotations

import ipaddress

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, one_of, strings

FAMILIES = ("IPv4", "IPv6")
POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_EXTERNAL_NAME = "may not be set for ExternalName services"


def cluster_addresses(errs: Errors, spec: Object) -> None:
    addresses, families = spec.get("clusterIPs") or [], spec.get("ipFamilies") or []
    if spec.get("type") == "ExternalName":
        _external_name(errs, spec)
        return
    _first(errs, spec, addresses)
    _families(errs, spec, families)
    if not _valid(errs, addresses):
        return
    if len(addresses) > 2:
        errs.append(invalid_value("spec.clusterIPs", addresses, "may only hold up to 2 values"))
    versions = [ipaddress.ip_address(address).version for address in addresses if address != "None"]
    if len(set(versions)) != len(versions):
        errs.append(invalid_value("spec.clusterIPs", addresses, "may specify no more than one IP for each IP family"))
    if not errs:
        for index, (version, family) in enumerate(zip(versions, families, strict=False)):
            if family != f"IPv{version}":
                text = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
                errs.append(invalid_value(f"spec.clusterIPs[{index}]", addresses[index], text))


def _external_name(errs: Errors, spec: Object) -> None:
    for key in ("clusterIPs", "clusterIP", "ipFamilies", "ipFamilyPolicy"):
        if spec.get(key) and not (key == "clusterIP" and spec.get("clusterIPs")):
            errs.append(forbidden_field(f"spec.{key}", _EXTERNAL_NAME))


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
        one_of(errs, f"spec.ipFamilies[{index}]", family, FAMILIES, needed=True)
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
    if not (spec.get("clusterIP") == before.get("clusterIP") == "None"):
        old = before.get("clusterIPs") or ([before["clusterIP"]] if before.get("clusterIP") else [])
        _kept(errs, spec, "clusterIPs", "clusterIP", spec.get("clusterIPs") or [], old)
    _kept(errs, spec, "ipFamilies", "ipFamily", spec.get("ipFamilies") or [], before.get("ipFamilies") or [])


def _kept(errs: Errors, spec: Object, key: str, what: str, now: list[str], was: list[str]) -> None:
    for index, (new, old) in enumerate(zip(now, was, strict=False)):
        if new != old:
            errs.append(invalid_value(f"spec.{key}[{index}]", now, "may not change once set"))
    if len(now) >= len(was):
        return
    policy = spec.get("ipFamilyPolicy")
    if not now:
        errs.append(invalid_value(f"spec.{key}[0]", now, f"primary {what} can not be unset"))
    elif policy != "SingleStack":
        text = f"must be set to 'SingleStack' when releasing the secondary {what}"
        errs.append(invalid_value("spec.ipFamilyPolicy", policy, text))
