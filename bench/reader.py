"""Reads HTTP/1.1 responses as cheaply as Python can: counts bodies instead of keeping them.

Owns: framing (Content-Length, chunked, none for 204 and 304). Called by: load. Never does: TLS, decoding, HEAD.
A general client costs more per request than the server under test; with this one the figures are the server's.
"""

from __future__ import annotations

MAX_HEAD_BYTES = 64 * 1024
_END_OF_HEAD = b"\r\n\r\n"


class BadResponse(Exception):
    """What the server sent is not HTTP/1.1, or not a kind this reader knows."""


class ResponseReader:
    """`feed` it what arrives; it returns how many responses are now complete. `status` is that of the last head.

    With `keep`, `body` is the last response's body; without, only `body_bytes` counts, over all responses.
    """

    __slots__ = ("_chunked", "_keep", "_left", "_pending", "_state", "body", "body_bytes", "status")

    HEAD, BODY, SIZE, DATA, TRAILER = range(5)

    def __init__(self, *, keep: bool = False) -> None:
        self.status = 0
        self.body = bytearray()
        self.body_bytes = 0
        self._keep = keep
        self._state = self.HEAD
        self._pending = bytearray()
        self._left = 0

    def feed(self, data: bytes | memoryview) -> int:
        finished = 0
        view = memoryview(data)
        while len(view):
            if self._state in (self.BODY, self.DATA):
                view, done = self._take_body(view)
            else:
                view, done = self._take_lines(view)
            finished += done
        return finished

    def _take_body(self, view: memoryview) -> tuple[memoryview, int]:
        size = min(self._left, len(view))
        self._left -= size
        if self._state == self.BODY:
            self._count(view[:size])
        else:
            # The two bytes after a chunk are framing.
            payload = min(size, max(0, self._left + size - 2))
            self._count(view[:payload])
        if self._left:
            return view[size:], 0
        if self._state == self.BODY:
            self._state = self.HEAD
            return view[size:], 1
        self._state = self.SIZE
        return view[size:], 0

    def _count(self, payload: memoryview) -> None:
        self.body_bytes += len(payload)
        if self._keep:
            self.body += payload

    def _take_lines(self, view: memoryview) -> tuple[memoryview, int]:
        """A head, or one line of the chunked framing."""
        end = _END_OF_HEAD if self._state == self.HEAD else b"\r\n"
        had = len(self._pending)
        self._pending += view
        at = self._pending.find(end, max(0, had - len(end) + 1))
        if at < 0:
            if len(self._pending) > MAX_HEAD_BYTES:
                raise BadResponse("a head without an end")
            return view[len(view) :], 0
        text = bytes(self._pending[:at])
        rest = view[at + len(end) - had :]
        self._pending.clear()
        if self._state == self.HEAD:
            return rest, self._head(text)
        if self._state == self.SIZE:
            self._left = int(text.partition(b";")[0], 16) + 2
            if self._left == 2:
                self._state = self.TRAILER
            else:
                self._state = self.DATA
            return rest, 0
        if text:
            return rest, 0  # a trailer field
        self._state = self.HEAD
        return rest, 1

    def _head(self, text: bytes) -> int:
        if not text.startswith(b"HTTP/1.1 "):
            raise BadResponse(repr(text[:40]))
        self.status = int(text[9:12])
        self.body.clear()
        if 100 <= self.status < 200:
            return 0
        if self.status in (204, 304):
            return 1
        lower = text.lower()
        if b"\r\ntransfer-encoding: chunked" in lower:
            self._state = self.SIZE
            return 0
        _, found, tail = lower.partition(b"\r\ncontent-length:")
        if not found:
            raise BadResponse("neither Content-Length nor chunked")
        self._left = int(tail.partition(b"\r\n")[0])
        if self._left == 0:
            return 1
        self._state = self.BODY
        return 0
