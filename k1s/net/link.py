"""Links, addresses and routes of the calling thread's network namespace.

Owns: rtnetlink's messages for the few things k1s does. Called by: agent.network.app, cni.add, cni.delete, teardown; always in a
worker thread, because it blocks and because namespaces are entered by thread. Never does: decide which links there should be.
Everything named `ensure_` may be repeated.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from k1s.net.netlink import CREATE, EXCLUSIVE, NESTED, REPLACE, NetlinkError, RouteSocket, attribute, attributes

_SIOCGIFHWADDR = 0x8927
_NEW_LINK, _DELETE_LINK, _GET_LINK, _SET_LINK = 16, 17, 18, 19
_NEW_ADDRESS, _DELETE_ADDRESS, _GET_ADDRESS = 20, 21, 22
_NEW_ROUTE, _GET_ROUTE = 24, 26
# linux/if_link.h, if_addr.h, rtnetlink.h
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_PROTINFO, _IFLA_LINKINFO = 1, 3, 4, 10, 12, 18
_IFLA_NET_NS_FD, _IFLA_EXT_MASK, _INFO_KIND, _INFO_DATA, _VETH_PEER, _BRPORT_MODE = 28, 29, 1, 2, 1, 4
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_UP, _AF_BRIDGE = 1, 7
_MAIN, _STATIC, _UNICAST, _SCOPE_LINK, _SCOPE_UNIVERSE = 254, 4, 1, 253, 0
_WITHOUT_STATISTICS = struct.pack("=I", 8)


class LinkError(Exception):
    """The kernel refused a change; the message names the link and the kernel's reason."""


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str
    kind: str
    mtu: int
    mac: str
    up: bool


@dataclass(frozen=True, slots=True)
class PodInterface:
    """What a pod's namespace gets: `address` without prefix, reached and left only through `gateway`."""

    name: str
    address: str
    gateway: str
    mtu: int


@contextmanager
def _netlink(what: str) -> Iterator[RouteSocket]:
    try:
        with RouteSocket() as route:
            yield route
    except NetlinkError as error:
        raise LinkError(f"{what}: {error}") from error


def _link_message(index: int = 0, *, up: bool = False, family: int = socket.AF_UNSPEC) -> bytes:
    flags = _UP if up else 0
    return struct.pack("=BxHiII", family, 0, index, flags, flags)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _packed(address: str) -> bytes:
    return socket.inet_pton(_family(address), address)


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _as_link(message: bytes) -> Link:
    _, _, index, flags, _ = struct.unpack_from("=BxHiII", message)
    fields = dict(attributes(message[16:]))
    info = dict(attributes(fields.get(_IFLA_LINKINFO, b"")))
    return Link(
        index=index,
        name=_string(fields.get(_IFLA_IFNAME, b"")),
        kind=_string(info.get(_INFO_KIND, b"")),
        mtu=int(struct.unpack("=I", fields.get(_IFLA_MTU, bytes(4)))[0]),
        mac=fields.get(_IFLA_ADDRESS, b"").hex(":"),
        up=bool(flags & _UP),
    )


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _link_of(route: RouteSocket, index: int) -> Link:
    return _as_link(route.get(_GET_LINK, _link_message(index) + attribute(_IFLA_EXT_MASK, _WITHOUT_STATISTICS)))


