"""fieldRef and resourceFieldRef: what a pod may know of itself.

Owns: both lookups. Called by: env, volumes/downward. Never does: I/O. Pure.
Source: pkg/fieldpath, pkg/api/v1/resource/helpers.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from k1s.agent.resources.qos import amount, limits, requests
from k1s.api import quantity

Object = dict[str, Any]
_SUBSCRIPT = re.compile(r"^metadata\.(annotations|labels)\['(.*)'\]$")


class FieldUnknown(ValueError):
    """There is no such field to refer to."""


def field_value(pod: Object, path: str, *, host_ips: tuple[str, ...], pod_ips: tuple[str, ...]) -> str:
    """The text of a fieldRef."""
    meta, spec = pod["metadata"], pod["spec"]
    subscript = _SUBSCRIPT.match(path)
    if subscript is not None:
        return str((meta.get(subscript[1]) or {}).get(subscript[2], ""))
    simple: dict[str, Any] = {
        "metadata.name": meta.get("name"),
        "metadata.namespace": meta.get("namespace"),
        "metadata.uid": meta.get("uid"),
        "spec.nodeName": spec.get("nodeName"),
        "spec.serviceAccountName": spec.get("serviceAccountName"),
        "status.hostIP": host_ips[0] if host_ips else "",
        "status.hostIPs": ",".join(host_ips),
        "status.podIP": pod_ips[0] if pod_ips else "",
        "status.podIPs": ",".join(pod_ips),
    }
    if path in simple:
        return str(simple[path] or "")
    if path in ("metadata.annotations", "metadata.labels"):
        return format_map(meta.get(path.rpartition(".")[2]) or {})
    raise FieldUnknown(f"unsupported fieldPath: {path}")


def format_map(values: Mapping[str, str]) -> str:
    """key="value" lines, sorted, as downward API files hold them."""
    return "\n".join(f"{key}={_quoted(values[key])}" for key in sorted(values))


def _quoted(text: str) -> str:
    out = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return f'"{out}"'


def resource_value(pod: Object, container_name: str, reference: Object, allocatable: Mapping[str, int]) -> str:
    """The number a resourceFieldRef names, in units of its divisor, rounded up; a limit not set is the node's."""
    containers = [*(pod["spec"].get("containers") or []), *(pod["spec"].get("initContainers") or [])]
    name = reference.get("containerName") or container_name
    container = next((c for c in containers if c["name"] == name), None)
    if container is None:
        raise FieldUnknown(f"container {name} not found")
    resource = reference["resource"]
    kind, _, what = resource.partition(".")
    if kind not in ("limits", "requests") or not what:
        raise FieldUnknown(f"unsupported container resource : {resource}")
    value = (limits(container) if kind == "limits" else requests(container)).get(what, 0)
    if kind == "limits" and not value:
        value = allocatable.get(what, 0)
    divisor = amount(what, reference.get("divisor") or "1") or 1
    if not quantity.parse(reference.get("divisor") or "0"):
        divisor = 1000 if what == "cpu" else 1
    return str(-(-value // divisor))
