"""Where a Service can be reached from this process: its ready endpoints, since the server does not live in the cluster's network.

Owns: ServiceResolver. Called by: aggregation, conversion, whoever has a clientConfig.service. Never does: I/O.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

from k1s.api.catalog import builtin
from k1s.client.interface import InformerFactory

Object = Mapping[str, Any]

SERVICE_LABEL = "kubernetes.io/service-name"
_INDEX = "service"


class NoRoute(Exception):
    """The service, its port or its endpoints are missing; the text says which, as upstream does. `reason` is for conditions."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def slice_service(piece: Object) -> str:
    """`namespace/name` of the Service that an EndpointSlice belongs to, or ""."""
    meta = piece["metadata"]
    name = (meta.get("labels") or {}).get(SERVICE_LABEL)
    return f"{meta.get('namespace', '')}/{name}" if name else ""


def _by_service(piece: Object) -> Iterable[str]:
    service = slice_service(piece)
    return (service,) if service else ()


class ServiceResolver:
    """Reads informers: an answer is as current as the cache."""

    def __init__(self, informers: InformerFactory) -> None:
        self._services = informers.informer(builtin("Service"))
        self._slices = informers.informer(builtin("EndpointSlice"))
        self._slices.add_index(_INDEX, _by_service)

    def resolve(self, namespace: str, name: str, port: int) -> tuple[str, int]:
        """One ready endpoint, at random: (address, port). Raises NoRoute."""
        service = self._services.get(name, namespace)
        if service is None:
            raise NoRoute("ServiceNotFound", f'service/{name} in "{namespace}" is not present')
        spec = service["spec"]
        if spec.get("type") == "ExternalName":
            return str(spec.get("externalName") or ""), port
        found = next((p for p in spec.get("ports") or () if p.get("port") == port), None)
        if found is None:
            raise NoRoute("ServicePortError", f'service/{name} in "{namespace}" is not listening on port {port}')
        return random.choice(self._endpoints(namespace, name, str(found.get("name") or "")))

    def _endpoints(self, namespace: str, name: str, port_name: str) -> list[tuple[str, int]]:
        slices = list(self._slices.by_index(_INDEX, f"{namespace}/{name}"))
        if not slices:
            raise NoRoute("EndpointsNotFound", f'cannot find endpointslices for service/{name} in "{namespace}"')
        out = [
            (str(endpoint["addresses"][0]), int(port["port"]))
            for piece in slices
            for port in piece.get("ports") or ()
            if (port.get("name") or "") == port_name and port.get("port")
            for endpoint in piece.get("endpoints") or ()
            if (endpoint.get("conditions") or {}).get("ready") is not False and endpoint.get("addresses")
        ]
        if not out:
            why = f'endpoints for service/{name} in "{namespace}" have no addresses with port name "{port_name}"'
            raise NoRoute("MissingEndpoints", why)
        return out
