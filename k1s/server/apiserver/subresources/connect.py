"""pods/exec, pods/attach, pods/portforward and pods/log: checked here, served by the node's agent.

Owns: the options' names on both sides and upstream's refusals. Called by: apiserver/registry.
Never does: touch the streams (forward.py splices them). Source: registry/core/pod/strategy.go LogLocation and streamLocation.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from typing import Any

from k1s.api import errors
from k1s.base.http import Answer, ConnectionClosed, Request, Response, Stream, WebSocket, WebSocketUpgrade
from k1s.server.apiserver.attributes import RequestInfo
from k1s.server.apiserver.kubelet_proxy import KubeletProxy, pod_path

Object = Mapping[str, Any]
_TRUE = ("1", "true", "t", "T", "TRUE", "True")
_LOG_PROTOCOLS = ("binary.k8s.io", "base64.binary.k8s.io")
_LOG_OPTIONS = ("follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream")


async def exec_(request: Request, info: RequestInfo, pod: Object, kubelet: KubeletProxy) -> Answer:
    """PodExecOptions: container, command (repeated), stdin, stdout, stderr, tty."""
    if not request.params("command"):
        raise errors.bad_request("you must specify at least one command for the container")
    query = _stream_query(request) + [("command", word) for word in request.params("command")]
    return await _container_call(request, info, pod, kubelet, "exec", query)


async def attach(request: Request, info: RequestInfo, pod: Object, kubelet: KubeletProxy) -> Answer:
    """PodAttachOptions: container, stdin, stdout, stderr, tty."""
    return await _container_call(request, info, pod, kubelet, "attach", _stream_query(request))


async def portforward(request: Request, info: RequestInfo, pod: Object, kubelet: KubeletProxy) -> Answer:
    """PodPortForwardOptions: ports, which only the WebSocket channel form uses."""
    query = [("ports", value) for value in request.params("ports")]
    return await kubelet.call(request, _node_of(pod, info), pod_path("portForward", info.namespace, info.name), query)


async def log(request: Request, info: RequestInfo, pod: Object, kubelet: KubeletProxy) -> Answer:
    """PodLogOptions. A pod that no node has yet gives an empty log, as upstream."""
    container = _container(request, info, pod)
    if not pod.get("spec", {}).get("nodeName"):
        return Response(200, b"", "text/plain")
    query = [(name, request.param(name)) for name in _LOG_OPTIONS if request.param(name)]
    path = pod_path("containerLogs", info.namespace, info.name, container)
    answer = await kubelet.call(request, _node_of(pod, info), path, query)
    if request.headers.get("Upgrade", "").lower() == "websocket" and isinstance(answer, Stream) and answer.status == 200:
        chunks = answer.chunks
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        return WebSocketUpgrade(_LOG_PROTOCOLS if offered else (), lambda socket: _serve_log(socket, chunks))
    return answer


async def _serve_log(socket: WebSocket, chunks: AsyncIterator[bytes]) -> None:
    """The log as binary frames (or base64 text), then the close frame that a reader waits for."""
    listening = asyncio.ensure_future(_until_closed(socket))
    sending = asyncio.ensure_future(_send_log(socket, chunks))
    try:
        await asyncio.wait({listening, sending}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (listening, sending):
            task.cancel()
        await asyncio.gather(listening, sending, return_exceptions=True)
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()


async def _send_log(socket: WebSocket, chunks: AsyncIterator[bytes]) -> None:
    as_text = socket.subprotocol.startswith("base64")
    try:
        async for chunk in chunks:
            await socket.send(base64.b64encode(chunk).decode() if as_text else chunk)
        await socket.close()
    except ConnectionClosed:
        return


async def _until_closed(socket: WebSocket) -> None:
    """The client has nothing to say: only its going matters."""
    try:
        while True:
            await socket.receive()
    except ConnectionClosed:
        return


def _stream_query(request: Request) -> list[tuple[str, str]]:
    """The kubelet's names: input, output, error, tty. stdout and stderr are on unless a request says otherwise."""
    wanted = {name: request.param(name) in _TRUE for name in ("stdin", "stdout", "stderr", "tty")}
    if not (wanted["stdin"] or wanted["stdout"] or wanted["stderr"]):
        raise errors.bad_request("you must specify at least 1 of stdin, stdout, stderr")
    names = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
    return [(names[name], "1") for name, on in wanted.items() if on]


async def _container_call(
    request: Request, info: RequestInfo, pod: Object, kubelet: KubeletProxy, verb: str, query: list[tuple[str, str]]
) -> Answer:
    path = pod_path(verb, info.namespace, info.name, _container(request, info, pod))
    return await kubelet.call(request, _node_of(pod, info), path, query)


def _container(request: Request, info: RequestInfo, pod: Object) -> str:
    """The container asked for, or the only one. Raises ApiError 400 with the choices."""
    spec = pod.get("spec", {})
    names = [c["name"] for c in spec.get("containers") or []]
    init = [c["name"] for c in spec.get("initContainers") or []]
    ephemeral = [c["name"] for c in spec.get("ephemeralContainers") or []]
    wanted = request.param("container")
    if wanted:
        if wanted not in (*names, *init, *ephemeral):
            raise errors.bad_request(f"container {wanted} is not valid for pod {info.name}")
        return wanted
    if len(names) == 1:
        return str(names[0])
    choices = f"choose one of: [{' '.join(names)}]"
    if init:
        choices += f" or one of the init containers: [{' '.join(init)}]"
    raise errors.bad_request(f"a container name must be specified for pod {info.name}, {choices}")


def _node_of(pod: Object, info: RequestInfo) -> str:
    node = pod.get("spec", {}).get("nodeName")
    if not node:
        raise errors.bad_request(f"pod {info.name} does not have a host assigned")
    return str(node)
