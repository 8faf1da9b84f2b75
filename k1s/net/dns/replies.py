"""Answers ready to be sent, by the bytes of the question.

Owns: the fast path's table. Called by: dns.server. Never does: make an answer (resolver), keep one that may have changed:
a change of a Service forgets all, a change of an EndpointSlice those that were made with one of that Service.

The same question comes as the same bytes but for its identifier, so that nothing has to be read. Addresses of one name are
sent in an order drawn anew each time, as CoreDNS's plugin loadbalance does.

Bound: 4,096 answers and 4 MiB (about 1.5 MB when full of ordinary ones); a full table is emptied.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from k1s.net.dns import message as messages
from k1s.net.dns.answers import ANY_SERVICE
from k1s.net.dns.metrics import Tally
from k1s.net.dns.resolver import Reply

MOST_REPLIES, MOST_BYTES = 4096, 4 << 20
# No question begins like this after its identifier: what came over TCP has answers of its own.
TCP = b"\xff"

# (the answer after its identifier, until when, what counts it, and where addresses stand that may change places: see `drawn`)
Entry = tuple[bytes, float, Tally, int, int, int]


class ReplyTable:
    """`get` is the dictionary's own: (question without identifier) -> Entry."""

    def __init__(self) -> None:
        self._entries: dict[bytes, Entry] = {}
        self._of_endpoints: dict[str, set[bytes]] = {}
        self._bytes = 0
        self.get = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: bytes, reply: Reply, tally: Tally) -> Entry:
        """The entry for the answer; kept if it may be sent again. `key`: the question's bytes after the identifier."""
        start, end, length = messages.movable(reply.message)
        entry = (reply.message[2:], reply.until, tally, start and start - 2, end and end - 2, length)
        if reply.until > 0.0:
            old = self._entries.get(key)
            self._bytes += len(reply.message) - (len(old[0]) + 2 if old is not None else 0)
            if len(self._entries) >= MOST_REPLIES or self._bytes > MOST_BYTES:
                self.forget()
            for service in reply.endpoints:
                self._of_endpoints.setdefault(service, set()).add(key)
            self._entries[key] = entry
        return entry

    def forget(self) -> None:
        self._entries.clear()
        self._of_endpoints.clear()
        self._bytes = 0

    def forget_endpoints(self, services: Iterable[str]) -> None:
        for service in (ANY_SERVICE, *services):
            for key in self._of_endpoints.pop(service, ()):
                entry = self._entries.pop(key, None)
                self._bytes -= len(entry[0]) + 2 if entry is not None else 0


def drawn(identifier: bytes, entry: Entry) -> bytes:
    """The answer under this identifier, beginning with any of its addresses."""
    tail, _, _, start, end, length = entry
    if not length:
        return identifier + tail
    first = start + int(random.random() * ((end - start) // length)) * length
    return b"".join((identifier, tail[:start], tail[first:end], tail[start:first], tail[end:]))
