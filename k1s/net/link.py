"""Links and addresses of the calling thread's network namespace.

Owns: rtnetlink's messages for links and addresses, and LinkError. Called by: what makes links in net;
always in a worker thread, because it blocks and because namespaces are entered by thread.
Never does: decide which links there should be.
Everything named `ensure_` may be repeated.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from k1s.net.netlink import (
    CREATE,
    EXCLUSIVE,
    NESTED,
    NetlinkError,
    RouteSocket,
    attribute,
    attributes,
    family_of,
    number,
    packed,
    packed_mac,
    string,
    text,
)

NEW_LINK, DELETE_LINK, GET_LINK, SET_LINK = 16, 17, 18, 19
_NEW_ADDRESS, _DELETE_ADDRESS, _GET_ADDRESS = 20, 21, 22
# linux/if_link.h, if_addr.h
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_AF_SPEC = 1, 3, 4, 10, 18, 26
INFO_KIND, INFO_DATA = 1, 2
_IFLA_EXT_MASK, _IFLA_INET6_ADDR_GEN_MODE, _GENERATE_NONE = 29, 8, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_TEMPORARY, _NO_DAD, _DEPRECATED, _TENTATIVE = 0x01, 0x02, 0x20, 0x40
_UP, _SCOPE_UNIVERSE, _SCOPE_SITE = 1, 0, 200
_WITHOUT_STATISTICS = struct.pack("=I", 8)


class LinkError(Exception):
    """The kernel refused a change; the message names the link and the kernel's reason, `code` is the errno (0: none)."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Link:
    """`master` is the index of the bridge it is a port of, 0 for none; `data` what its kind alone has."""

    index: int
    name: str
    kind: str
    mtu: int
    mac: str
    up: bool
    master: int = 0
    data: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """`stable`: fit to be known to others (neither temporary, deprecated, tentative nor of the link alone)."""

    index: int
    address: str
    prefix: int
    stable: bool


@contextmanager
def opened(what: str) -> Iterator[RouteSocket]:
    """A socket to the kernel; its refusals become LinkErrors about `what`."""
    try:
        with RouteSocket() as route:
            yield route
    except NetlinkError as error:
        raise LinkError(f"{what}: {error}", error.code) from error


def link_message(index: int = 0, *, up: bool = False, family: int = socket.AF_UNSPEC) -> bytes:
    flags = _UP if up else 0
    return struct.pack("=BxHiII", family, 0, index, flags, flags)


def as_link(message: bytes) -> Link:
    _, _, index, flags, _ = struct.unpack_from("=BxHiII", message)
    fields = dict(attributes(message[16:]))
    info = dict(attributes(fields.get(IFLA_LINKINFO, b"")))
    return Link(
        index=index,
        name=string(fields.get(IFLA_IFNAME, b"")),
        kind=string(info.get(INFO_KIND, b"")),
        mtu=int(struct.unpack("=I", fields.get(IFLA_MTU, bytes(4)))[0]),
        mac=fields.get(IFLA_ADDRESS, b"").hex(":"),
        up=bool(flags & _UP),
        master=int(struct.unpack("=I", fields.get(IFLA_MASTER, bytes(4)))[0]),
        data=info.get(INFO_DATA, b""),
    )


def link_of(route: RouteSocket, index: int) -> Link:
    return as_link(route.get(GET_LINK, link_message(index) + attribute(_IFLA_EXT_MASK, _WITHOUT_STATISTICS)))


