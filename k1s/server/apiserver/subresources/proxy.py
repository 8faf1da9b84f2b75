"""pods/proxy, services/proxy and nodes/proxy: any HTTP request handed on to what the object stands for.

Owns: the address forms `[scheme:]name[:port]` and the target of each. Called by: apiserver/registry.
Never does: look into bodies (rewrite.py does). Source: registry/core/{pod,service,node}: ResourceLocation and ProxyREST.
"""

from __future__ import annotations

import ipaddress
import json
import random
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from k1s.api import errors
from k1s.api.catalog import builtin
from k1s.base.http import Answer, Request, Response, Stream
from k1s.client.interface import Informer, InformerFactory
from k1s.server.apiserver.attributes import RequestInfo
from k1s.server.apiserver.forward import Connect, Target, forward
from k1s.server.apiserver.kubelet_proxy import KubeletProxy
from k1s.server.apiserver.rewrite import Links

Object = Mapping[str, Any]

# What a path holds unescaped (RFC 3986, pchar): the colons of https:web:metrics above all.
_PLAIN = "/:@!$&'()*+,;="


def split_name(name: str, kind: str) -> tuple[str, str, str]:
    """`https:web:metrics` -> (scheme, name, port); scheme and port may be empty. Raises ApiError 400."""
    parts = name.split(":")
    if len(parts) == 1:
        return "", parts[0], ""
    if len(parts) == 2:
        return "", parts[0], parts[1]
    if len(parts) == 3 and parts[0] in ("", "http", "https"):
        return parts[0], parts[1], parts[2]
    raise errors.bad_request(f"invalid {kind} request {json.dumps(name)}")


class ObjectProxy:
    """Serves the proxy subresource of pods, services and nodes."""

    def __init__(self, informers: InformerFactory, kubelet: KubeletProxy, connect: Connect) -> None:
        self._pods: Informer = informers.informer(builtin("Pod"))
        self._services: Informer = informers.informer(builtin("Service"))
        self._slices: Informer = informers.informer(builtin("EndpointSlice"))
        self._kubelet, self._connect = kubelet, connect

    async def pod(self, request: Request, info: RequestInfo) -> Answer:
        scheme, name, port = split_name(info.name, "pod")
        pod = self._pods.get(name, info.namespace)
        if pod is None:
            raise errors.not_found("pods", "", name)
        address = pod.get("status", {}).get("podIP")
        if not address:
            raise errors.bad_request("address not allowed")
        if not _is_proxyable(str(address)):
            raise errors.bad_request("address not allowed")
        number = _number(port) if port else _first_port(pod)
        return await self._to(request, info, scheme, str(address), number)

    async def service(self, request: Request, info: RequestInfo) -> Answer:
        scheme, name, port = split_name(info.name, "service")
        service = self._services.get(name, info.namespace)
        if service is None:
            raise errors.not_found("services", "", name)
        wanted = _service_port(service, port)
        targets = self._endpoints(info.namespace, name, str(wanted.get("name") or ""))
        if not targets:
            raise errors.service_unavailable(f'no endpoints available for service "{info.name}"')
        address, number = random.choice(targets)
        if not scheme and wanted.get("appProtocol") == "https":
            scheme = "https"
        return await self._to(request, info, scheme, address, number)

    async def node(self, request: Request, info: RequestInfo) -> Answer:
        _, name, port = split_name(info.name, "node")
        if port and port != "10250":
            raise errors.bad_request("a node is proxied only on its kubelet port")
        return await self._kubelet.call_raw(request, name, _target_path(request, info))

    def _endpoints(self, namespace: str, service: str, port_name: str) -> list[tuple[str, int]]:
        out: list[tuple[str, int]] = []
        for piece in self._slices.list(namespace):
            if piece["metadata"].get("labels", {}).get("kubernetes.io/service-name") != service:
                continue
            for port in piece.get("ports") or []:
                if (port.get("name") or "") == port_name and port.get("port"):
                    for endpoint in piece.get("endpoints") or []:
                        if endpoint.get("conditions", {}).get("ready") is not False and _is_proxyable(endpoint["addresses"][0]):
                            out.append((endpoint["addresses"][0], int(port["port"])))
        return out

    async def _to(self, request: Request, info: RequestInfo, scheme: str, address: str, port: int) -> Answer:
        path = _target_path(request, info)
        prefix = request.path.removesuffix(info.tail) if info.tail else request.path
        if not info.tail and request.method in ("GET", "HEAD") and not request.headers.get("Upgrade"):
            # Relative links of what is served need the slash.
            query = f"?{request.raw_path.partition('?')[2]}" if "?" in request.raw_path else ""
            return Response(301, b"", "", headers=[("Location", quote(request.path, _PLAIN) + "/" + query)])
        forwarded = (
            ("X-Forwarded-Uri", quote(prefix + info.tail, _PLAIN)),
            ("X-Forwarded-Host", request.headers.get("Host", "")),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-For", request.remote),
        )
        target = Target(address, port, path, _unverified() if scheme == "https" else None, headers=forwarded)
        answer = await forward(request, target, self._connect)
        hosts = (f"{address}:{port}", request.headers.get("Host", ""))
        return Links(quote(prefix, _PLAIN), hosts).answer(answer) if isinstance(answer, Stream) else answer


def _is_proxyable(address: str) -> bool:
    """A pod's address is its node's word: this server does not call itself. Source: upstream proxyutil.IsProxyableIP."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = mapped if mapped is not None else ip
    return not (ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast)


def _target_path(request: Request, info: RequestInfo) -> str:
    """What follows `/proxy` in the raw path, so that the target sees the client's own escapes, with the query."""
    raw, question, query = request.raw_path.partition("?")
    depth = request.path.removesuffix(info.tail).count("/") if info.tail else request.path.count("/")
    segments = raw.split("/")
    tail = "/" + "/".join(segments[depth + 1 :])
    if unquote(tail) != (info.tail or "/"):
        tail = quote(info.tail or "/", _PLAIN)
    return tail + question + query


def _unverified() -> ssl.SSLContext:
    # Upstream does not verify the certificates of proxied pods either: they are not ours.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _number(port: str) -> int:
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise errors.bad_request(f"invalid port {json.dumps(port)}")
    return int(port)


def _first_port(pod: Object) -> int:
    for container in pod["spec"].get("containers") or []:
        for port in container.get("ports") or []:
            return int(port["containerPort"])
    return 80


def _service_port(service: Object, wanted: str) -> Object:
    ports: list[Object] = service.get("spec", {}).get("ports") or []
    for port in ports:
        if wanted in ("", port.get("name"), str(port.get("port"))):
            return port
    raise errors.service_unavailable(f'no service port "{wanted}" found for service "{service["metadata"]["name"]}"')
