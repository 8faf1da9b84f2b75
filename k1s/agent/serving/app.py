"""The agent's HTTPS server on :10250: logs, exec, attach, port-forward, health, metrics.

Owns: the routes and who may use them. Called by: agent/app. Never does: the work of a route (a file each beside this one).
Only the API server gets in: its client certificate, signed by the client CA, says system:masters. Paths are the kubelet's, so
that anything that knows a kubelet knows this.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable

import orjson

from k1s.agent.containers.logs import MAX_FILES, MAX_SIZE
from k1s.agent.context import AgentContext
from k1s.agent.pods.registry import PodEntry
from k1s.agent.resources import stats
from k1s.agent.serving import command, port_forward
from k1s.agent.serving.command import StreamOptions
from k1s.agent.serving.exits import Exits
from k1s.agent.serving.pod_logs import PodLogs
from k1s.api import errors
from k1s.api.errors import ApiError
from k1s.base import http_server, metrics
from k1s.base.http import Answer, Request, Response
from k1s.cri.errors import RuntimeFailure
from k1s.net import netns

log = logging.getLogger("k1s.agent.serving")

_ALLOWED_GROUP = "system:masters"
_OPEN_PATHS = ("/healthz",)


async def run(agent: AgentContext, tls: ssl.SSLContext, ready: Callable[[], None]) -> None:
    """Serve until cancelled. `tls` asks for client certificates of the client CA; its owner renews it in place."""
    server = AgentServer(agent)
    listener = await http_server.listen(server.handle, host="0.0.0.0", port=agent.config.kubelet_port, tls=tls)
    ready()
    try:
        await asyncio.Event().wait()
    finally:
        await listener.close(0.2)


class AgentServer:
    """`handle` is a base.http.Handler."""

    def __init__(self, agent: AgentContext) -> None:
        self._agent = agent
        self._exits = Exits(agent.runtime, agent.clock)
        self._logs = PodLogs(agent, self._exits)
        self._routes: dict[str, Callable[[Request, list[str]], Awaitable[Answer]]] = {
            "healthz": self._healthz,
            "metrics": self._metrics,
            "pods": self._pods,
            "stats": self._stats,
            "configz": self._configz,
            "containerLogs": self._container_logs,
            "exec": self._exec,
            "attach": self._attach,
            "portForward": self._port_forward,
        }

    async def handle(self, request: Request) -> Answer:
        try:
            self._authorize(request)
            words = request.path.strip("/").split("/")
            route = self._routes.get(words[0])
            if route is None:
                raise errors.path_not_found()
            return await route(request, words[1:])
        except RuntimeFailure as error:
            return _refuse(errors.internal(str(error)))
        except ApiError as error:
            return _refuse(error)
        except Exception:
            # The boundary: one request's defect must not end the agent.
            log.exception("%s %s failed", request.method, request.path)
            return _refuse(errors.internal("the agent failed to serve this request; see its log"))

    def _authorize(self, request: Request) -> None:
        if request.path in _OPEN_PATHS:
            return
        if request.peer is None:
            raise errors.unauthorized()
        if _ALLOWED_GROUP not in request.peer.organizations:
            raise ApiError(403, "Forbidden", f"Forbidden (user={request.peer.common_name}, path={request.path})")

    async def _healthz(self, request: Request, words: list[str]) -> Answer:
        return Response(200, b"ok", "text/plain")

    async def _metrics(self, request: Request, words: list[str]) -> Answer:
        if words == ["resource"]:
            return Response(200, await stats.resource_metrics(self._agent), stats.CONTENT_TYPE)
        if words:
            raise errors.path_not_found()
        return Response(200, self._agent.metrics.exposition(), metrics.CONTENT_TYPE)

    async def _stats(self, request: Request, words: list[str]) -> Answer:
        if words != ["summary"]:
            raise errors.path_not_found()
        return Response(200, orjson.dumps(await stats.summary(self._agent)))

    async def _configz(self, request: Request, words: list[str]) -> Answer:
        """The options as a KubeletConfiguration: what the agent really does, and nothing else."""
        config = self._agent.config
        return Response(
            200,
            orjson.dumps(
                {
                    "kubeletconfig": {
                        "kind": "KubeletConfiguration",
                        "apiVersion": "kubelet.config.k8s.io/v1beta1",
                        "port": config.kubelet_port,
                        "maxPods": config.max_pods,
                        "clusterDomain": config.cluster_domain,
                        "clusterDNS": config.cluster_dns.split(","),
                        "resolvConf": config.resolv_conf,
                        "containerLogMaxSize": f"{MAX_SIZE >> 20}Mi",
                        "containerLogMaxFiles": MAX_FILES,
                        "podLogsDir": str(config.pod_log_dir),
                        "authentication": {"anonymous": {"enabled": False}},
                        "serializeImagePulls": False,
                    }
                }
            ),
        )

    async def _pods(self, request: Request, words: list[str]) -> Answer:
        pods = [{**entry.pod, "status": entry.status or entry.pod.get("status", {})} for entry in self._agent.pods]
        return Response(200, orjson.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}))

    async def _container_logs(self, request: Request, words: list[str]) -> Answer:
        entry, container = self._locate(words, with_container=True)
        return await self._logs.answer(request, entry, container)

    async def _exec(self, request: Request, words: list[str]) -> Answer:
        options, arguments = StreamOptions.from_request(request), request.params("command")
        if not arguments:
            raise errors.bad_request("you must specify at least one command for the container")
        container_id = self._running(*self._locate(words, with_container=True))

        async def url() -> str:
            return await self._agent.runtime.exec(
                container_id, arguments, tty=options.tty, stdin=options.stdin, stdout=options.stdout, stderr=options.stderr
            )

        return command.upgrade(request, options, url)

    async def _attach(self, request: Request, words: list[str]) -> Answer:
        options = StreamOptions.from_request(request)
        container_id = self._running(*self._locate(words, with_container=True))

        async def url() -> str:
            return await self._agent.runtime.attach(
                container_id, tty=options.tty, stdin=options.stdin, stdout=options.stdout, stderr=options.stderr
            )

        return command.upgrade(request, options, url, over=lambda: self._exits.wait(container_id))

    async def _port_forward(self, request: Request, words: list[str]) -> Answer:
        entry, _ = self._locate(words, with_container=False)
        sandbox = entry.sandbox
        if sandbox is None or not sandbox.ready:
            raise errors.bad_request(f"unable to forward port because pod {entry.name} is not running")
        path = "" if sandbox.host_network else (sandbox.netns or (await self._agent.runtime.pod_sandbox_status(sandbox.id)).netns)
        if not path and not sandbox.host_network:
            raise errors.internal(f"the network namespace of pod {entry.name} is not known")

        async def dial(port: int) -> socket.socket:
            return await asyncio.to_thread(_dial, path, port)

        return port_forward.upgrade(request, dial)

    def _locate(self, words: list[str], *, with_container: bool) -> tuple[PodEntry, str]:
        """NS/POD/CONTAINER or NS/POD/UID/CONTAINER (NS/POD or NS/POD/UID). Raises ApiError 404."""
        expected = (3, 4) if with_container else (2, 3)
        if len(words) not in expected:
            raise errors.path_not_found()
        entry = self._agent.pods.by_name(words[0], words[1])
        uid = words[2] if len(words) == expected[1] else ""
        if entry is None or (uid and entry.uid != uid):
            raise errors.not_found("pods", "", words[1])
        return entry, words[-1] if with_container else ""

    def _running(self, entry: PodEntry, container: str) -> str:
        status = entry.container(container)
        if status is None:
            raise errors.not_found("containers", "", f"{container} in pod {entry.name}")
        if status.state != "running":
            raise errors.bad_request(f"container {container} in pod {entry.name} is not running")
        return status.id


def _dial(netns_path: str, port: int) -> socket.socket:
    """A connected socket to the port on the pod's loopback. Raises OSError."""
    if not netns_path:
        return _connect(port)
    try:
        with netns.entered(netns_path):
            return _connect(port)
    except netns.NetnsError as error:
        raise OSError(str(error)) from error


def _connect(port: int) -> socket.socket:
    try:
        connected = socket.create_connection(("127.0.0.1", port), timeout=10)
    except ConnectionRefusedError:
        connected = socket.create_connection(("::1", port), timeout=10)
    connected.setblocking(False)
    return connected


def _refuse(error: ApiError) -> Response:
    return Response(error.code, orjson.dumps(error.status()))
