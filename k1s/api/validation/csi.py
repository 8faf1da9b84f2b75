"""Storage classes, attributes classes, attachments and the CSI objects.

Called by: table.py. Never does: volumes and claims (storage.py, claims.py).
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, not_supported, required, too_long
from k1s.api.meta import Object
from k1s.api.validation.persistent_volumes import inline_volume_spec
from k1s.api.validation.rules import IMMUTABLE, MAX_INT32, Errors, immutable, non_negative, quantities, same, strings
from k1s.api.validation.selectors import label_selector

_MAX_PARAMETERS = 512
_MAX_BYTES = 256 * 1024
_MAX_MESSAGE = 1024
_MAX_DRIVER = 63
# 192 until v1.23; longer ones are allowed since.
_MAX_NODE_ID = 256
_LONGEST_TOKEN = 2**32
_FS_POLICIES = ("File", "None", "ReadWriteOnceWithFSType")


def driver_name(errs: Errors, at: str, name: Any) -> None:
    """A driver's name, of CSI or of DRA: a subdomain in any case of letters."""
    if not name:
        errs.append(required(at))
        return
    if len(name) > _MAX_DRIVER:
        errs.append(too_long(at, _MAX_DRIVER))
    errs.extend(invalid_value(at, name, message) for message in names.dns1123_subdomain(str(name).lower()))


def _provisioner(errs: Errors, at: str, name: Any) -> None:
    if not name:
        errs.append(required(at))
    else:
        strings(errs, at, str(name).lower(), names.qualified_name)


def _parameters(errs: Errors, at: str, parameters: Any, *, needed: bool) -> None:
    entries = parameters or {}
    if len(entries) > _MAX_PARAMETERS:
        errs.append(too_long(at, _MAX_PARAMETERS))
        return
    if "" in entries:
        errs.append(invalid_value(at, "", "field can not be empty."))
    if sum(len(str(key).encode()) + len(str(value).encode()) for key, value in entries.items()) > _MAX_BYTES:
        errs.append(too_long(at, _MAX_BYTES))
    if needed and not entries:
        errs.append(required(at, "must contain at least one key/value pair"))


def _topologies(errs: Errors, at: str, terms: Any) -> None:
    """allowedTopologies: no term twice."""
    seen: list[dict[str, frozenset[str]]] = []
    for index, term in enumerate(terms or ()):
        here, found = f"{at}[{index}].matchLabelExpressions", dict[str, frozenset[str]]()
        for number, expression in enumerate(term.get("matchLabelExpressions") or ()):
            place, key = f"{here}[{number}]", expression.get("key") or ""
            values = expression.get("values") or []
            if not values:
                errs.append(required(f"{place}.values"))
            for position, value in enumerate(values):
                if value in values[:position]:
                    errs.append(duplicate(f"{place}.values[{position}]", value))
            strings(errs, f"{place}.key", key, names.qualified_name)
            if key in found:
                errs.append(duplicate(f"{place}.key", key))
            found[key] = frozenset(values)
        if found in seen:
            errs.append(duplicate(here, ""))
        seen.append(found)


def storage_class(errs: Errors, obj: Object) -> None:
    _provisioner(errs, "provisioner", obj.get("provisioner"))
    _parameters(errs, "parameters", obj.get("parameters"), needed=False)
    if obj.get("reclaimPolicy") and obj["reclaimPolicy"] not in ("Delete", "Retain"):
        errs.append(not_supported("reclaimPolicy", obj["reclaimPolicy"], ("Delete", "Retain")))
    mode = obj.get("volumeBindingMode")
    if mode is None:
        errs.append(required("volumeBindingMode"))
    elif mode not in ("Immediate", "WaitForFirstConsumer"):
        errs.append(not_supported("volumeBindingMode", mode, ("Immediate", "WaitForFirstConsumer")))
    _topologies(errs, "allowedTopologies", obj.get("allowedTopologies"))


def _kept(errs: Errors, obj: Object, old: Object, *keys: str) -> None:
    for key in keys:
        if not same(obj.get(key), old.get(key)):
            errs.append(forbidden_field(key, f"updates to {key} are forbidden."))


def storage_class_update(errs: Errors, obj: Object, old: Object) -> None:
    _kept(errs, obj, old, "parameters", "provisioner", "reclaimPolicy")
    immutable(errs, "volumeBindingMode", obj.get("volumeBindingMode"), old.get("volumeBindingMode"))


def attributes_class(errs: Errors, obj: Object) -> None:
    _provisioner(errs, "driverName", obj.get("driverName"))
    _parameters(errs, "parameters", obj.get("parameters"), needed=True)


def attributes_class_update(errs: Errors, obj: Object, old: Object) -> None:
    _kept(errs, obj, old, "driverName", "parameters")
    attributes_class(errs, obj)


def csi_driver(errs: Errors, obj: Object) -> None:
    """What must be there, defaults put there; so the update rules call it by other names, as upstream does."""
    spec = obj.get("spec") or {}
    for key, called in (("attachRequired", "attachedRequired"), ("podInfoOnMount", ""), ("storageCapacity", "")):
        if spec.get(key) is None:
            errs.append(required(f"spec.{called or key}"))
    policy = spec.get("fsGroupPolicy")
    if policy is not None and policy not in _FS_POLICIES:
        errs.append(not_supported("spec.fsGroupPolicy", policy, _FS_POLICIES))
    _token_requests(errs, "spec.tokenRequests", spec.get("tokenRequests"))
    for mode in spec.get("volumeLifecycleModes") or ():
        if mode not in ("Persistent", "Ephemeral"):
            errs.append(not_supported("spec.volumeLifecycleModes", mode, ("Persistent", "Ephemeral"), as_given=True))
    if spec.get("seLinuxMount") is None:
        errs.append(required("spec.seLinuxMount"))
    period = spec.get("nodeAllocatableUpdatePeriodSeconds")
    if period is not None and period < 10:
        text = "must be greater than or equal to 10 seconds"
        errs.append(invalid_value("spec.nodeAllocatableUpdatePeriodSeconds", period, text))


