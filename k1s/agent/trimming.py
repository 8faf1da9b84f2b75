"""Services and EndpointSlices as small as a node can have them: 5,000 of each take 15 MB instead of 43.

Owns: what of them nobody on a node reads, and sharing what many have alike. Called by: client.informer, before it keeps one.
Never does: take out what the proxy, DNS, announcements, environments of containers or the client's balancer read.
Equal parts are one object in memory; nobody changes what an informer holds.

Bound: the shared parts are at most 4,096; beyond them parts are not shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from sys import intern
from typing import Any

import orjson

Object = dict[str, Any]

_MOST_SHARED = 4096
_META = ("managedFields", "annotations", "ownerReferences", "finalizers", "generateName", "creationTimestamp", "generation")
# Of a slice's labels: which Service it is of, and whether a proxy may use it.
_SLICE_LABELS = (
    "kubernetes.io/service-name",
    "service.kubernetes.io/service-proxy-name",
    "service.kubernetes.io/headless",
)
# Absent means the same.
_DEFAULTS = {"sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster"}
_UNREAD = ("selector", "ipFamilyPolicy", "ipFamilies", "allocateLoadBalancerNodePorts", "trafficDistribution")


class Trimmer:
    """One informer factory's. `trims` goes to WatchInformers."""

    def __init__(self) -> None:
        self._shared: dict[bytes, Any] = {}

    @property
    def trims(self) -> Mapping[tuple[str, str], Callable[[Object], None]]:
        """(group, plural) -> what to do with an object that was just decoded."""
        return {("", "services"): self.service, ("discovery.k8s.io", "endpointslices"): self.endpoint_slice}

    def service(self, obj: Object) -> None:
        self._common(obj)
        spec = obj.get("spec") or {}
        for field in _UNREAD:
            spec.pop(field, None)
        for field, default in _DEFAULTS.items():
            if spec.get(field) == default:
                del spec[field]
        if spec.get("type"):
            spec["type"] = intern(spec["type"])
        for port in spec.get("ports") or ():
            port.pop("targetPort", None)
        self._share(spec, "ports")
        if spec.get("clusterIPs") == [spec.get("clusterIP")]:
            del spec["clusterIPs"]
        if not (obj.get("status") or {}).get("loadBalancer") and not (obj.get("status") or {}).get("conditions"):
            obj.pop("status", None)

    def endpoint_slice(self, obj: Object) -> None:
        self._common(obj)
        meta = obj["metadata"]
        meta["labels"] = {key: value for key, value in (meta.get("labels") or {}).items() if key in _SLICE_LABELS}
        self._share(obj, "ports")
        for endpoint in obj.get("endpoints") or ():
            for field in ("targetRef", "zone", "deprecatedTopology"):
                endpoint.pop(field, None)
            if endpoint.get("nodeName"):
                endpoint["nodeName"] = intern(endpoint["nodeName"])
            for field in ("conditions", "hints"):
                self._share(endpoint, field)

    def _common(self, obj: Object) -> None:
        meta = obj["metadata"]
        for field in _META:
            meta.pop(field, None)
        if meta.get("namespace"):
            meta["namespace"] = intern(meta["namespace"])
        for field in ("apiVersion", "kind", "addressType"):
            if field in obj:
                obj[field] = intern(obj[field])

    def _share(self, holder: Object, field: str) -> None:
        value = holder.get(field)
        if not value:
            return
        key = orjson.dumps(value)
        known = self._shared.get(key)
        if known is not None:
            holder[field] = known
        elif len(self._shared) < _MOST_SHARED:
            self._shared[key] = value
