"""A pod's pair of links: one end on the bridge, the other in the pod's namespace.

Owns: making and configuring the pair. Called by: cni.wire; always in a worker thread. Never does: choose names and addresses.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from dataclasses import dataclass

from k1s.net.link import (
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    INFO_DATA,
    INFO_KIND,
    NEW_LINK,
    SET_LINK,
    LinkError,
    add_address,
    index_of,
    link_message,
    opened,
)
from k1s.net.netlink import CREATE, EXCLUSIVE, NESTED, RouteSocket, attribute, number, packed, packed_mac, text
from k1s.net.route import Route, replace

_SIOCGIFHWADDR = 0x8927
_IFLA_PROTINFO, _IFLA_NET_NS_FD, _VETH_PEER, _BRPORT_MODE = 12, 28, 1, 4
_AF_BRIDGE = 7


@dataclass(frozen=True, slots=True)
class PodInterface:
    """What a pod's namespace gets: `addresses` without prefix, each reached and left only through the gateway of its family."""

    name: str
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    mtu: int

    @property
    def mac(self) -> str:
        """Made from the address, so that a pair that is made anew is met where neighbours remember it."""
        return bytes((0x0A, 0x58, *packed(self.addresses[0])[-4:])).hex(":")


def add(host_end: str, pod: PodInterface, bridge: int, netns: int) -> None:
    """A veth pair: one end on the bridge and up, the other (`pod.name`) in the namespace of the descriptor `netns`."""
    with opened(f"veth {host_end}") as route:
        mtu = number(IFLA_MTU, pod.mtu)
        hardware = attribute(IFLA_ADDRESS, packed_mac(pod.mac))
        peer = link_message() + text(IFLA_IFNAME, pod.name) + mtu + hardware + number(_IFLA_NET_NS_FD, netns)
        data = attribute(INFO_DATA | NESTED, attribute(_VETH_PEER | NESTED, peer))
        info = attribute(IFLA_LINKINFO | NESTED, text(INFO_KIND, "veth") + data)
        # Master and state must stand on this end: inside the peer the kernel never sees them.
        ours = link_message(up=True) + text(IFLA_IFNAME, host_end) + mtu + number(IFLA_MASTER, bridge)
        route.change(NEW_LINK, ours + info, CREATE | EXCLUSIVE)
        _hairpin(route, host_end)


def attach(host_end: str, bridge: int, mtu: int) -> None:
    """An end that is there, back on the bridge and up."""
    with opened(f"veth {host_end}") as route:
        index = index_of(host_end)
        if index is None:
            raise LinkError(f"veth {host_end} is gone")
        route.change(SET_LINK, link_message(index, up=True) + number(IFLA_MASTER, bridge) + number(IFLA_MTU, mtu))
        _hairpin(route, host_end)


def _hairpin(route: RouteSocket, host_end: str) -> None:
    """So that a pod may reach itself through the bridge. Not isolated: where br_netfilter is loaded it sends translated
    packets from port to port below the IP stack, and isolation would drop them."""
    index = index_of(host_end)
    if index is None:
        raise LinkError(f"veth {host_end} vanished while it was made")
    mode = attribute(_IFLA_PROTINFO | NESTED, attribute(_BRPORT_MODE, b"\1"))
    route.change(SET_LINK, link_message(index, family=_AF_BRIDGE) + mode)


def configure_pod(pod: PodInterface) -> str:
    """Inside a pod's namespace: lo and the pod's interface up, its addresses, every route through the gateways.

    The addresses have no on-link range, so that pods of one node also meet the host's IP stack: replies to a translated
    service address find their way back without br_netfilter. Returns the interface's hardware address.
    """
    with opened(f"pod interface {pod.name}") as route:
        index = index_of(pod.name)
        if index is None:
            raise LinkError(f"interface {pod.name} is not in the pod's namespace")
        route.change(SET_LINK, link_message(1, up=True))
        for address in pod.addresses:
            add_address(route, index, f"{address}/{_bits(address)}")
        route.change(SET_LINK, link_message(index, up=True) + number(IFLA_MTU, pod.mtu))
        for gateway in pod.gateways:
            replace(route, Route(f"{gateway}/{_bits(gateway)}"), index)
            replace(route, Route("::/0" if ":" in gateway else "0.0.0.0/0", gateway=gateway), index)
        return _mac(pod.name)


def _bits(address: str) -> int:
    return 128 if ":" in address else 32


def _mac(name: str) -> str:
    request = struct.pack("16s24x", name.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFHWADDR, request)
    return answer[18:24].hex(":")
