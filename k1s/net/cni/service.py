"""The agent's side of CNI: a unix socket that answers the shim.

Owns: the socket (0600), the bound on calls; one call at a time per sandbox. Called by: agent.network.app.
Never does: the work of a call (add, delete, check).

Bounds: 8 calls run at once, 128 more wait; beyond that a call is told to try again later (CNI code 11), which the runtime
and the agent's pod workers do with their own backoff. A request has 10 s to arrive and 1 MiB.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path
from typing import Any

from k1s.net.cni import add, call, check, delete
from k1s.net.cni.call import Call, CniError
from k1s.net.cni.node import PodNetwork

RUNNING, WAITING = 8, 128
_READ_SECONDS = 10.0
_LIMIT = 1 << 20

_log = logging.getLogger("k1s.net.cni")


class CniService:
    """Serves `network` on a socket between `start` and `stop`."""

    def __init__(self, network: PodNetwork) -> None:
        self._network = network
        self._slots = asyncio.Semaphore(RUNNING)
        self._present = 0
        self._server: asyncio.Server | None = None

    async def start(self, path: Path) -> None:
        """Listen on `path`; a socket left there by a killed agent is replaced."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        fresh = path.with_name(path.name + ".new")
        fresh.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(fresh))
        # Closed to others before the name is known to anybody: bind has no mode of its own.
        os.chmod(fresh, 0o600)
        self._server = await asyncio.start_unix_server(self._connection, sock=listener, backlog=RUNNING + WAITING)
        os.rename(fresh, path)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(await self._answer(reader))
            await writer.drain()
        except (OSError, TimeoutError) as error:
            _log.warning("cni call cut off: %s", error or "the request did not arrive in time")
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        if self._present >= RUNNING + WAITING:
            return call.encode_error(CniError(call.TRY_AGAIN_LATER, f"{self._present} CNI calls are under way or waiting"))
        self._present += 1
        version = "1.0.0"
        try:
            async with asyncio.timeout(_READ_SECONDS):
                data = await _read(reader)
            request = call.decode(data)
            version = str(request.config.get("cniVersion") or version)
            async with self._slots, self._network.turn(request.container_id):
                return call.encode(await self._run(request))
        except CniError as error:
            _log.warning("cni call failed: %s", error)
            return call.encode_error(error, version)
        finally:
            self._present -= 1

    async def _run(self, request: Call) -> dict[str, Any] | None:
        match request.command:
            case "ADD":
                return await add.add(self._network, request)
            case "DEL":
                await delete.delete(self._network, request)
            case "CHECK":
                await check.check(self._network, request)
            case "STATUS":
                await check.status(self._network)
            case "GC":
                valid = request.config.get("cni.dev/valid-attachments")
                if not isinstance(valid, list):
                    raise CniError(call.INVALID_CONFIG, "GC without cni.dev/valid-attachments would remove every pod's network")
                await delete.release_dead(self._network, {str(a.get("containerID")) for a in valid})
            case other:
                raise CniError(call.INVALID_ENVIRONMENT, f"CNI_COMMAND {other!r} is not known")
        return None


async def _read(reader: asyncio.StreamReader) -> bytes:
    data = bytearray()
    while part := await reader.read(65536):
        data += part
        if len(data) > _LIMIT:
            raise CniError(call.DECODING_FAILED, f"the request is longer than {_LIMIT} bytes")
    return bytes(data)
