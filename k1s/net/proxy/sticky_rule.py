"""The one rule that nftables' own library cannot write: remembering an IPv6 client's target.

Owns: that rule's netlink message. Called by: proxy.apply, in nft's thread. Never does: any other rule.

libnftables (seen up to 1.0.6) reserves 16 bytes for key and for value of a map statement, however long they are, and ends the
process when they do not fit; the kernel itself takes 64. So this rule is put together here: the expressions are those of the
IPv4 rule in proxy.table, which `nft --debug=netlink` shows.
"""

from __future__ import annotations

import os
import socket
import struct

from k1s.net.names import PROXY_TABLE
from k1s.net.netlink import ACK, CREATE, NESTED, REQUEST, attribute
from k1s.net.nft import NftError

_NETLINK_NETFILTER, _SUBSYSTEM = 12, 10
_BATCH_BEGIN, _BATCH_END, _NEW_RULE, _APPEND, _ERROR = 0x10, 0x11, (_SUBSYSTEM << 8) | 6, 0x800, 2
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_ELEMENT, _NAME, _DATA = 1, 1, 2
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_L4PROTO, _CT_PROTO_DST, _CT_DST_IP6 = 16, 12, 22
_UPDATE = 1
# Registers of 4 bytes. The key takes ten of the sixteen (address, address, protocol, port), the value five (address, port).
_FIRST = 8
_KEY, _FRONTEND, _PROTOCOL, _PORT, _TARGET, _TARGET_PORT = (_FIRST + number for number in (0, 4, 8, 9, 10, 14))
_SECONDS = 5.0


def append(chain: str, seconds: int) -> None:
    """Add to the chain: update @affinity { client . frontend . protocol . port timeout `seconds` : target . port }."""
    expressions = (
        _payload(_NETWORK_HEADER, 8, 16, _KEY)
        + _expression("ct", _number(1, _FRONTEND) + _number(2, _CT_DST_IP6) + attribute(3, b"\0"))
        + _expression("meta", _number(1, _PROTOCOL) + _number(2, _L4PROTO))
        + _expression("ct", _number(1, _PORT) + _number(2, _CT_PROTO_DST) + attribute(3, b"\0"))
        + _payload(_NETWORK_HEADER, 24, 16, _TARGET)
        + _payload(_TRANSPORT_HEADER, 2, 2, _TARGET_PORT)
        + _expression(
            "dynset",
            attribute(1, b"affinity\0")
            + _number(3, _UPDATE)
            + _number(4, _KEY)
            + _number(5, _TARGET)
            + attribute(6, struct.pack(">Q", seconds * 1000)),
        )
    )
    rule = (
        attribute(_RULE_TABLE, PROXY_TABLE.encode() + b"\0")
        + attribute(_RULE_CHAIN, chain.encode() + b"\0")
        + attribute(_RULE_EXPRESSIONS | NESTED, expressions)
    )
    _commit(_message(_NEW_RULE, REQUEST | CREATE | _APPEND | ACK, socket.AF_INET6, 0, rule))


def _payload(base: int, offset: int, size: int, register: int) -> bytes:
    return _expression("payload", _number(1, register) + _number(2, base) + _number(3, offset) + _number(4, size))


def _expression(name: str, data: bytes) -> bytes:
    return attribute(_ELEMENT | NESTED, attribute(_NAME, name.encode() + b"\0") + attribute(_DATA | NESTED, data))


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value))


def _message(kind: int, flags: int, family: int, resource: int, body: bytes) -> bytes:
    payload = struct.pack(">BBH", family, 0, resource) + body
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload


def _commit(rule: bytes) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.settimeout(_SECONDS)
        begin, end = (_message(kind, REQUEST, socket.AF_UNSPEC, _SUBSYSTEM, b"") for kind in (_BATCH_BEGIN, _BATCH_END))
        netlink.send(begin + rule + end)
        data = netlink.recv(1 << 16)
    kind, code = struct.unpack_from("=4xH10xi", data)
    if kind != _ERROR or code:
        raise NftError(f"session affinity for IPv6 is refused by the kernel: {os.strerror(-code)}")
