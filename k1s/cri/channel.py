"""The gRPC channel to a runtime's socket.

Owns: the lazy import of grpc and the CRI stubs, channel options, translation of gRPC errors. Called by: containerd.py, events.py.
Never does: know a verb. grpc is imported at the first channel: `k1s agent --fake-runtime` and the CLI never load it.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from typing import Any

from k1s.cri.errors import from_grpc

_MAX_MESSAGE = 16 * 1024 * 1024  # kubelet's own limit


def grpc_module() -> Any:
    """grpc with grpc.aio, imported at the first need."""
    # Both must be set before the first import: grpc logs noise, and its fork handlers get in the way of subprocesses.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    import grpc
    import grpc.aio

    return grpc


def cri_modules() -> tuple[Any, Any]:
    """(messages, stubs) of CRI v1."""
    grpc_module()
    from cri_api.v1 import api_pb2, api_pb2_grpc

    return api_pb2, api_pb2_grpc


def open_channel(socket: str) -> Any:
    """A channel to a unix socket. It reconnects by itself, quickly: the runtime is on this machine."""
    options = (
        ("grpc.max_receive_message_length", _MAX_MESSAGE),
        ("grpc.max_send_message_length", _MAX_MESSAGE),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.default_authority", "localhost"),
    )
    path = socket.removeprefix("unix://")
    return grpc_module().aio.insecure_channel(f"unix:{path}", options=options)


async def translated(call: Awaitable[Any]) -> Any:
    """Await a call; its gRPC error becomes a cri.errors.RuntimeFailure."""
    grpc = grpc_module()
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_grpc(error.code().name, error.details() or "") from error
