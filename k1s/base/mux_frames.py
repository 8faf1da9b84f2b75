"""The wire format of a tunnel: frames of many streams on one connection.

Owns: encoding and cutting of frames. Called by: base/mux. Never does: know what a stream is in the middle of.

A frame is a head of 8 bytes, big endian: kind (1), stream id (4), length of the payload (3); then the payload.

kind    payload               meaning
OPEN    target, UTF-8         the opener's first frame of a stream; its ids grow and are never used again
OPENED  -                     the other side has connected the target
DATA    1 to 32 KiB           bytes, never more than the window allows
CREDIT  4 bytes, big endian   so many more bytes may be sent
END     -                     no more bytes will come; those of the other direction are still wanted
CLOSE   -                     no more bytes will come, and none are wanted
RESET   errno (2), UTF-8      the stream is over at once; as an answer to OPEN: the target cannot be had

Each direction of a stream begins with a window of 256 KiB. Bytes may be sent before OPENED. A frame for a stream that is over is
ignored, since it may have crossed the end; everything else that does not fit is a fault of the other side and ends the
connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

HEAD_BYTES = 8
MAX_DATA = 32 * 1024
MAX_TEXT = 512
MAX_ID = 0xFFFFFFFF


class Kind(IntEnum):
    OPEN = 1
    OPENED = 2
    DATA = 3
    CREDIT = 4
    END = 5
    CLOSE = 6
    RESET = 7


_LONGEST = {
    Kind.OPEN: MAX_TEXT,
    Kind.OPENED: 0,
    Kind.DATA: MAX_DATA,
    Kind.CREDIT: 4,
    Kind.END: 0,
    Kind.CLOSE: 0,
    Kind.RESET: MAX_TEXT,
}
_KINDS = {int(kind): kind for kind in Kind}


class MuxError(ConnectionError):
    """The other side broke the protocol: the connection is of no use any more."""


def head(kind: Kind, stream: int, length: int = 0) -> bytes:
    return (kind << 56 | stream << 24 | length).to_bytes(HEAD_BYTES, "big")


def frame(kind: Kind, stream: int, payload: bytes = b"") -> bytes:
    return head(kind, stream, len(payload)) + payload


def reset(stream: int, number: int, reason: str) -> bytes:
    """A RESET frame; `number` is an errno."""
    return frame(Kind.RESET, stream, (number & 0xFFFF).to_bytes(2, "big") + reason.encode()[: MAX_TEXT - 2])


class FrameReader:
    """Cuts what arrives into frames; keeps at most one that is not complete."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, int, bytes]]:
        """(kind, stream id, payload) of each frame that is complete now. Raises MuxError."""
        rest = self._rest
        rest += data
        start, size = 0, len(rest)
        try:
            while size - start >= HEAD_BYTES:
                value = int.from_bytes(rest[start : start + HEAD_BYTES], "big")
                kind, length = _KINDS.get(value >> 56), value & 0xFFFFFF
                if kind is None:
                    raise MuxError(f"unknown frame {value >> 56}")
                if length > _LONGEST[kind]:
                    raise MuxError(f"{kind.name} frame of {length} bytes")
                end = start + HEAD_BYTES + length
                if end > size:
                    return
                payload = bytes(rest[start + HEAD_BYTES : end])
                start = end
                yield kind, value >> 24 & MAX_ID, payload
        finally:
            del rest[:start]
