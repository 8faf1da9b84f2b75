"""Telling the LAN where an address is now: gratuitous ARP and unsolicited neighbour advertisements.

Owns: the packets and sending them. Called by: announcer. Never does: hold the address (holder), decide.
Source: RFC 826 and 5227 section 3 (announcement), RFC 4861 section 7.2.6.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

_ETHERTYPE_ARP = 0x0806
_BROADCAST = b"\xff" * 6
_REQUEST, _REPLY = 1, 2
_ADVERTISEMENT = 136
_OVERRIDE = 0x20000000
_TARGET_LINK_ADDRESS = 2
_ALL_NODES = "ff02::1"


def arp_frames(address: str, mac: bytes) -> list[bytes]:
    """As request and as reply: some neighbours heed the one only, some the other."""
    ip = ipaddress.IPv4Address(address).packed
    frames = []
    for operation in (_REQUEST, _REPLY):
        target = bytes(6) if operation == _REQUEST else mac
        head = _BROADCAST + mac + struct.pack("!H", _ETHERTYPE_ARP)
        frames.append(head + struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + mac + ip + target + ip)
    return frames


def advertisement(address: str, mac: bytes) -> bytes:
    """The ICMPv6 message; the kernel fills in the checksum."""
    option = struct.pack("!BB", _TARGET_LINK_ADDRESS, 1) + mac
    return struct.pack("!BBHI", _ADVERTISEMENT, 0, 0, _OVERRIDE) + ipaddress.IPv6Address(address).packed + option


def announce(address: str, link: str, index: int, mac: bytes) -> None:
    """Send it out of that link. Raises OSError, as when the link has just gone."""
    if ":" not in address:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((link, _ETHERTYPE_ARP))
            for frame in arp_frames(address, mac):
                raw.send(frame)
        return
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as icmp:
        icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        icmp.sendto(advertisement(address, mac), (_ALL_NODES, 0, 0, index))
