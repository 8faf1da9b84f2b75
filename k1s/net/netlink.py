"""One exchange with the kernel over a route netlink socket: messages, attributes, acknowledgements.

Owns: framing and its errors. Called by: link, route, veth, overlay, conntrack. Never does: know what a link or a route is.
Blocks for as long as the kernel takes (well below a millisecond); the socket belongs to the network namespace that the thread
was in when it was opened.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCLUSIVE, CREATE = 0x100, 0x200, 0x400
NESTED = 0x8000

_NETLINK_ROUTE, _SOL_NETLINK = 0, 270
# Reasons in words, and no copy of the request in errors. Kernels from 4.12 on.
_CAP_ACK, _EXT_ACK = 10, 11
_ERROR, _DONE = 2, 3
_DUMP_INTERRUPTED, _HAS_REASON = 0x10, 0x200
_REASON = 1
_BUFFER = 1 << 16
# A dump that links come and go under is asked for again, this often at most.
_DUMPS = 5


class NetlinkError(Exception):
    """The kernel refused; `code` is the errno."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(os.strerror(code) + (f" ({reason})" if reason else ""))
        self.code = code


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def packed(address: str) -> bytes:
    return socket.inet_pton(family_of(address), address)


def packed_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, offset)
        if size < 4:
            return
        # The two highest bits say how to read the value, not what it is.
        yield kind & 0x3FFF, data[offset + 4 : offset + size]
        offset += (size + 3) & ~3


class RouteSocket:
    """For one thread, as a context manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
        self._sequence = 0

    def __enter__(self) -> RouteSocket:
        for option in (_CAP_ACK, _EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def change(self, kind: int, payload: bytes, flags: int = 0) -> None:
        """Returns once the kernel has done it. Raises NetlinkError."""
        self._send(kind, REQUEST | ACK | flags, payload)
        for _ in self._answers():
            pass

    def get(self, kind: int, payload: bytes) -> bytes:
        """The one object asked for. Raises NetlinkError."""
        self._send(kind, REQUEST | ACK, payload)
        answers = list(self._answers())
        return answers[0][0]

    def dump(self, kind: int, payload: bytes) -> list[bytes]:
        """All objects of a kind. Raises NetlinkError."""
        found: list[tuple[bytes, int]] = []
        for _ in range(_DUMPS):
            self._send(kind, REQUEST | DUMP, payload)
            found = list(self._answers())
            if not any(flags & _DUMP_INTERRUPTED for _, flags in found):
                break
        return [body for body, _ in found]

    def _send(self, kind: int, flags: int, payload: bytes) -> None:
        self._sequence += 1
        self._socket.send(struct.pack("=IHHII", 16 + len(payload), kind, flags, self._sequence, 0) + payload)

    def _answers(self) -> Iterator[tuple[bytes, int]]:
        """(body, flags) of every message up to the acknowledgement or the end of the dump."""
        while True:
            data = self._socket.recv(_BUFFER)
            offset = 0
            while offset + 16 <= len(data):
                size, kind, flags, sequence = struct.unpack_from("=IHHI", data, offset)
                body = data[offset + 16 : offset + size]
                offset += (size + 3) & ~3
                if sequence != self._sequence:
                    continue
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    _check(body, flags)
                    return
                yield body, flags


def _check(body: bytes, flags: int) -> None:
    (code,) = struct.unpack_from("=i", body)
    if code == 0:
        return
    reasons = dict(attributes(body[20:])) if flags & _HAS_REASON else {}
    raise NetlinkError(-code, reasons.get(_REASON, b"").rstrip(b"\0").decode(errors="replace"))
