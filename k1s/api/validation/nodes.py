"""Nodes and namespaces.

Called by: table.py. Never does: taint or cordon.
Source: upstream ValidateNode, ValidateNodeUpdate, ValidateNamespace*. Field paths are upstream's, also where they are odd.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.resources import amount
from k1s.api.validation.rules import Errors, named, strings
from k1s.api.validation.scheduling import taints

_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")
_SOURCE_FIELDS = (
    ("namespace", names.dns1123_label),
    ("name", names.dns1123_subdomain),
    ("kubeletConfigKey", names.config_map_key),
)


def node(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    taints(errs, "metadata.taints", spec.get("taints"))
    _resources(errs, obj.get("status") or {})
    blocks = spec.get("podCIDRs") or []
    before = len(errs)
    for index, block in enumerate(blocks):
        strings(errs, f"spec.podCIDRs[{index}]", block, names.cidr)
    if len(blocks) < 2:
        return
    fine = len(errs) == before
    if fine and (len(blocks) > 2 or len({ipaddress.ip_interface(block).version for block in blocks}) < 2):
        errs.append(invalid_value("spec.podCIDRs", blocks, "may specify no more than one CIDR for each IP family"))
    for index, block in enumerate(blocks):
        if block in blocks[:index]:
            errs.append(duplicate(f"spec.podCIDRs[{index}]", block))


def _resources(errs: Errors, status: Object) -> None:
    for which in ("capacity", "allocatable"):
        for name, value in (status.get(which) or {}).items():
            amount(errs, f"status.{which}.{name}", name, value)


def node_update(errs: Errors, obj: Object, old: Object) -> None:
    spec, before, status = obj.get("spec") or {}, old.get("spec") or {}, obj.get("status") or {}
    _resources(errs, status)
    seen: set[tuple[Any, Any]] = set()
    for index, address in enumerate(status.get("addresses") or ()):
        key = (address.get("type"), address.get("address"))
        if key in seen:
            errs.append(duplicate(f"status.addresses[{index}]", address))
        seen.add(key)
    if before.get("podCIDRs") and (spec.get("podCIDRs") or []) != before["podCIDRs"]:
        text = 'node updates may not change podCIDR except from "" to valid'
        errs.append(forbidden_field("spec.podCIDRs", text))
    if before.get("providerID") and (spec.get("providerID") or "") != before["providerID"]:
        text = 'node updates may not change providerID except from "" to valid'
        errs.append(forbidden_field("spec.providerID", text))
    if spec.get("configSource") is not None:
        _config_source(errs, "spec.configSource", spec["configSource"], in_status=False)
    for which in ("assigned", "active", "lastKnownGood"):
        source = (status.get("config") or {}).get(which)
        if source is not None:
            _config_source(errs, f"status.config.{which}", source, in_status=True)
    taints(errs, "metadata.taints", spec.get("taints"))
    if (spec.get("externalID") or "") != (before.get("externalID") or ""):
        errs.append(forbidden_field("spec.externalID", "may not be updated"))


def _config_source(errs: Errors, at: str, source: Object, *, in_status: bool) -> None:
    """Dynamic kubelet configuration: gone, its fields are still judged."""
    found = source.get("configMap")
    if found is None:
        errs.append(invalid_value(at, source, "exactly one reference subfield must be non-nil"))
        return
    for key in ("uid", "resourceVersion"):
        if in_status and not found.get(key):
            errs.append(required(f"{at}.configMap.{key}", f"{key} must be set in status"))
        elif not in_status and found.get(key):
            errs.append(forbidden_field(f"{at}.configMap.{key}", f"{key} must not be set in spec"))
    for key, check in _SOURCE_FIELDS:
        if not found.get(key):
            errs.append(required(f"{at}.configMap.{key}", f"{key} must be set"))
        else:
            named(errs, f"{at}.configMap.{key}", found[key], check)


def _finalizer(errs: Errors, at: str, finalizer: str) -> None:
    strings(errs, at, finalizer, names.qualified_name)
    if "/" not in finalizer and finalizer not in _FINALIZERS:
        errs.append(invalid_value(at, finalizer, "name is neither a standard finalizer name nor is it fully qualified"))


def namespace(errs: Errors, obj: Object) -> None:
    for finalizer in (obj.get("spec") or {}).get("finalizers") or ():
        _finalizer(errs, "spec.finalizers", finalizer)


def namespace_update(errs: Errors, obj: Object, old: Object) -> None:
    """The finalizers are the old ones (the apiserver's strategy), and there is nothing else."""


def namespace_finalize(errs: Errors, obj: Object, old: Object) -> None:
    for index, finalizer in enumerate((obj.get("spec") or {}).get("finalizers") or ()):
        _finalizer(errs, f"spec.finalizers[{index}]", finalizer)


def namespace_status(errs: Errors, obj: Object, old: Object) -> None:
    phase = (obj.get("status") or {}).get("phase") or ""
    if not (obj.get("metadata") or {}).get("deletionTimestamp"):
        if phase != "Active":
            errs.append(invalid_value("status.Phase", phase, "may only be 'Active' if `deletionTimestamp` is empty"))
    elif phase != "Terminating":
        errs.append(invalid_value("status.Phase", phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"))
