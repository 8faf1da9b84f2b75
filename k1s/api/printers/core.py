"""Nodes, namespaces, events, config and secrets, limits and quotas.

Called by: api/table.py. Never does: pods, workloads, services (their own files).
"""

from __future__ import annotations

from typing import Any

from k1s.api.meta import Object
from k1s.api.printers.columns import (
    AGE,
    CREATED_AT,
    NAME,
    NONE,
    UNKNOWN,
    Printer,
    age,
    column,
    created_at,
    metadata,
    name,
    seconds,
    since,
    spec,
    status,
)

_ROLE_PREFIX = "node-role.kubernetes.io/"
_ROLE_LABEL = "kubernetes.io/role"


def _node_status(obj: Object) -> str:
    ready = next((c for c in status(obj).get("conditions") or () if c.get("type") == "Ready"), None)
    text = "Unknown" if ready is None else ("Ready" if ready.get("status") == "True" else "NotReady")
    return f"{text},SchedulingDisabled" if spec(obj).get("unschedulable") else text


def _node_roles(obj: Object) -> str:
    roles = set()
    for key, value in (metadata(obj).get("labels") or {}).items():
        if key.startswith(_ROLE_PREFIX) and len(key) > len(_ROLE_PREFIX):
            roles.add(key.removeprefix(_ROLE_PREFIX))
        elif key == _ROLE_LABEL and value:
            roles.add(value)
    return ",".join(sorted(roles)) or NONE


def _node_address(obj: Object, kind: str) -> str:
    addresses = status(obj).get("addresses") or ()
    return next((a.get("address") or NONE for a in addresses if a.get("type") == kind), NONE)


def _node(obj: Object, now: float) -> list[Any]:
    info = status(obj).get("nodeInfo") or {}
    return [
        name(obj),
        _node_status(obj),
        _node_roles(obj),
        age(obj, now),
        info.get("kubeletVersion") or "",
        _node_address(obj, "InternalIP"),
        _node_address(obj, "ExternalIP"),
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _namespace(obj: Object, now: float) -> list[Any]:
    return [name(obj), status(obj).get("phase") or "", age(obj, now)]


def _event_source(obj: Object) -> str:
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    component = source.get("component") or obj.get("reportingComponent") or obj.get("reportingController") or ""
    host = source.get("host") or ""
    return f"{component}, {host}" if host else component


def _event(obj: Object, now: float) -> list[Any]:
    target = obj.get("involvedObject") or obj.get("regarding") or {}
    kind = str(target.get("kind") or "").lower()
    begun = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp")
    first = since(begun if seconds(begun) is not None else obj.get("eventTime"), now)
    ended = obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp")
    last = since(ended, now) if seconds(ended) is not None else first
    count = obj.get("count") or obj.get("deprecatedCount") or 1
    series = obj.get("series")
    if series:
        last, count = since(series.get("lastObservedTime"), now), series.get("count") or 0
    return [
        last,
        obj.get("type") or "",
        obj.get("reason") or "",
        f"{kind}/{target['name']}" if target.get("name") else kind,
        target.get("fieldPath") or "",
        _event_source(obj),
        str(obj.get("message") or obj.get("note") or "").strip(),
        first,
        count,
        name(obj),
    ]


def _config_map(obj: Object, now: float) -> list[Any]:
    return [name(obj), len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), age(obj, now)]


def _secret(obj: Object, now: float) -> list[Any]:
    return [name(obj), obj.get("type") or "", len(obj.get("data") or ()), age(obj, now)]


def _service_account(obj: Object, now: float) -> list[Any]:
    return [name(obj), len(obj.get("secrets") or ()), age(obj, now)]


def _name_created(obj: Object, now: float) -> list[Any]:
    return [name(obj), created_at(obj)]


def _resource_quota(obj: Object, now: float) -> list[Any]:
    hard, used = status(obj).get("hard") or {}, status(obj).get("used") or {}
    requests: list[str] = []
    limits: list[str] = []
    for key in sorted(hard):
        shown = f"{key}: {used.get(key, '0')}/{hard[key]}"
        (limits if key.startswith("limits") else requests).append(shown)
    return [name(obj), ", ".join(requests), ", ".join(limits), age(obj, now)]


def _component_status(obj: Object, now: float) -> list[Any]:
    health = next((c for c in obj.get("conditions") or () if c.get("type") == "Healthy"), None)
    if health is None:
        return [name(obj), "Unknown", "", ""]
    text = "Healthy" if health.get("status") == "True" else "Unhealthy"
    return [name(obj), text, health.get("message") or "", health.get("error") or ""]


def _wide(name: str, description: str) -> dict[str, Any]:
    return column(name, description, wide=True)


_EVENT = Printer(
    (
        column("Last Seen", "When the event was last observed."),
        column("Type", "Normal, Warning; new types could be added in the future."),
        column("Reason", "Why the object went into its state."),
        column("Object", "The object this event is about."),
        _wide("Subobject", "The part of the object."),
        _wide("Source", "The component that reported the event."),
        column("Message", "What happened."),
        _wide("First Seen", "When the event was first observed."),
        _wide("Count", "How often the event occurred."),
        {**_wide("Name", NAME["description"]), "format": "name"},
    ),
    _event,
)

PRINTERS = {
    ("", "Node"): Printer(
        (
            NAME,
            column("Status", "The status of the node"),
            column("Roles", "The roles of the node"),
            AGE,
            column("Version", "Kubelet Version reported by the node."),
            _wide("Internal-IP", "Address of the node inside the cluster."),
            _wide("External-IP", "Address of the node outside the cluster."),
            _wide("OS-Image", "OS Image reported by the node from /etc/os-release."),
            _wide("Kernel-Version", "Kernel Version reported by the node."),
            _wide("Container-Runtime", "ContainerRuntime Version reported by the node."),
        ),
        _node,
    ),
    ("", "Namespace"): Printer((NAME, column("Status", "The status of the namespace"), AGE), _namespace),
    ("", "Event"): _EVENT,
    ("events.k8s.io", "Event"): _EVENT,
    ("", "ConfigMap"): Printer((NAME, column("Data", "Number of keys."), AGE), _config_map),
    ("", "Secret"): Printer((NAME, column("Type", "Type of the secret."), column("Data", "Number of keys."), AGE), _secret),
    ("", "ServiceAccount"): Printer((NAME, column("Secrets", "Number of secrets."), AGE), _service_account),
    ("", "LimitRange"): Printer((NAME, CREATED_AT), _name_created),
    ("", "ResourceQuota"): Printer(
        (
            NAME,
            column("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
            column("Limit", "Limits control the maximum amount of cpu/memory that a container may use."),
            AGE,
        ),
        _resource_quota,
    ),
    ("", "ComponentStatus"): Printer(
        (
            NAME,
            column("Status", "Status of the component conditions"),
            column("Message", "Message of the component conditions"),
            column("Error", "Error of the component conditions"),
        ),
        _component_status,
    ),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): Printer((NAME, CREATED_AT), _name_created),
    ("rbac.authorization.k8s.io", "Role"): Printer((NAME, CREATED_AT), _name_created),
    ("rbac.authorization.k8s.io", "ClusterRole"): Printer((NAME, CREATED_AT), _name_created),
}

DEFAULT = Printer((NAME, AGE), lambda obj, now: [name(obj), age(obj, now)])
