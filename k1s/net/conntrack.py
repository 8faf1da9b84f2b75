"""Cutting UDP flows whose target is gone.

Owns: the netlink messages of the connection tracker (list, delete). Called by: proxy.apply.
Never does: touch TCP (it notices by itself) or flows of others.

A UDP flow keeps its translation as long as packets come, so a client with a fixed source port would talk to a dead pod for
ever.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from k1s.net.family import Family
from k1s.net.netlink import attribute, attributes

_NETLINK_NETFILTER = 12
_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
_TUPLE_ORIGINAL, _TUPLE_REPLY, _ID = 1, 2, 12
_UDP = 17
_BUFFER = 1 << 18


class Unsupported(Exception):
    """This kernel does not let programs see its connection tracker (nf_conntrack_netlink is missing)."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A UDP flow: where its first packet was going, and who answers it. `handle` is what a delete has to name."""

    destination: str
    port: int
    replier: str
    replier_port: int
    handle: bytes


async def cut_udp(family: Family, frontends: Mapping[str, frozenset[str]]) -> None:
    """Delete flows to these frontends (`address . udp . port` or `udp . port`) that do not go to one of their targets.

    Raises Unsupported.
    """
    await asyncio.get_running_loop().run_in_executor(None, _cut, family, frontends)


def _cut(family: Family, frontends: Mapping[str, frozenset[str]]) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        stale = [flow for flow in _flows(netlink, family) if is_stale(flow, frontends, _is_own)]
        for flow in stale:
            _send(netlink, family, _DELETE, _REQUEST | _ACK, flow.handle)
            for kind, body in _messages(netlink):
                if kind == _ERROR:
                    _raise(body)
                    break


def is_stale(flow: Flow, frontends: Mapping[str, frozenset[str]], is_own: Callable[[str], bool]) -> bool:
    target = f"{flow.replier} . {flow.replier_port}"
    targets = frontends.get(f"{flow.destination} . udp . {flow.port}")
    if targets is not None:
        return target not in targets
    targets = frontends.get(f"udp . {flow.port}")
    if targets is None or target in targets:
        return False
    # A node port is any address of the node: flows that were never translated may be passing through to somebody else.
    translated = (flow.replier, flow.replier_port) != (flow.destination, flow.port)
    return translated or is_own(flow.destination)


def _is_own(address: str) -> bool:
    """Is it an address of this host?"""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _flows(netlink: socket.socket, family: Family) -> Iterator[Flow]:
    _send(netlink, family, _GET, _REQUEST | _DUMP, b"")
    for kind, body in _messages(netlink):
        if kind == _DONE:
            return
        if kind == _ERROR:
            _raise(body)
        flow = _parse(body[4:])
        if flow is not None:
            yield flow


def _parse(body: bytes) -> Flow | None:
    found = dict(attributes(body))
    if not {_TUPLE_ORIGINAL, _TUPLE_REPLY, _ID} <= found.keys():
        return None
    original, reply = _tuple(found[_TUPLE_ORIGINAL]), _tuple(found[_TUPLE_REPLY])
    if original is None or reply is None:
        return None
    handle = attribute(_TUPLE_ORIGINAL | 0x8000, found[_TUPLE_ORIGINAL]) + attribute(_ID, found[_ID])
    return Flow(original[1], original[2], reply[0], reply[3], handle)


def _tuple(data: bytes) -> tuple[str, str, int, int] | None:
    """(source, destination, destination port, source port) of a UDP tuple, None for other protocols."""
    parts = dict(attributes(data))
    ip, proto = dict(attributes(parts.get(1, b""))), dict(attributes(parts.get(2, b"")))
    if proto.get(1, b"\0")[0] != _UDP:
        return None
    version = socket.AF_INET if 1 in ip else socket.AF_INET6
    source, destination = (ip[1], ip[2]) if 1 in ip else (ip[3], ip[4])
    (source_port,), (port,) = struct.unpack(">H", proto[2]), struct.unpack(">H", proto[3])
    return socket.inet_ntop(version, source), socket.inet_ntop(version, destination), port, source_port


def _send(netlink: socket.socket, family: Family, kind: int, flags: int, body: bytes) -> None:
    version = socket.AF_INET if family.version == 4 else socket.AF_INET6
    payload = struct.pack("=BBH", version, 0, 0) + body
    netlink.send(struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload)


def _messages(netlink: socket.socket) -> Iterator[tuple[int, bytes]]:
    while True:
        data = netlink.recv(_BUFFER)
        offset = 0
        while offset + 16 <= len(data):
            size, kind = struct.unpack_from("=IH", data, offset)
            yield kind, data[offset + 16 : offset + size]
            offset += (size + 3) & ~3


def _raise(body: bytes) -> None:
    (code,) = struct.unpack_from("=i", body)
    if -code in (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT):
        raise Unsupported(f"the kernel lacks nf_conntrack_netlink ({os.strerror(-code)})")
    # ENOENT: the flow ended by itself meanwhile.
    if code not in (0, -errno.ENOENT):
        raise OSError(-code, f"connection tracker: {os.strerror(-code)}")
