"""The way from the API server to a node's agent on :10250.

Owns: finding the agent of a node or pod and the TLS identity shown to it. Called by: subresources/{connect,log,proxy}.
Never does: interpret what passes. The agent accepts only this server's client certificate.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from k1s.api import errors
from k1s.api.catalog import builtin
from k1s.base.http import Answer, Request
from k1s.client.interface import InformerFactory
from k1s.server.apiserver.forward import Connect, Target, forward

Object = Mapping[str, Any]
_ADDRESS_ORDER = ("InternalIP", "Hostname", "ExternalIP", "InternalDNS", "ExternalDNS")
DEFAULT_PORT = 10250


class KubeletProxy:
    """`tls` gives the current client context; it is asked each time because certificates are renewed while running."""

    def __init__(self, informers: InformerFactory, tls: Callable[[], ssl.SSLContext], connect: Connect) -> None:
        self._nodes = informers.informer(builtin("Node"))
        self._tls, self._connect = tls, connect

    async def call(self, request: Request, node_name: str, path: str, query: list[tuple[str, str]]) -> Answer:
        """Forward `request` to `path` of the node's agent with a query of our own."""
        target = path + (f"?{urlencode(query)}" if query else "")
        return await self.call_raw(request, node_name, target)

    async def call_raw(self, request: Request, node_name: str, target: str) -> Answer:
        """The same with a raw path and query. Raises ApiError 404 (no such node) or 503 (it has no address)."""
        node = self._nodes.get(node_name)
        if node is None:
            raise errors.not_found("nodes", "", node_name)
        host = _address(node)
        if not host:
            raise errors.service_unavailable(f"no preferred addresses found; node {node_name} has no address yet")
        endpoint = node.get("status", {}).get("daemonEndpoints", {}).get("kubeletEndpoint", {})
        port = int(endpoint.get("Port") or DEFAULT_PORT)
        # Its address is the node's own word, its name is not: whoever answers must have the certificate of this name.
        return await forward(request, Target(host, port, target, self._tls(), node_name, node=node_name), self._connect)


def pod_path(verb: str, namespace: str, pod: str, container: str = "") -> str:
    """`/exec/NS/POD/CONTAINER`, as the kubelet's server has it."""
    parts = [verb, namespace, pod, *([container] if container else [])]
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _address(node: Object) -> str:
    addresses = node.get("status", {}).get("addresses") or []
    for kind in _ADDRESS_ORDER:
        for entry in addresses:
            if entry.get("type") == kind and entry.get("address"):
                return str(entry["address"])
    return ""
