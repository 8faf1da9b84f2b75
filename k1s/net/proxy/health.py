"""healthCheckNodePort: telling an outside load balancer whether this node has endpoints of a Service.

Owns: a listener per such port (plain_http) and what it answers. Called by: agent.network.services.
Never does: traffic of the Service itself.
Source: upstream pkg/proxy/healthcheck: 200 with endpoints, 503 without; the weight header for balancers that weigh.

Bounds: one listener per Service of type LoadBalancer with externalTrafficPolicy Local; 64 connections a port and the bounds of
plain_http.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from k1s.net.plain_http import PlainHttp
from k1s.net.proxy.apply import Lookup

Object = dict[str, Any]
_MOST_CONNECTIONS = 64
_log = logging.getLogger("k1s.net.proxy")


class HealthPorts:
    """Keeps listeners in step with Services. Not to be called concurrently: the proxy's task owns it."""

    def __init__(self, lookup: Lookup, node: str, addresses: Sequence[str] = ("0.0.0.0",)) -> None:
        self._lookup, self._node, self._addresses = lookup, node, addresses
        self._ports: dict[str, _Port] = {}
        # Services whose port somebody else had: tried again whenever some Service changes.
        self._failed: set[str] = set()

    async def update(self, services: Iterable[str]) -> None:
        again, self._failed = self._failed, set()
        for key in {*services, *again}:
            service, slices = self._lookup(key)
            number = wanted_port(service)
            held = self._ports.get(key)
            if held is not None and held.number != number:
                self._ports.pop(key).close()
                held = None
            if number and held is None:
                held = await self._open(key, number, told=key in again)
            if held is not None:
                held.endpoints = local_endpoints(slices, self._node)

    async def close(self) -> None:
        for port in self._ports.values():
            port.close()
        self._ports.clear()

    async def _open(self, key: str, number: int, *, told: bool) -> _Port | None:
        port = _Port(key, number)
        try:
            await port.open(self._addresses)
        except OSError as error:
            # Somebody else's listener on a port that the cluster gave away. The Service works without; upstream goes on too.
            if not told:
                _log.error("health check port %d of service %s cannot be opened: %s", number, key, error.strerror)
            self._failed.add(key)
            return None
        self._ports[key] = port
        return port


class _Port:
    def __init__(self, key: str, number: int) -> None:
        self.key, self.number, self.endpoints = key, number, 0
        self._listener = PlainHttp(lambda _: self._answer(), connections=_MOST_CONNECTIONS)

    async def open(self, addresses: Sequence[str]) -> None:
        await self._listener.open(addresses, self.number)

    def close(self) -> None:
        self._listener.close()

    def _answer(self) -> bytes:
        namespace, _, name = self.key.partition("/")
        body = {"service": {"namespace": namespace, "name": name}, "localEndpoints": self.endpoints, "serviceProxyHealthy": True}
        data = json.dumps(body).encode()
        status = "200 OK" if self.endpoints else "503 Service Unavailable"
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"
            f"X-Load-Balancing-Endpoint-Weight: {self.endpoints}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + data


def wanted_port(service: Object | None) -> int:
    """The health check port to serve, or 0."""
    spec = (service or {}).get("spec") or {}
    if spec.get("type") != "LoadBalancer" or spec.get("externalTrafficPolicy") != "Local":
        return 0
    return int(spec.get("healthCheckNodePort") or 0)


def local_endpoints(slices: Iterable[Object], node: str) -> int:
    """Ready endpoints on this node; one that terminates does not count, so that balancers turn away before it goes.

    An endpoint with an address of each family counts once.
    """
    found: dict[str, set[str]] = {}
    for piece in slices:
        for endpoint in piece.get("endpoints") or ():
            if endpoint.get("nodeName") == node and (endpoint.get("conditions") or {}).get("ready") is not False:
                found.setdefault(piece.get("addressType") or "", set()).update(endpoint["addresses"][:1])
    return max(map(len, found.values()), default=0)
