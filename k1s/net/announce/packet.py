"""The heartbeat by which nodes tell each other which pool addresses they can hold, and do hold.

Owns: the packet (UDP, port 8473, to a multicast group of the link) and its authentication. Called by: channel; pure.
Never does: I/O; decide (election).

    "k1sL" 1 | boot 8 | number 8 | length of name 1 | name | count 2 | count x (flags 1, address 4 or 16) | HMAC 16

The HMAC (SHA-256, half of it) covers all before it and keeps strangers on the LAN from silencing a node or waking a dead one;
`boot` and `number` keep recorded packets from doing so (election). One packet holds what one IPv4 or IPv6 datagram of 8 KiB
holds: over 1,600 IPv4 or 480 IPv6 addresses; what is beyond is not offered (the announcer logs it).
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import struct
from dataclasses import dataclass
from functools import lru_cache

PORT = 8473
# RFC 3692-style experiments of the link (RFC 4727): no router passes them on.
GROUPS = {4: "224.0.0.254", 6: "ff02::114"}
LARGEST = 8192

_MAGIC = b"k1sL\x01"
_HEAD = struct.Struct("!5sQQB")
_HELD, _OFFERED = 1, 2
_MAC = 16
_NAME = 253
# Of heartbeats that say what the last ones said, which most do.
_REMEMBERED = 128


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """`boot` is random for each start of the sender, `number` grows with each of its packets."""

    node: str
    boot: int
    number: int
    offered: frozenset[str]
    held: frozenset[str]


def fits(version: int, node: str) -> int:
    """How many addresses a heartbeat of that node can name."""
    return (LARGEST - _HEAD.size - len(node.encode()) - 2 - _MAC) // (1 + _size(version))


def encode(beat: Heartbeat, version: int, key: bytes) -> bytes:
    name = beat.node.encode()
    entries = _entries(beat.offered, beat.held, version)
    count = len(entries) // (1 + _size(version))
    body = _HEAD.pack(_MAGIC, beat.boot, beat.number, len(name)) + name + struct.pack("!H", count) + entries
    return body + _mac(body, version, key)


def decode(data: bytes, version: int, key: bytes) -> Heartbeat | None:
    """None for what is no heartbeat of somebody who has the key."""
    body, mac = data[:-_MAC], data[-_MAC:]
    if not body.startswith(_MAGIC) or not hmac.compare_digest(mac, _mac(body, version, key)):
        return None
    # Whoever has the key is trusted to write packets as they should be, but perhaps of a later version.
    if len(body) < _HEAD.size:
        return None
    _, boot, number, length = _HEAD.unpack_from(body)
    end = _HEAD.size + length
    if len(body) < end + 2 or not 0 < length <= _NAME:
        return None
    (count,) = struct.unpack_from("!H", body, end)
    size = 1 + _size(version)
    if len(body) != end + 2 + count * size:
        return None
    offered, held = _read_entries(body[end + 2 :], version)
    return Heartbeat(body[_HEAD.size : end].decode(errors="replace"), boot, number, offered, held)


@lru_cache(_REMEMBERED)
def _entries(offered: frozenset[str], held: frozenset[str], version: int) -> bytes:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    parts = []
    for address in sorted(offered | held):
        flags = (_HELD if address in held else 0) | (_OFFERED if address in offered else 0)
        parts.append(bytes([flags]) + socket.inet_pton(family, address))
    return b"".join(parts)


@lru_cache(_REMEMBERED)
def _read_entries(data: bytes, version: int) -> tuple[frozenset[str], frozenset[str]]:
    """(offered, held)"""
    size = 1 + _size(version)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    found = [(data[at], socket.inet_ntop(family, data[at + 1 : at + size])) for at in range(0, len(data), size)]
    offered = frozenset(address for flags, address in found if flags & _OFFERED)
    return offered, frozenset(address for flags, address in found if flags & _HELD)


def _size(version: int) -> int:
    return 4 if version == 4 else 16


def _mac(body: bytes, version: int, key: bytes) -> bytes:
    return hmac.digest(key, bytes([version]) + body, hashlib.sha256)[:_MAC]
