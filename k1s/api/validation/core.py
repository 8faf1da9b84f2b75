"""Namespaces, nodes, service accounts and events.

Called by: table.py. Never does: pods, services, config (their own files).
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.resources import resource_name
from k1s.api.validation.rules import Errors, one_of, quantities, strings
from k1s.api.validation.scheduling import taints


def namespace(errs: Errors, obj: Object) -> None:
    for index, finalizer in enumerate((obj.get("spec") or {}).get("finalizers") or ()):
        at = f"spec.finalizers[{index}]"
        strings(errs, at, finalizer, names.qualified_name)
        if "/" not in finalizer and finalizer not in ("kubernetes", "orphan", "foregroundDeletion"):
            text = "name is neither a standard finalizer name nor is it fully qualified"
            errs.append(invalid_value(at, finalizer, text))


def namespace_finalize(errs: Errors, obj: Object, old: Object) -> None:
    namespace(errs, obj)


def namespace_status(errs: Errors, obj: Object, old: Object) -> None:
    phase = (obj.get("status") or {}).get("phase") or ""
    if not (obj.get("metadata") or {}).get("deletionTimestamp"):
        if phase != "Active":
            errs.append(invalid_value("status.phase", phase, "may only be 'Active' if `deletionTimestamp` is empty"))
    elif phase != "Terminating":
        errs.append(invalid_value("status.phase", phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"))


def _pod_cidrs(errs: Errors, spec: Object) -> None:
    blocks = spec.get("podCIDRs") or []
    if len(blocks) > 2:
        errs.append(invalid_value("spec.podCIDRs", blocks, "may specify no more than one CIDR for each IP family"))
    for index, block in enumerate(blocks):
        strings(errs, f"spec.podCIDRs[{index}]", block, names.cidr)
    if blocks and spec.get("podCIDR") and blocks[0] != spec["podCIDR"]:
        errs.append(invalid_value("spec.podCIDRs", blocks, "first value must match `podCIDR`"))


def node(errs: Errors, obj: Object) -> None:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    taints(errs, "metadata.taints", spec.get("taints"))
    _pod_cidrs(errs, spec)
    _node_status(errs, status)


def _node_status(errs: Errors, status: Object) -> None:
    for which in ("capacity", "allocatable"):
        for name, amount in (status.get(which) or {}).items():
            at = f"status.{which}[{name}]"
            resource_name(errs, at, name)
            quantities(errs, at, amount)
    seen: set[tuple[Any, Any]] = set()
    for index, address in enumerate(status.get("addresses") or ()):
        key = (address.get("type"), address.get("address"))
        if key in seen:
            errs.append(duplicate(f"status.addresses[{index}]", address))
        seen.add(key)


def node_update(errs: Errors, obj: Object, old: Object) -> None:
    node(errs, obj)
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    for key, field in (("podCIDR", "podCIDRs"), ("providerID", "providerID")):
        if before.get(key) and spec.get(key) != before[key]:
            text = f'node updates may not change {key} except from "" to valid'
            errs.append(forbidden_field(f"spec.{field}", text))


def node_status(errs: Errors, obj: Object, old: Object) -> None:
    _node_status(errs, obj.get("status") or {})


def event(errs: Errors, obj: Object) -> None:
    """The rules of core/v1 events: light, so that reporters are not turned away."""
    place = (obj.get("metadata") or {}).get("namespace") or ""
    about = (obj.get("involvedObject") or {}).get("namespace") or ""
    fine = place in ("", "default") if not about else place == about
    if not fine:
        errs.append(invalid_value("involvedObject.namespace", about, "does not match event.namespace"))


def _limited(errs: Errors, field: str, value: Any, most: int) -> None:
    if not value:
        errs.append(required(field))
    elif len(value) > most:
        errs.append(invalid_value(field, value, f"can have at most {most} characters"))


def new_event(errs: Errors, obj: Object) -> None:
    """The rules of events.k8s.io/v1."""
    place = (obj.get("metadata") or {}).get("namespace") or ""
    about = (obj.get("regarding") or {}).get("namespace") or ""
    if (place not in ("", "default", "kube-system")) if not about else place != about:
        errs.append(invalid_value("regarding.namespace", about, "does not match event.namespace"))
    if not obj.get("eventTime"):
        errs.append(required("eventTime"))
    if not obj.get("reportingController"):
        errs.append(required("reportingController"))
    else:
        strings(errs, "reportingController", obj["reportingController"], names.qualified_name)
    _limited(errs, "reportingInstance", obj.get("reportingInstance"), 128)
    _limited(errs, "action", obj.get("action"), 128)
    _limited(errs, "reason", obj.get("reason"), 128)
    if len(obj.get("note") or "") > 1024:
        errs.append(invalid_value("note", "", "can have at most 1024 characters"))
    one_of(errs, "type", obj.get("type"), ("Normal", "Warning"), needed=True)
