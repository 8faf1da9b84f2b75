"""What differs between IPv4 and IPv6 in rules, maps and addresses.

Owns: Family and the two of them. Called by: every plan that writes nftables text. Never does: I/O.
Code loops over families, so that dual stack is one more entry in a tuple.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Family:
    """`name` is nft's table family and the keyword in front of saddr; `kind` the API's name in ipFamilies."""

    version: int
    name: str
    kind: str
    address_type: str
    loopback: str
    host_bits: int

    def owns(self, address: str) -> bool:
        """Is `address` an address of this family? False for what is no address at all."""
        try:
            # Thirty times as fast as ipaddress, and this is asked for every endpoint.
            socket.inet_pton(socket.AF_INET if self.version == 4 else socket.AF_INET6, address)
        except (OSError, ValueError):
            return False
        return True


IPV4 = Family(4, "ip", "IPv4", "ipv4_addr", "127.0.0.0/8", 32)
IPV6 = Family(6, "ip6", "IPv6", "ipv6_addr", "::1/128", 128)


def parse_address(text: str) -> Address | None:
    """The address, or None where the API lets through what is none ("None", "", a host name)."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def parse_network(text: str) -> Network | None:
    """The range, host bits forgiven, or None for what is none."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def family_of(network: Network | Address) -> Family:
    return IPV4 if network.version == 4 else IPV6