def _index(name: str) -> int | None:
    """By ioctl: a lookup through netlink would read every link of the host, one per pod."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def _mac(name: str) -> str:
    request = struct.pack("16s24x", name.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFHWADDR, request)
    return answer[18:24].hex(":")


def links() -> list[Link]:
    with _netlink("listing links") as route:
        request = _link_message() + attribute(_IFLA_EXT_MASK, _WITHOUT_STATISTICS)
        return [_as_link(message) for message in route.dump(_GET_LINK, request)]


def find(name: str) -> Link | None:
    with _netlink(f"link {name}") as route:
        index = _index(name)
        return _link_of(route, index) if index is not None else None


def _addresses(route: RouteSocket, family: int, index: int | None) -> Iterator[tuple[str, int]]:
    """(address, prefix length), of every link where `index` is None."""
    for message in route.dump(_GET_ADDRESS, struct.pack("=BBBBI", family, 0, 0, 0, 0)):
        kind, prefix, _, _, owner = struct.unpack_from("=BBBBI", message)
        fields = dict(attributes(message[8:]))
        # IFA_ADDRESS is the peer on point-to-point links; IFA_LOCAL is ours where there is one.
        value = fields.get(_IFA_LOCAL) or fields.get(_IFA_ADDRESS)
        if value and index in (None, owner):
            yield socket.inet_ntop(kind, value), prefix


def addresses(name: str = "") -> list[str]:
    """`address/prefix` of one link or of all."""
    with _netlink(f"addresses of {name or 'all links'}") as route:
        index = _index(name) if name else None
        if name and index is None:
            return []
        return [f"{address}/{prefix}" for address, prefix in _addresses(route, socket.AF_UNSPEC, index)]


def uplink() -> Link | None:
    """The link of the default route with the best metric, or None on a host without one."""
    with _netlink("default route") as route:
        best: tuple[int, int] | None = None
        for message in route.dump(_GET_ROUTE, struct.pack("=BBBBBBBBI", socket.AF_INET, *bytes(7), 0)):
            prefix, table = message[1], message[4]
            fields = dict(attributes(message[12:]))
            if prefix == 0 and table == _MAIN and _RTA_OIF in fields:
                (metric,) = struct.unpack("=I", fields.get(_RTA_PRIORITY, bytes(4)))
                found = (metric, struct.unpack("=I", fields[_RTA_OIF])[0])
                best = found if best is None or metric < best[0] else best
        return _link_of(route, best[1]) if best is not None else None


def ensure_link(name: str, kind: str, *, mtu: int = 0, mac: str = "", addresses: Sequence[str] = ()) -> int:
    """A link of that kind, up, with (at least) these addresses. Returns its index."""
    with _netlink(f"link {name}") as route:
        if _index(name) is None:
            info = attribute(_IFLA_LINKINFO | NESTED, _text(_INFO_KIND, kind))
            _create(route, _NEW_LINK, _link_message() + _text(_IFLA_IFNAME, name) + info)
        index = _index(name)
        if index is None:
            raise LinkError(f"link {name} vanished while it was made")
        wanted = _link_message(index, up=True)
        wanted += _number(_IFLA_MTU, mtu) if mtu else b""
        wanted += attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", ""))) if mac else b""
        route.change(_SET_LINK, wanted)
        for address in addresses:
            ip, _, prefix = address.partition("/")
            _create(route, _NEW_ADDRESS, _address_message(index, ip, int(prefix)))
        return index


def _create(route: RouteSocket, kind: int, payload: bytes) -> None:
    """Make what may be there already."""
    try:
        route.change(kind, payload, CREATE | EXCLUSIVE)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


def _address_message(index: int, address: str, prefix: int) -> bytes:
    value = _packed(address)
    head = struct.pack("=BBBBI", _family(address), prefix, 0, _SCOPE_UNIVERSE, index)
    return head + attribute(_IFA_LOCAL, value) + attribute(_IFA_ADDRESS, value)


def remove_addresses(name: str, keep: Sequence[str]) -> None:
    """Take every IPv4 address off the link that is not in `keep` (a pod range or DNS address that changed)."""
    index = _index(name)
    if index is None:
        return
    with _netlink(f"addresses of {name}") as route:
        for address, prefix in list(_addresses(route, socket.AF_INET, index)):
            if f"{address}/{prefix}" not in keep:
                route.change(_DELETE_ADDRESS, _address_message(index, address, prefix))


def ensure_route(destination: str, link: str, *, source: str = "") -> None:
    with _netlink(f"route to {destination}") as route:
        index = _index(link)
        if index is None:
            raise LinkError(f"route to {destination}: there is no link {link}")
        _replace_route(route, destination, index, source=source)


def _replace_route(route: RouteSocket, destination: str, index: int, *, gateway: str = "", source: str = "") -> None:
    """Without a gateway the destination is on the link itself."""
    address, _, prefix = destination.partition("/")
    scope = _SCOPE_UNIVERSE if gateway else _SCOPE_LINK
    payload = struct.pack("=BBBBBBBBI", _family(address), int(prefix), 0, 0, _MAIN, _STATIC, scope, _UNICAST, 0)
    payload += attribute(_RTA_DST, _packed(address)) if int(prefix) else b""
    payload += attribute(_RTA_GATEWAY, _packed(gateway)) if gateway else b""
    payload += attribute(_RTA_PREFSRC, _packed(source)) if source else b""
    route.change(_NEW_ROUTE, payload + _number(_RTA_OIF, index), CREATE | REPLACE)


def add_veth(host_end: str, pod: PodInterface, bridge: int, netns: int) -> None:
    """A veth pair: one end on the bridge and up, the other (`pod.name`) in the namespace of the descriptor `netns`."""
    with _netlink(f"veth {host_end}") as route:
        mtu = _number(_IFLA_MTU, pod.mtu)
        peer = _link_message() + _text(_IFLA_IFNAME, pod.name) + mtu + _number(_IFLA_NET_NS_FD, netns)
        data = attribute(_INFO_DATA | NESTED, attribute(_VETH_PEER | NESTED, peer))
        info = attribute(_IFLA_LINKINFO | NESTED, _text(_INFO_KIND, "veth") + data)
        # Master and state must stand on this end: inside the peer the kernel never sees them.
        ours = _link_message(up=True) + _text(_IFLA_IFNAME, host_end) + mtu + _number(_IFLA_MASTER, bridge)
        route.change(_NEW_LINK, ours + info, CREATE | EXCLUSIVE)
        index = _index(host_end)
        if index is None:
            raise LinkError(f"veth {host_end} vanished while it was made")
        # Hairpin, so that a pod may reach itself through the bridge. Not isolated: where br_netfilter is loaded it sends
        # translated packets from port to port below the IP stack, and isolation would drop them.
        hairpin = attribute(_IFLA_PROTINFO | NESTED, attribute(_BRPORT_MODE, b"\1"))
        route.change(_SET_LINK, _link_message(index, family=_AF_BRIDGE) + hairpin)


def configure_pod(pod: PodInterface) -> str:
    """Inside a pod's namespace: lo and the pod's interface up, one address, every route through the gateway.

    The address has no on-link range, so that pods of one node also meet the host's IP stack: replies to a translated
    service address find their way back without br_netfilter. Returns the interface's hardware address.
    """
    with _netlink(f"pod interface {pod.name}") as route:
        index = _index(pod.name)
        if index is None:
            raise LinkError(f"interface {pod.name} is not in the pod's namespace")
        bits, default = (128, "::/0") if ":" in pod.address else (32, "0.0.0.0/0")
        route.change(_SET_LINK, _link_message(1, up=True))
        _create(route, _NEW_ADDRESS, _address_message(index, pod.address, bits))
        route.change(_SET_LINK, _link_message(index, up=True))
        _replace_route(route, f"{pod.gateway}/{bits}", index)
        _replace_route(route, default, index, gateway=pod.gateway)
        return _mac(pod.name)


def delete(name: str) -> bool:
    """Delete a link; False if there was none."""
    with _netlink(f"link {name}") as route:
        index = _index(name)
        if index is None:
            return False
        try:
            route.change(_DELETE_LINK, _link_message(index))
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise
        return True
