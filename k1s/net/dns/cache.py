"""Answers of upstream resolvers, kept for a while.

Owns: the cache, its bounds, and counting TTLs down. Called by: dns.forward; pure but for the time it is given.
Never does: keep answers of the cluster's own zone (those are as fast as the cache and always current).

Bounds: 4,096 answers and 4 MiB, the longest unused go first; 30 s at most, as upstream's cluster DNS does, because a pod
has its own idea of what is fresh; errors other than "no such name" are not kept here.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from dataclasses import dataclass

from k1s.net.dns import message as messages
from k1s.net.dns import wire
from k1s.net.dns.wire import Name

# name, type, class, flags that change an answer (DO, AD, CD)
Key = tuple[Name, int, int, int]

MOST_ANSWERS, MOST_BYTES = 4096, 4 << 20
MOST_SECONDS = 30


@dataclass(frozen=True, slots=True)
class _Entry:
    message: bytes
    ttl_offsets: tuple[int, ...]
    stored: float
    expires: float


class Cache:
    """Times are monotonic seconds. Messages have no OPT record."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def counts(self) -> tuple[int, int]:
        """(answers, "no such name"s) that are kept."""
        missing = sum(entry.message[3] & 0xF == wire.NXDOMAIN for entry in self._entries.values())
        return len(self._entries) - missing, missing

    def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def get(self, key: Key, now: float) -> tuple[bytes, float] | None:
        """The message with its TTLs counted down, and until when it may be sent as it is; or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now >= entry.expires:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        age = int(now - entry.stored)
        until = min(entry.expires, entry.stored + age + 1)
        if not age:
            return entry.message, until
        message = bytearray(entry.message)
        for offset in entry.ttl_offsets:
            (ttl,) = struct.unpack_from(">I", message, offset)
            struct.pack_into(">I", message, offset, max(ttl - age, 0))
        return bytes(message), until

    def put(self, key: Key, message: bytes, now: float) -> None:
        """Keep what may be kept: a whole answer with records, or a "no" with an SOA. Raises MessageError."""
        flags = struct.unpack_from(">H", message, 2)[0]
        if flags & wire.TRUNCATED or flags & 0xF not in (wire.NOERROR, wire.NXDOMAIN):
            return
        ttls = messages.ttl_places(message)
        seconds = min([MOST_SECONDS, *(ttl for _, ttl in ttls)])
        if not ttls or seconds <= 0:
            return
        if key in self._entries:
            self._remove(key)
        self._entries[key] = _Entry(message, tuple(offset for offset, _ in ttls), now, now + seconds)
        self._bytes += len(message)
        while len(self._entries) > MOST_ANSWERS or self._bytes > MOST_BYTES:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: Key) -> None:
        self._bytes -= len(self._entries.pop(key).message)
