"""Links, addresses and routes of the calling thread's network namespace.

Owns: the calls on pyroute2. Called by: agent.network, cni.add, cni.delete, teardown; always in a worker thread, because the
synchronous IPRoute refuses to run inside an event loop. Never does: decide which links there should be.
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
from typing import Any

_SCOPE_LINK = 253
_SIOCGIFHWADDR = 0x8927


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
def _netlink(what: str) -> Iterator[Any]:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as route:
            yield route
    except NetlinkError as error:
        raise LinkError(f"{what}: {error.args[1] if len(error.args) > 1 else error}") from error


def _ignore_exists(call: Any, *arguments: Any, **options: Any) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        call(*arguments, **options)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


def _as_link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=(info.get_attr("IFLA_INFO_KIND") if info else "") or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        up=bool(message["flags"] & 1),
    )


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


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
        return [_as_link(message) for message in route.get_links()]


def find(name: str) -> Link | None:
    with _netlink(f"link {name}") as route:
        index = _index(name)
        return _as_link(route.get_links(index)[0]) if index is not None else None


def addresses(name: str = "") -> list[str]:
    """`address/prefix` of one link or of all."""
    with _netlink(f"addresses of {name or 'all links'}") as route:
        wanted = _index(name) if name else None
        found = [m for m in route.get_addr() if not name or m["index"] == wanted]
        # IFA_ADDRESS is the peer on point-to-point links; IFA_LOCAL is ours where there is one.
        return [f"{m.get_attr('IFA_LOCAL') or m.get_attr('IFA_ADDRESS')}/{m['prefixlen']}" for m in found]


def uplink() -> Link | None:
    """The link of the default route with the best metric, or None on a host without one."""
    with _netlink("default route") as route:
        defaults = [m for m in route.get_default_routes(family=socket.AF_INET) if m.get_attr("RTA_OIF")]
        if not defaults:
            return None
        best = min(defaults, key=lambda m: m.get_attr("RTA_PRIORITY") or 0)
        return _as_link(route.get_links(best.get_attr("RTA_OIF"))[0])


def ensure_link(name: str, kind: str, *, mtu: int = 0, mac: str = "", addresses: Sequence[str] = ()) -> int:
    """A link of that kind, up, with (at least) these addresses. Returns its index."""
    with _netlink(f"link {name}") as route:
        if _index(name) is None:
            _ignore_exists(route.link, "add", ifname=name, kind=kind)
        index = _index(name)
        if index is None:
            raise LinkError(f"link {name} vanished while it was made")
        wanted: dict[str, Any] = {"state": "up"} | ({"mtu": mtu} if mtu else {}) | ({"address": mac} if mac else {})
        route.link("set", index=index, **wanted)
        for address in addresses:
            ip, _, prefix = address.partition("/")
            _ignore_exists(route.addr, "add", index=index, address=ip, prefixlen=int(prefix), family=_family(ip))
        return int(index)


def remove_addresses(name: str, keep: Sequence[str]) -> None:
    """Take every IPv4 address off the link that is not in `keep` (a pod range or DNS address that changed)."""
    with _netlink(f"addresses of {name}") as route:
        index = _index(name)
        for message in route.get_addr(family=socket.AF_INET, index=index) if index is not None else ():
            address, prefix = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"), message["prefixlen"]
            if f"{address}/{prefix}" not in keep:
                route.addr("del", index=index, address=address, prefixlen=prefix)


def ensure_route(destination: str, link: str, *, source: str = "") -> None:
    with _netlink(f"route to {destination}") as route:
        options = {"prefsrc": source} if source else {}
        index = _index(link)
        route.route("replace", dst=destination, oif=index, scope=_SCOPE_LINK, family=_family(destination), **options)


def add_veth(host_end: str, pod: PodInterface, bridge: int, netns: int) -> None:
    """A veth pair: one end on the bridge and up, the other (`pod.name`) in the namespace of the descriptor `netns`."""
    with _netlink(f"veth {host_end}") as route:
        # master and state must stand on this end: inside peer={} the kernel never sees them.
        route.link(
            "add",
            ifname=host_end,
            kind="veth",
            mtu=pod.mtu,
            master=bridge,
            state="up",
            peer={"ifname": pod.name, "net_ns_fd": netns, "mtu": pod.mtu},
        )
        index = _index(host_end)
        # Hairpin, so that a pod may reach itself through the bridge. Not isolated: where br_netfilter is loaded it sends
        # translated packets from port to port below the IP stack, and isolation would drop them.
        route.brport("set", index=index, mode=1)


def configure_pod(pod: PodInterface) -> str:
    """Inside a pod's namespace: lo and the pod's interface up, one address, every route through the gateway.

    The address has no on-link range, so that pods of one node also meet the host's IP stack: replies to a translated
    service address find their way back without br_netfilter. Returns the interface's hardware address.
    """
    with _netlink(f"pod interface {pod.name}") as route:
        index = _index(pod.name)
        if index is None:
            raise LinkError(f"interface {pod.name} is not in the pod's namespace")
        family = _family(pod.address)
        bits = 128 if family == socket.AF_INET6 else 32
        route.link("set", index=1, state="up")
        _ignore_exists(route.addr, "add", index=index, address=pod.address, prefixlen=bits, family=family)
        route.link("set", index=index, state="up")
        route.route("replace", dst=f"{pod.gateway}/{bits}", oif=index, scope=_SCOPE_LINK, family=family)
        route.route("replace", dst="default", gateway=pod.gateway, oif=index, family=family)
        return _mac(pod.name)


def delete(name: str) -> bool:
    """Delete a link; False if there was none."""
    from pyroute2.netlink.exceptions import NetlinkError

    with _netlink(f"link {name}") as route:
        index = _index(name)
        if index is None:
            return False
        try:
            route.link("del", index=index)
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise
        return True
