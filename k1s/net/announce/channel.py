"""Heartbeats on one link, of one address family.

Owns: the socket. Called by: announcer. Never does: read packets' meaning (packet), decide (election).
One link and one family each, because a node that is heard there is one whose answers to ARP or ND are heard there too.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from k1s.net.announce.packet import GROUPS, LARGEST, PORT

# Packets read at a time; the rest waits in the kernel (its default receive buffer, some hundred), which drops what is beyond.
_AT_ONCE = 64


class Channel:
    """`received` gets every packet that came. Raises OSError where the link does not let it be made."""

    def __init__(self, link: str, index: int, version: int, received: Callable[[bytes], None]) -> None:
        self._received, self._index, self._version = received, index, version
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode() + b"\0")
            (self._open_ipv4 if version == 4 else self._open_ipv6)()
        except OSError:
            self._socket.close()
            raise
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    def _open_ipv4(self) -> None:
        group = socket.inet_aton(GROUPS[4])
        here = struct.pack("=4s4si", group, bytes(4), self._index)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, here)
        self._socket.bind((GROUPS[4], PORT))

    def _open_ipv6(self) -> None:
        group = socket.inet_pton(socket.AF_INET6, GROUPS[6])
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1)
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, self._index)
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, struct.pack("=16si", group, self._index))
        self._socket.bind((GROUPS[6], PORT, 0, self._index))

    def send(self, packet: bytes) -> None:
        """Raises OSError: a firewall, or the link is going."""
        address = (GROUPS[4], PORT) if self._version == 4 else (GROUPS[6], PORT, 0, self._index)
        self._socket.sendto(packet, address)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _readable(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                data = self._socket.recv(LARGEST)
            except BlockingIOError:
                return
            self._received(data)
