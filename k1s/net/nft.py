"""nftables through libnftables: text commands in, one transaction a call.

Owns: loading the library, its context, and the thread that uses it. Called by: masquerade, hostport, proxy.apply, teardown.
Never does: know any table. Every call is atomic: either all its commands hold or none.

The context belongs to one thread because libnftables is not thread safe, and because its netlink socket lives in the
network namespace of the thread that made it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_JSON_OUTPUT = 1 << 4
# After commands of this length (a few hundred Services) the library's memory, up to 10 KB for each, goes back to the system.
_LARGE = 1 << 17


class NftError(Exception):
    """nft refused a transaction; the text is nft's own message."""


def _load() -> ctypes.CDLL:
    bundled = os.path.join(os.environ.get("K1S_BIN_DIR", ""), "libnftables.so.1")
    name = bundled if os.environ.get("K1S_BIN_DIR") and os.path.exists(bundled) else "libnftables.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise NftError(f"{name} cannot be loaded (Debian package libnftables1): {error}") from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    for which in ("output", "error"):
        getattr(library, f"nft_ctx_buffer_{which}").argtypes = [ctypes.c_void_p]
        reader = getattr(library, f"nft_ctx_get_{which}_buffer")
        reader.argtypes, reader.restype = [ctypes.c_void_p], ctypes.c_char_p
    return library


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


class NftContext:
    """libnftables in the calling thread. Use `Nft` from asyncio."""

    def __init__(self) -> None:
        self._library = _load()
        self._context = self._library.nft_ctx_new(0)
        if not self._context:
            raise NftError("libnftables gave no context: is nf_tables in this kernel, and is this process root?")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> str:
        """Run `commands` in one transaction and return what they print. Raises NftError."""
        status = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        message: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if len(commands) > _LARGE:
            _trim()
        if status != 0:
            raise NftError(message.decode(errors="replace").strip() or f"nft failed with status {status}")
        return output.decode()

    def query(self, command: str) -> list[dict[str, Any]]:
        """A `list` command's answer as nft's JSON objects, without the meta information."""
        self._library.nft_ctx_output_set_flags(self._context, _JSON_OUTPUT)
        try:
            text = self.run(command)
        finally:
            self._library.nft_ctx_output_set_flags(self._context, 0)
        found: list[dict[str, Any]] = json.loads(text)["nftables"] if text.strip() else []
        return [item for item in found if "metainfo" not in item]

    def close(self) -> None:
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None


class Nft:
    """The same from asyncio: one thread, calls in the order they were made."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="k1s-nft")
        self._context: NftContext | None = None

    async def run(self, commands: str) -> None:
        await self._call(lambda context: context.run(commands))

    async def query(self, command: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self._call(lambda context: context.query(command))
        return found

    async def in_thread(self, work: Callable[[], None]) -> None:
        """Something that libnftables cannot do, in its turn and in the same network namespace."""
        await self._call(lambda _: work())

    async def _call(self, use: Any) -> Any:
        def work() -> Any:
            if self._context is None:
                self._context = NftContext()
            return use(self._context)

        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        def work() -> None:
            if self._context is not None:
                self._context.close()
                self._context = None

        await asyncio.get_running_loop().run_in_executor(self._thread, work)
        self._thread.shutdown(wait=False)
