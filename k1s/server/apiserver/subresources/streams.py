"""The subresources that end at a node's agent or in a pod, as handlers for the registry.

Owns: the table from subresource to function. Called by: server/app (hands the table to ApiServer).
Never does: streams themselves (connect, proxy, forward).
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from k1s.api import errors
from k1s.api.catalog import builtin
from k1s.base.http import Answer, Request
from k1s.server.apiserver.attributes import AdmissionRequest, RequestInfo, UserInfo
from k1s.server.apiserver.kubelet_proxy import KubeletProxy
from k1s.server.apiserver.registry import HandlerKey, ResourceHandler
from k1s.server.apiserver.subresources import connect
from k1s.server.apiserver.subresources.connect import Object
from k1s.server.apiserver.subresources.proxy import ObjectProxy

# What the body of a connection is called in admission; all of it is in the query.
_OPTIONS = {
    ("pods", "exec"): "PodExecOptions",
    ("pods", "attach"): "PodAttachOptions",
    ("pods", "portforward"): "PodPortForwardOptions",
    ("pods", "proxy"): "PodProxyOptions",
    ("services", "proxy"): "ServiceProxyOptions",
    ("nodes", "proxy"): "NodeProxyOptions",
}
_REPEATED = ("command", "ports")
_FLAGS = ("stdin", "stdout", "stderr", "tty")

_Connect = Callable[[Request, RequestInfo, Object, KubeletProxy], Awaitable[Answer]]


class Streams:
    """`tls` gives the client context for agents. The informers are the server's own, so they are taken at first use."""

    def __init__(self, tls: Callable[[], ssl.SSLContext]) -> None:
        self._tls = tls
        self._kubelet: KubeletProxy | None = None
        self._proxy: ObjectProxy | None = None

    def handlers(self) -> dict[HandlerKey, ResourceHandler]:
        return {
            ("", "pods", "exec"): self._connect(connect.exec_),
            ("", "pods", "attach"): self._connect(connect.attach),
            ("", "pods", "portforward"): self._connect(connect.portforward),
            ("", "pods", "log"): self._connect(connect.log),
            ("", "pods", "proxy"): self._pod_proxy,
            ("", "services", "proxy"): self._service_proxy,
            ("", "nodes", "proxy"): self._node_proxy,
        }

    def _connect(self, function: _Connect) -> ResourceHandler:
        async def handle(request: Request, info: RequestInfo, user: UserInfo, server: Any) -> Answer:
            kubelet, _ = self._parts(server)
            pod = server.informers.informer(builtin("Pod")).get(info.name, info.namespace)
            if pod is None:
                raise errors.not_found("pods", "", info.name)
            if info.subresource != "log":
                await _admit(request, info, user, server)
            return await function(request, info, pod, kubelet)

        return handle

    async def _pod_proxy(self, request: Request, info: RequestInfo, user: UserInfo, server: Any) -> Answer:
        await _admit(request, info, user, server)
        return await self._parts(server)[1].pod(request, info)

    async def _service_proxy(self, request: Request, info: RequestInfo, user: UserInfo, server: Any) -> Answer:
        await _admit(request, info, user, server)
        return await self._parts(server)[1].service(request, info)

    async def _node_proxy(self, request: Request, info: RequestInfo, user: UserInfo, server: Any) -> Answer:
        await _admit(request, info, user, server)
        return await self._parts(server)[1].node(request, info)

    def _parts(self, server: Any) -> tuple[KubeletProxy, ObjectProxy]:
        if self._kubelet is None or self._proxy is None:
            self._kubelet = KubeletProxy(server.informers, self._tls, server.dialer.connect)
            self._proxy = ObjectProxy(server.informers, self._kubelet, server.dialer.connect)
        return self._kubelet, self._proxy


async def _admit(request: Request, info: RequestInfo, user: UserInfo, server: Any) -> None:
    """Let admission see the connection. Raises its ApiError, and 400: nobody connects on trial."""
    if any(key == "dryRun" for key, _ in request.query):
        raise errors.bad_request("dryRun is not supported")
    if server.admission is None or info.resource is None:
        return
    options: dict[str, Any] = {"kind": _OPTIONS[info.plural, info.subresource], "apiVersion": "v1"}
    for key, value in request.query:
        if key in _REPEATED:
            options.setdefault(key, []).append(value)
        else:
            options[key] = value in ("1", "true") if key in _FLAGS else value
    step = AdmissionRequest(
        "CONNECT",
        info.resource,
        info.resource.subresource(info.subresource),
        info.namespace if info.resource.namespaced else "",
        info.name,
        options,
        None,
        user,
    )
    await server.admission.mutate(step)
    await server.admission.validate(step)
