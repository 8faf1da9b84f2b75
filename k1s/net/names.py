"""The names k1s gives to things in the kernel.

Owns: link and table names. Called by: everything in net that makes or removes them. Never does: I/O.
All begin with k1s, so that uninstall knows its own, and nftables names contain a dash, so that none is a keyword.
"""

from __future__ import annotations

import hashlib
import re

BRIDGE = "k1s0"
DNS_LINK = "k1s-dns"
VXLAN = "k1s-vxlan"
BALANCER_LINK = "k1s-lb"
LINKS = (BRIDGE, DNS_LINK, VXLAN, BALANCER_LINK)
MASQUERADE_TABLE = "k1s-masq"
HOSTPORT_TABLE = "k1s-hostport"
PROXY_TABLE = "k1s-proxy"
POLICY_TABLE = "k1s-policy"
TABLE_PREFIX = "k1s-"

# Of the host ends of pods' pairs, and of nothing else.
VETH_PREFIX = "k1sv"

_VETH = re.compile(VETH_PREFIX + r"[0-9a-f]{10}")


def veth(container_id: str, interface: str) -> str:
    """The host end of a sandbox's interface: the same for ADD, CHECK and DEL. 14 characters, the kernel takes 15."""
    return VETH_PREFIX + hashlib.sha256(f"{container_id}/{interface}".encode()).hexdigest()[:10]


def is_veth(name: str) -> bool:
    return _VETH.fullmatch(name) is not None
