"""A gRPC channel: to the runtime's socket, or to a container that is probed.

Owns: the lazy import of grpclib and the CRI messages, calls, translation of gRPC errors. Called by: containerd.py, events.py,
grpc_health.py. Never does: know a verb, retry. A channel connects at its first call, and again at the next one after a break.

grpclib, not grpcio: it runs in our event loop, without threads of its own that wake up while nothing happens, and costs 3 MiB
instead of 15. Nothing is imported before the first channel: `k1s agent --fake-runtime` and the CLI never load it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from k1s.cri.errors import RuntimeFailure, from_grpc

Metadata = Mapping[str, str]
Call = Callable[..., Awaitable[Any]]


class Channel:
    """To a unix socket (`path`) or to `host` and `port`. Messages are protobuf's or bytes, by their class."""

    def __init__(self, *, path: str | None = None, host: str | None = None, port: int | None = None) -> None:
        from grpclib.client import Channel as GrpcChannel

        self._channel = GrpcChannel(host, port, path=path, codec=_codec())
        self.closed = False

    async def call(
        self, method: str, request: Any, answer: type, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> Any:
        """One question, one answer. Raises RuntimeFailure."""
        from grpclib.client import UnaryUnaryMethod

        with _translated():
            return await UnaryUnaryMethod(self._channel, method, type(request), answer)(
                request, timeout=timeout, metadata=metadata
            )

    async def stream(self, method: str, request: Any, answer: type) -> AsyncGenerator[Any]:
        """Answers until the server ends. Raises RuntimeFailure, also when the connection breaks."""
        from grpclib.client import UnaryStreamMethod

        with _translated():
            opened: UnaryStreamMethod[Any, Any] = UnaryStreamMethod(self._channel, method, type(request), answer)
            async with opened.open() as stream:
                await stream.send_message(request, end=True)
                async for message in stream:
                    yield message

    def close(self) -> None:
        """What is under way fails."""
        self.closed = True
        self._channel.close()


class Service:
    """The methods of one gRPC service, by its protobuf descriptor: `await service.Version(request, timeout=3)`."""

    def __init__(self, channel: Channel, descriptor: Any) -> None:
        self._channel, self._descriptor = channel, descriptor

    def __getattr__(self, name: str) -> Call:
        from google.protobuf.message_factory import GetMessageClass

        method = self._descriptor.methods_by_name[name]
        path, answer = f"/{self._descriptor.full_name}/{name}", GetMessageClass(method.output_type)

        async def call(request: Any, *, timeout: float | None = None) -> Any:
            return await self._channel.call(path, request, answer, timeout=timeout)

        setattr(self, name, call)
        return call


def open_channel(socket: str) -> Channel:
    return Channel(path=socket.removeprefix("unix://"))


def cri_messages() -> Any:
    """The module of CRI v1's messages, without the rest of its package, which would import grpcio."""
    if "cri_api" not in sys.modules:
        found = importlib.util.find_spec("cri_api")
        if found is None or found.submodule_search_locations is None:
            raise ModuleNotFoundError("the package container-runtime-interface-api is not installed", name="cri_api")
        package = ModuleType("cri_api")
        package.__path__, package.__spec__ = list(found.submodule_search_locations), found
        sys.modules["cri_api"] = package
    return importlib.import_module("cri_api.v1.api_pb2")


@contextmanager
def _translated() -> Iterator[None]:
    from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

    try:
        yield
    except GRPCError as error:
        raise from_grpc(error.status.name, error.message or "") from error
    except TimeoutError as error:
        raise from_grpc("DEADLINE_EXCEEDED", "context deadline exceeded") from error
    except (OSError, StreamTerminatedError) as error:
        raise from_grpc("UNAVAILABLE", f"connection error: {error}") from error
    except ProtocolError as error:
        raise RuntimeFailure(f"the answer is not gRPC: {error}") from error


def _codec() -> Any:
    from grpclib.encoding.base import CodecBase

    class Codec(CodecBase):
        """Plain bytes pass as they are."""

        __content_subtype__ = "proto"

        def encode(self, message: Any, message_type: Any) -> bytes:
            return message if isinstance(message, bytes) else bytes(message.SerializeToString())

        def decode(self, data: bytes, message_type: Any) -> Any:
            return data if message_type is bytes else message_type.FromString(data)

    return Codec()
