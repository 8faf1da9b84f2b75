"""Defaults of the core group, except pods and volumes.

Called by: table.py.
Never does: what the server allocates (cluster IPs, node ports) or what strategies set (namespace label, finalizers).
"""

from __future__ import annotations

from k1s.api.defaults.pod import template
from k1s.api.defaults.resources import canonical_list
from k1s.api.meta import Object

_EXTERNAL = ("NodePort", "LoadBalancer")


def service(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("sessionAffinity"):
        spec["sessionAffinity"] = "None"
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        _client_ip_timeout(spec)
    if not spec.get("type"):
        spec["type"] = "ClusterIP"
    for port in spec.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
        if not port.get("targetPort") and port.get("port") is not None:
            port["targetPort"] = port["port"]
    kind = spec["type"]
    if not spec.get("externalTrafficPolicy") and (kind in _EXTERNAL or (kind == "ClusterIP" and spec.get("externalIPs"))):
        spec["externalTrafficPolicy"] = "Cluster"
    if spec.get("internalTrafficPolicy") is None and (kind in _EXTERNAL or kind == "ClusterIP"):
        spec["internalTrafficPolicy"] = "Cluster"
    balancer = obj.setdefault("status", {}).setdefault("loadBalancer", {})
    if kind == "LoadBalancer":
        if spec.get("allocateLoadBalancerNodePorts") is None:
            spec["allocateLoadBalancerNodePorts"] = True
        for ingress in balancer.get("ingress") or ():
            if ingress.get("ip") and ingress.get("ipMode") is None:
                ingress["ipMode"] = "VIP"


def _client_ip_timeout(spec: Object) -> None:
    config = spec.get("sessionAffinityConfig") or {}
    client_ip = config.get("clientIP") or {}
    if client_ip.get("timeoutSeconds") is None:
        client_ip["timeoutSeconds"] = 10800
    config["clientIP"] = client_ip
    spec["sessionAffinityConfig"] = config


def endpoints(obj: Object) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"


def replication_controller(obj: Object) -> None:
    """The one kind that still copies its template's labels."""
    spec = obj.setdefault("spec", {})
    template(spec)
    labels = spec["template"]["metadata"].get("labels")
    if labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        metadata = obj.setdefault("metadata", {})
        if not metadata.get("labels"):
            metadata["labels"] = dict(labels)
    if spec.get("replicas") is None:
        spec["replicas"] = 1
    obj.setdefault("status", {}).setdefault("replicas", 0)


def secret(obj: Object) -> None:
    if not obj.get("type"):
        obj["type"] = "Opaque"


def namespace(obj: Object) -> None:
    obj.setdefault("spec", {})
    status = obj.setdefault("status", {})
    if not status.get("phase"):
        status["phase"] = "Active"


def node(obj: Object) -> None:
    obj.setdefault("spec", {})
    status = obj.setdefault("status", {})
    canonical_list(status.get("capacity"))
    if status.get("allocatable") is None and status.get("capacity") is not None:
        status["allocatable"] = dict(status["capacity"])
    canonical_list(status.get("allocatable"))


def limit_range(obj: Object) -> None:
    for item in (obj.get("spec") or {}).get("limits") or ():
        for key in ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio"):
            canonical_list(item.get(key))
        if item.get("type") == "Container":
            _container_limits(item)


def _container_limits(item: Object) -> None:
    default = item.get("default") or {}
    request = item.get("defaultRequest") or {}
    for key, value in (item.get("max") or {}).items():
        default.setdefault(key, value)
    for key, value in default.items():
        request.setdefault(key, value)
    for key, value in (item.get("min") or {}).items():
        request.setdefault(key, value)
    if default:
        item["default"] = default
    if request:
        item["defaultRequest"] = request


def resource_quota(obj: Object) -> None:
    canonical_list(obj.setdefault("spec", {}).get("hard"))
    status = obj.setdefault("status", {})
    canonical_list(status.get("hard"))
    canonical_list(status.get("used"))
