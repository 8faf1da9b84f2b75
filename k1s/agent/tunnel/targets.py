"""What the server may reach through this node's tunnel, and connecting it.

Owns: Targets. Called by: app (each stream that the server opens). Never does: more than that: an agent is no open proxy.

Allowed are: this agent's own port on the node's address or loopback, connected on loopback; addresses of pods that this node
runs; the node's own address on ports that a pod with hostNetwork declares; addresses of Services. Everything else is EACCES.
Bound: CONNECT_SECONDS for a target to answer.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
from typing import Any

from k1s.agent.context import AgentContext
from k1s.base.mux_stream import MuxStream
from k1s.base.relay import joined

CONNECT_SECONDS = 10.0
_LOOPBACK = ("127.0.0.1", "::1")

Object = dict[str, Any]


class TargetRefused(Exception):
    """Not to be had through this node."""


class Targets:
    def __init__(self, agent: AgentContext) -> None:
        self._agent = agent

    async def serve(self, stream: MuxStream) -> None:
        """Connect the stream's target and join both; returns when they are joined or the stream is refused."""
        try:
            host, port = self.resolve(stream.target)
        except TargetRefused as error:
            stream.refuse(errno.EACCES, str(error))
            return
        here, there = joined()
        stream.pause_reading()
        stream.start(there)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().create_connection(lambda: here, host, port)
        except TimeoutError:
            stream.refuse(errno.ETIMEDOUT, "i/o timeout")
        except OSError as error:
            number = error.errno or errno.EHOSTUNREACH
            stream.refuse(number, os.strerror(number).lower())
        except asyncio.CancelledError:
            stream.abort()
            raise
        else:
            if stream.is_closing():  # given up meanwhile
                here.transport.abort()
            stream.accept()
            stream.resume_reading()

    def resolve(self, target: str) -> tuple[str, int]:
        """The address to connect for `host:port` or `[host]:port`. Raises TargetRefused."""
        host, _, number = target.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        try:
            address, port = ipaddress.ip_address(host), int(number)
            host = str(address)
        except ValueError:
            raise TargetRefused(f"{target} is not an address and a port") from None
        if not 0 < port < 65536:
            raise TargetRefused(f"{target}: there is no such port")
        agent = self._agent
        if host in _LOOPBACK or host in agent.node_ips:
            if port == agent.config.kubelet_port:
                return _LOOPBACK[0], port
            if host not in _LOOPBACK and any(_declares(entry.pod, port) for entry in agent.pods):
                return host, port
        elif any(host in _own_addresses(entry.pod, entry.status) for entry in agent.pods) or any(
            address in ipaddress.ip_network(text.strip(), strict=False) for text in agent.config.service_cidr.split(",")
        ):
            return host, port
        raise TargetRefused(
            f"node {agent.node_name} does not connect {target}: it is neither its agent, a pod of it nor a Service"
        )


def _own_addresses(pod: Object, status: Object) -> list[str]:
    if pod["spec"].get("hostNetwork"):
        return []
    status = status or pod.get("status") or {}
    return [str(status.get("podIP") or ""), *(str(entry.get("ip")) for entry in status.get("podIPs") or ())]


def _declares(pod: Object, port: int) -> bool:
    spec = pod["spec"]
    return bool(spec.get("hostNetwork")) and any(
        port in (declared.get("hostPort"), declared.get("containerPort"))
        for container in spec.get("containers") or ()
        for declared in container.get("ports") or ()
    )