def index_of(name: str) -> int | None:
    """By ioctl: a lookup through netlink would read every link of the host, one per pod."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def links() -> list[Link]:
    with opened("listing links") as route:
        request = link_message() + attribute(_IFLA_EXT_MASK, _WITHOUT_STATISTICS)
        return [as_link(message) for message in route.dump(GET_LINK, request)]


def find(name: str) -> Link | None:
    with opened(f"link {name}") as route:
        index = index_of(name)
        try:
            return link_of(route, index) if index is not None else None
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise


def all_addresses() -> list[LinkAddress]:
    """Of every link of the namespace."""
    with opened("listing addresses") as route:
        return list(_addresses(route, socket.AF_UNSPEC))


def addresses(name: str = "") -> list[str]:
    """`address/prefix` of one link or of all."""
    index = index_of(name) if name else None
    if name and index is None:
        return []
    return [f"{a.address}/{a.prefix}" for a in all_addresses() if index in (None, a.index)]


def _addresses(route: RouteSocket, family: int) -> Iterator[LinkAddress]:
    for message in route.dump(_GET_ADDRESS, struct.pack("=BBBBI", family, 0, 0, 0, 0)):
        kind, prefix, flags, scope, owner = struct.unpack_from("=BBBBI", message)
        fields = dict(attributes(message[8:]))
        if _IFA_FLAGS in fields:
            (flags,) = struct.unpack("=I", fields[_IFA_FLAGS])
        # IFA_ADDRESS is the peer on point-to-point links; IFA_LOCAL is ours where there is one.
        value = fields.get(_IFA_LOCAL) or fields.get(_IFA_ADDRESS)
        if value:
            stable = scope <= _SCOPE_SITE and not flags & (_TEMPORARY | _DEPRECATED | _TENTATIVE)
            yield LinkAddress(owner, socket.inet_ntop(kind, value), prefix, stable)


def ensure_link(
    name: str,
    kind: str,
    *,
    mtu: int = 0,
    mac: str = "",
    addresses: Sequence[str] = (),
    data: bytes = b"",
    link_local: bool = True,
) -> int:
    """A link of that kind, up, with (at least) these addresses. Returns its index.

    `data` and `link_local` count only where it is made; without a link-local IPv6 address it sends no router solicitations
    and multicast reports.
    """
    with opened(f"link {name}") as route:
        made = index_of(name) is None
        if made:
            info = text(INFO_KIND, kind) + (attribute(INFO_DATA | NESTED, data) if data else b"")
            _create_link(route, name, info)
        index = index_of(name)
        if index is None:
            raise LinkError(f"link {name} vanished while it was made")
        if made and not link_local:
            _without_link_local(route, index)
        found = link_of(route, index)
        wanted = number(IFLA_MTU, mtu) if mtu not in (0, found.mtu) else b""
        wanted += attribute(IFLA_ADDRESS, packed_mac(mac)) if mac not in ("", found.mac) else b""
        # Only what differs: the kernel tells everybody of every change, ourselves too.
        if wanted or not found.up:
            route.change(SET_LINK, link_message(index, up=True) + wanted)
        if any(":" in address for address in addresses):
            _allow_ipv6(name)
        for address in addresses:
            add_address(route, index, address)
        return index


def _allow_ipv6(name: str) -> None:
    """Where IPv6 is turned off for new links, as some distributions have it."""
    setting = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    if not setting.exists():
        raise LinkError(f"link {name}: this kernel has no IPv6 (is ipv6.disable=1 on its command line?)")
    if setting.read_text().strip() != "0":
        setting.write_text("0")


def _create_link(route: RouteSocket, name: str, info: bytes) -> None:
    try:
        route.change(
            NEW_LINK, link_message() + text(IFLA_IFNAME, name) + attribute(IFLA_LINKINFO | NESTED, info), CREATE | EXCLUSIVE
        )
    except NetlinkError as error:
        # Somebody else's is there under that name; a device of another name that stands in the way has EEXIST too.
        if error.code != errno.EEXIST or index_of(name) is None:
            raise


def _without_link_local(route: RouteSocket, index: int) -> None:
    mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_GENERATE_NONE]))
    wanted = attribute(IFLA_AF_SPEC | NESTED, attribute(socket.AF_INET6 | NESTED, mode))
    try:
        route.change(SET_LINK, link_message(index) + wanted)
    except NetlinkError as error:
        if error.code not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL):  # a kernel without IPv6
            raise


def add_address(route: RouteSocket, index: int, address: str) -> None:
    """`address/prefix` on the link, where it is not there already."""
    ip, _, prefix = address.partition("/")
    try:
        route.change(_NEW_ADDRESS, _address_message(index, ip, int(prefix)), CREATE | EXCLUSIVE)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


def _address_message(index: int, address: str, prefix: int) -> bytes:
    value, family = packed(address), family_of(address)
    # Nobody else can have it, so the second that the check for doubles takes would be lost.
    flags = _NO_DAD if family == socket.AF_INET6 else 0
    head = struct.pack("=BBBBI", family, prefix, flags, _SCOPE_UNIVERSE, index)
    return head + attribute(_IFA_LOCAL, value) + attribute(_IFA_ADDRESS, value)


def remove_addresses(name: str, keep: Sequence[str]) -> None:
    """Take every address off the link that is not in `keep` (a pod range or DNS address that changed)."""
    index = index_of(name)
    if index is None:
        return
    with opened(f"addresses of {name}") as route:
        for found in list(_addresses(route, socket.AF_UNSPEC)):
            if found.index == index and f"{found.address}/{found.prefix}" not in keep and not _link_local(found.address):
                route.change(_DELETE_ADDRESS, _address_message(index, found.address, found.prefix))


def _link_local(address: str) -> bool:
    return address.lower().startswith("fe80:")


def delete(name: str) -> bool:
    """Delete a link; False if there was none."""
    with opened(f"link {name}") as route:
        index = index_of(name)
        if index is None:
            return False
        try:
            route.change(DELETE_LINK, link_message(index))
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise
        return True