def _token_requests(errs: Errors, at: str, items: Any) -> None:
    seen: set[str] = set()
    for index, request in enumerate(items or ()):
        here, audience, seconds = f"{at}[{index}]", request.get("audience") or "", request.get("expirationSeconds")
        if audience in seen:
            errs.append(duplicate(f"{here}.audience", audience))
            continue
        seen.add(audience)
        if seconds is not None and seconds < 600:
            errs.append(invalid_value(f"{here}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"))
        if seconds is not None and seconds > _LONGEST_TOKEN:
            text = "may not specify a duration larger than 2^32 seconds"
            errs.append(invalid_value(f"{here}.expirationSeconds", seconds, text))


def csi_driver_update(errs: Errors, obj: Object, old: Object) -> None:
    csi_driver(errs, obj)
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    immutable(errs, "spec.attachedRequired", spec.get("attachRequired"), before.get("attachRequired"))
    immutable(errs, "spec.volumeLifecycleModes", spec.get("volumeLifecycleModes"), before.get("volumeLifecycleModes"))


def _drivers(obj: Object) -> list[Object]:
    return list((obj.get("spec") or {}).get("drivers") or ())


def csi_node(errs: Errors, obj: Object) -> None:
    seen: set[Any] = set()
    for index, driver in enumerate(_drivers(obj)):
        at, name, identity = f"spec.drivers[{index}]", driver.get("name"), driver.get("nodeID") or ""
        driver_name(errs, f"{at}.name", name)
        if not identity:
            errs.append(required(f"{at}.nodeID"))
        elif len(identity) > _MAX_NODE_ID:
            errs.append(invalid_value(f"{at}.nodeID", identity, f"must be {_MAX_NODE_ID} characters or less"))
        non_negative(errs, f"{at}.allocatable.count", (driver.get("allocatable") or {}).get("count"))
        if name in seen:
            errs.append(duplicate(f"{at}.name", name))
        seen.add(name)
        keys = driver.get("topologyKeys") or []
        for position, key in enumerate(keys):
            if not key:
                errs.append(required(at))
            if key in keys[:position]:
                errs.append(duplicate(at, key))
            strings(errs, at, key, names.qualified_name)


def csi_node_update(errs: Errors, obj: Object, old: Object) -> None:
    """A driver keeps what it said of itself, but for how many volumes it takes."""
    csi_node(errs, obj)
    for before in _drivers(old):
        for driver in _drivers(obj):
            if driver.get("name") == before.get("name"):
                new, was = ({key: value for key, value in d.items() if key != "allocatable"} for d in (driver, before))
                immutable(errs, "spec.drivers", new, was)


def storage_capacity(errs: Errors, obj: Object) -> None:
    label_selector(errs, "nodeTopology", obj.get("nodeTopology"))
    strings(errs, "storageClassName", obj.get("storageClassName") or "", names.dns1123_subdomain)
    if obj.get("capacity") is not None:
        quantities(errs, "capacity", obj["capacity"])


def storage_capacity_update(errs: Errors, obj: Object, old: Object) -> None:
    for key in ("nodeTopology", "storageClassName"):
        immutable(errs, key, obj.get(key), old.get(key))


def volume_attachment(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    driver_name(errs, "spec.attacher", spec.get("attacher"))
    _attached(errs, "spec.source", spec.get("source") or {})
    strings(errs, "spec.nodeName", spec.get("nodeName") or "", names.dns1123_subdomain)
    _attachment_status(errs, obj.get("status") or {})


def _attached(errs: Errors, at: str, source: Object) -> None:
    inline, name = source.get("inlineVolumeSpec"), source.get("persistentVolumeName")
    text = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
    if inline is None and name is None:
        errs.append(required(at, text))
    elif inline is not None and name is not None:
        errs.append(forbidden_field(at, text))
    elif name is not None:
        if not name:
            errs.append(required(f"{at}.persistentVolumeName", "must specify non empty persistentVolumeName"))
        strings(errs, f"{at}.persistentVolumeName", name, names.dns1123_subdomain)
    else:
        inline_volume_spec(errs, f"{at}.inlineVolumeSpec", inline or {}, "")


def _attachment_status(errs: Errors, status: Object) -> None:
    data = status.get("attachmentMetadata") or {}
    if sum(len(str(key).encode()) + len(str(value).encode()) for key, value in data.items()) > _MAX_BYTES:
        errs.append(too_long("status.attachmentMetadata", _MAX_BYTES))
    for key in ("attachError", "detachError"):
        error = status.get(key) or {}
        if len(error.get("message") or "") > _MAX_MESSAGE:
            errs.append(too_long(f"status.{key}.message", _MAX_BYTES))
        code = error.get("errorCode")
        if code is not None and code < 0:
            errs.append(invalid_value(f"status.{key}.errorCode", code, names.inclusive_range(0, MAX_INT32)))


def volume_attachment_update(errs: Errors, obj: Object, old: Object) -> None:
    volume_attachment(errs, obj)
    if not same(obj.get("spec"), old.get("spec")):
        errs.append(invalid_value("spec", obj.get("spec"), IMMUTABLE))


def volume_attachment_status(errs: Errors, obj: Object, old: Object) -> None:
    volume_attachment_update(errs, obj, old)
