"""What a kubelet, the scheduler or a controller may say of a pod: no ended container comes back, addresses are addresses.

Called by: table.py. Never does: compare with what runs.
Source: upstream ValidatePodStatusUpdate.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, not_supported
from k1s.api.meta import Object
from k1s.api.validation.pod_annotations import annotation_updates
from k1s.api.validation.rules import Errors, immutable, ip, strings

_OWN_CONDITIONS = ("Initialized", "PodScheduled", "Ready")
_LISTS = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
_HEALTH = ("Healthy", "Unhealthy", "Unknown")
_NOT_BACK = "may not be transitioned to non-terminated state"


def status(errs: Errors, obj: Object, old: Object) -> None:
    """pods/status."""
    found, before = obj.get("status") or {}, old.get("status") or {}
    spec = old.get("spec") or {}
    annotation_updates(errs, obj, old)
    for index, condition in enumerate(found.get("conditions") or ()):
        if condition.get("type") not in _OWN_CONDITIONS:
            # Upstream's own path: it begins at the metadata.
            strings(errs, f"metadata.conditions[{index}].Type", condition.get("type") or "", names.qualified_name)
    if ((obj.get("spec") or {}).get("nodeName") or "") != (spec.get("nodeName") or ""):
        errs.append(forbidden_field("status.nodeName", "may not be changed directly"))
    nominated = found.get("nominatedNodeName")
    if nominated and nominated != before.get("nominatedNodeName"):
        strings(errs, "status.nominatedNodeName", nominated, names.dns1123_subdomain)
    immutable(errs, "status.qosClass", found.get("qosClass"), before.get("qosClass"))
    for key in _LISTS:
        _transitions(errs, f"status.{key}", found.get(key) or (), before.get(key) or (), spec, key)
    _claims(errs, found.get("resourceClaimStatuses") or (), spec)
    _addresses(errs, "status.podIPs", found.get("podIPs") or ())
    _host_addresses(errs, found)
    for key in _LISTS:
        _users(errs, f"status.{key}", found.get(key) or (), spec)
    for key, holder in zip(_LISTS, ("containers", "initContainers", ""), strict=True):
        _allocated(errs, f"status.{key}", found.get(key) or (), spec.get(holder) if holder else None)


def _transitions(errs: Errors, at: str, new: Any, old: Any, spec: Object, key: str) -> None:
    """A container that has ended and is not to be restarted stays ended."""
    policy = "Never" if key == "ephemeralContainerStatuses" else spec.get("restartPolicy")
    running = {c.get("name") for c in new if (c.get("state") or {}).get("terminated") is None}
    for index, container in enumerate(old):
        ended = (container.get("state") or {}).get("terminated")
        if ended is None or container.get("name") not in running:
            continue
        if not _may_restart(container.get("name"), ended.get("exitCode") or 0, policy, spec, key):
            errs.append(forbidden_field(f"{at}[{index}].state", _NOT_BACK))


def _may_restart(name: Any, code: int, policy: Any, spec: Object, key: str) -> bool:
    """By the pod's policy, or the container's own and its rules (KEP-753, KEP-5307)."""
    holder = {"containerStatuses": "containers", "initContainerStatuses": "initContainers"}.get(key)
    for container in (spec.get(holder) or ()) if holder else ():
        if container.get("name") == name and container.get("restartPolicy"):
            policy = container["restartPolicy"]
            if container.get("restartPolicyRules"):
                return True
    if any(c.get("restartPolicyRules") for h in ("containers", "initContainers") for c in spec.get(h) or ()):
        return key != "ephemeralContainerStatuses"
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def _claims(errs: Errors, statuses: Any, spec: Object) -> None:
    known = {claim.get("name") for claim in spec.get("resourceClaims") or ()}
    seen: set[Any] = set()
    for index, entry in enumerate(statuses):
        at, name = f"status.resourceClaimStatuses[{index}].name", entry.get("name") or ""
        if name not in known:
            errs.append(invalid_value(at, name, "must match the name of an entry in `spec.resourceClaims`"))
        if name in seen:
            errs.append(duplicate(at, name))
        seen.add(name)
        if entry.get("resourceClaimName") is not None:
            strings(errs, at, entry["resourceClaimName"], names.dns1123_subdomain)


def _addresses(errs: Errors, at: str, entries: Any) -> None:
    """At most one of each family."""
    before = len(errs)
    for index, entry in enumerate(entries):
        ip(errs, f"{at}[{index}]", entry.get("ip") or "")
    if len(entries) < 2:
        return
    found = [entry.get("ip") or "" for entry in entries]
    if len(errs) == before:
        versions = {ipaddress.ip_address(address).version for address in found}
        if len(versions) < 2 or len(found) > 2:
            errs.append(invalid_value(at, list(entries), "may specify no more than one IP for each IP family"))
    for index, entry in enumerate(entries):
        if found[index] in found[:index]:
            errs.append(duplicate(f"{at}[{index}]", entry))


def _host_addresses(errs: Errors, found: Object) -> None:
    entries = found.get("hostIPs") or ()
    if entries and (found.get("hostIP") or "") != (entries[0].get("ip") or ""):
        errs.append(invalid_value("status.hostIPs[0].ip", entries[0].get("ip") or "", "must be equal to `hostIP`"))
    _addresses(errs, "status.hostIPs", entries)


def _users(errs: Errors, at: str, statuses: Any, spec: Object) -> None:
    windows = (spec.get("os") or {}).get("name") == "windows"
    for index, container in enumerate(statuses):
        user, here = (container.get("user") or {}).get("linux"), f"{at}[{index}].linux"
        if user is None:
            continue
        if windows:
            errs.append(forbidden_field(here, "cannot be set for a windows pod"))
            continue
        ids = [("uid", user.get("uid") or 0), ("gid", user.get("gid") or 0)]
        ids += [(f"supplementalGroups[{n}]", group) for n, group in enumerate(user.get("supplementalGroups") or ())]
        for key, value in ids:
            errs.extend(invalid_value(f"{here}.{key}", value, message) for message in names.group_id(value))


def _allocated(errs: Errors, at: str, statuses: Any, containers: Any) -> None:
    """allocatedResourcesStatus: the health of devices (KEP-4680). `containers` None: these have none."""
    specs = {c.get("name"): c.get("resources") or {} for c in containers or ()}
    for index, container in enumerate(statuses):
        here = f"{at}[{index}].allocatedResourcesStatus"
        entries = container.get("allocatedResourcesStatus") or ()
        if containers is None and at.endswith("ephemeralContainerStatuses"):
            if entries:
                errs.append(forbidden_field(here, "must not be specified in container status"))
            continue
        for number, entry in enumerate(entries):
            if container.get("name") in specs:
                _known_resource(errs, f"{here}[{number}].name", entry.get("name") or "", specs[container.get("name")])
            _health(errs, f"{here}[{number}].resources", entry.get("resources") or ())


def _known_resource(errs: Errors, at: str, name: str, resources: Object) -> None:
    if name.startswith("claim:"):
        text = (
            "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' "
            "or 'claim:<claimName>' if request is empty"
        )
        claims = resources.get("claims") or ()
        known = {f"claim:{c.get('name')}" + (f"/{c['request']}" if c.get("request") else "") for c in claims}
    else:
        text, known = "must match one of the container's resource requests", set(resources.get("requests") or ())
    if name not in known:
        errs.append(invalid_value(at, name, text))


def _health(errs: Errors, at: str, devices: Any) -> None:
    seen: set[Any] = set()
    for index, device in enumerate(devices):
        if device.get("health") not in _HEALTH:
            errs.append(not_supported(f"{at}[{index}].health", device.get("health") or "", _HEALTH))
        if device.get("resourceID") in seen:
            errs.append(duplicate(f"{at}[{index}].resourceID", device.get("resourceID")))
        seen.add(device.get("resourceID"))
