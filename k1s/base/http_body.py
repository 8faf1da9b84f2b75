"""A request's body as it comes over the wire.

Owns: WireBody. Called by: base/http_server. Never does: decode (a compressed body is its receiver's business: what would
unpack it here would let a few kilobytes become gigabytes).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from k1s.base.http import BodyLost, BodyTooLarge


class WireBody:
    """`wire`: aiohttp's request; `seconds`: how long a body that is read into memory may take."""

    __slots__ = ("_seconds", "_wire")

    def __init__(self, wire: Any, seconds: float) -> None:
        self._wire, self._seconds = wire, seconds

    async def read(self, limit: int) -> bytes:
        """Raises BodyTooLarge, BodyLost."""
        wire = self._wire
        if not wire.body_exists:
            return b""
        length = wire.content_length
        if length is not None and length > limit:
            raise BodyTooLarge(limit)
        self._expect_continue()
        content = wire.content
        chunks, size = [], 0
        try:
            if content.is_eof():  # it came with its head: the usual case
                data: bytes = content.read_nowait()
                if len(data) > limit:
                    raise BodyTooLarge(limit)
                return data
            async with asyncio.timeout(self._seconds):
                async for chunk in content.iter_any():
                    size += len(chunk)
                    if size > limit:
                        raise BodyTooLarge(limit)
                    chunks.append(chunk)
        except TimeoutError:
            self._give_up()
            raise BodyLost(f"no complete body within {self._seconds:g} s", slow=True) from None
        except (BodyTooLarge, asyncio.CancelledError):
            raise
        except Exception as error:  # aiohttp raises many kinds: broken chunks, a connection that is lost
            self._give_up()
            raise BodyLost(str(error) or type(error).__name__) from error
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._wire.body_exists:
            self._expect_continue()
            async for chunk in self._wire.content.iter_any():
                yield chunk

    def _give_up(self) -> None:
        """No further request can follow on this connection."""
        self._wire._protocol.close()

    def _expect_continue(self) -> None:
        transport = self._wire.transport
        if transport is not None and self._wire.headers.get("Expect", "").lower() == "100-continue":
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
