"""The VXLAN device, its forwarding entries and neighbours, in the kernel.

Owns: their rtnetlink messages, and saying in words what stands in the device's way. Called by: overlay.apply; always in a worker
thread. Never does: decide what there should be (overlay.plan).
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from k1s.net import link, names
from k1s.net.link import INFO_DATA, INFO_KIND, LinkError, opened
from k1s.net.netlink import (
    CREATE,
    NESTED,
    REPLACE,
    NetlinkError,
    RouteSocket,
    attribute,
    attributes,
    family_of,
    number,
    packed,
    packed_mac,
    text,
)
from k1s.net.overlay.plan import Forward, Neighbour

PORT, _VNI = 8472, 1
_NEW_NEIGHBOUR, _DELETE_NEIGHBOUR, _GET_NEIGHBOUR = 28, 29, 30
_AF_BRIDGE = 7
# linux/if_link.h, neighbour.h
_ID, _LOCAL, _LEARNING, _PORT, _LOCAL6 = 1, 4, 7, 15, 17
_NDA_DST, _NDA_LLADDR = 1, 2
_PERMANENT, _SELF = 0x80, 0x02
_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17


@dataclass(frozen=True, slots=True)
class Device:
    """What the device is made of. `offload`: outer checksums are left to the network card."""

    local: str
    mac: str
    mtu: int
    addresses: tuple[str, ...] = ()
    offload: bool = True


class PortTaken(LinkError):
    """Somebody else has the UDP port or the network number; trying again helps once they are gone."""


def ensure(wanted: Device) -> bool:
    """The device as wanted, made anew only where it cannot be changed. Whether that took anything. Raises PortTaken."""
    found = link.find(names.VXLAN)
    if found is not None and not _ours(found, wanted):
        link.delete(names.VXLAN)
        found = None
    if found is not None and _is(found, wanted):
        return False
    try:
        if found is not None and local_of(found) != wanted.local:
            _move(found.index, wanted.local)
        link.ensure_link(
            names.VXLAN,
            "vxlan",
            mtu=wanted.mtu,
            mac=wanted.mac,
            addresses=wanted.addresses,
            data=_data(wanted.local),
            link_local=False,
        )
    except LinkError as error:
        if error.code in (errno.EADDRINUSE, errno.EEXIST):
            raise PortTaken(_taken(error), error.code) from error
        raise
    if found is None and not wanted.offload:
        _without_offload(names.VXLAN)
    link.remove_addresses(names.VXLAN, wanted.addresses)
    return True


def _is(found: link.Link, wanted: Device) -> bool:
    same = (local_of(found), found.mtu, found.mac, found.up) == (wanted.local, wanted.mtu, wanted.mac, True)
    return same and {a for a in link.addresses(names.VXLAN) if not a.startswith("fe80:")} == set(wanted.addresses)


def _ours(found: link.Link, wanted: Device) -> bool:
    data = dict(attributes(found.data))
    return (
        found.kind == "vxlan"
        and data.get(_ID) == struct.pack("=I", _VNI)
        and data.get(_PORT) == struct.pack(">H", PORT)
        and not any(data.get(_LEARNING, b"\1"))
        and (":" in local_of(found)) == (":" in wanted.local)
    )


def local_of(found: link.Link) -> str:
    data = dict(attributes(found.data))
    for kind, family in ((_LOCAL, socket.AF_INET), (_LOCAL6, socket.AF_INET6)):
        if any(data.get(kind, b"")):
            return socket.inet_ntop(family, data[kind])
    return ""


def _data(local: str) -> bytes:
    return number(_ID, _VNI) + _local(local) + attribute(_LEARNING, b"\0") + attribute(_PORT, struct.pack(">H", PORT))


def _local(local: str) -> bytes:
    return attribute(_LOCAL6 if ":" in local else _LOCAL, packed(local))


def _move(index: int, local: str) -> None:
    """Another address of ours: the device keeps its entries."""
    with opened(f"link {names.VXLAN}") as route:
        info = text(INFO_KIND, "vxlan") + attribute(INFO_DATA | NESTED, number(_ID, _VNI) + _local(local))
        route.change(link.NEW_LINK, link.link_message(index) + attribute(link.IFLA_LINKINFO | NESTED, info))


def _taken(error: LinkError) -> str:
    if error.code == errno.EEXIST:
        others = [other.name for other in link.links() if other.kind == "vxlan" and other.name != names.VXLAN]
        named = f" ({', '.join(others)})" if others else ""
        return (
            f"another VXLAN device{named} has VXLAN number {_VNI} on UDP port {PORT}: delete it (ip link delete NAME) or give it "
            "another port; flannel and k3s leave one behind when they are not uninstalled"
        )
    return f"UDP port {PORT} is taken by another program (ss -lunp 'sport = {PORT}' names it): stop it or give it another port"


def checksums_work(uplink: str) -> bool:
    """Kernels before 5.7 send wrong checksums in tunnels after address translation, and so do VMware's cards on any port but
    IANA's: there the device must compute them itself."""
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if version is not None and tuple(map(int, version.groups())) < (5, 7):
        return False
    driver = Path(f"/sys/class/net/{uplink}/device/driver")
    return not (uplink and driver.is_symlink() and os.path.basename(os.readlink(driver)) == "vmxnet3")


def _without_offload(name: str) -> None:
    value = bytearray(struct.pack("=II", _ETHTOOL_STXCSUM, 0))
    # struct ifreq with a pointer to struct ethtool_value.
    import ctypes

    buffer = (ctypes.c_char * len(value)).from_buffer(value)
    request = struct.pack("16sP16x", name.encode(), ctypes.addressof(buffer))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
        except OSError as error:
            raise LinkError(f"link {name}: transmit checksum offload cannot be turned off: {error.strerror}") from error


def neighbours(index: int) -> frozenset[Neighbour]:
    """The permanent neighbours on the device."""
    found = set()
    with opened("listing neighbours") as route:
        for family in (socket.AF_INET, socket.AF_INET6):
            for address, mac, _ in _entries(route, family, index):
                found.add(Neighbour(socket.inet_ntop(family, address), mac))
    return frozenset(found)


def forwards(index: int) -> frozenset[Forward]:
    with opened("listing forwarding entries") as route:
        return frozenset(
            Forward(mac, socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address))
            for address, mac, _ in _entries(route, _AF_BRIDGE, index)
        )


def _entries(route: RouteSocket, family: int, index: int) -> Iterator[tuple[bytes, str, int]]:
    for message in route.dump(_GET_NEIGHBOUR, struct.pack("=BxxxiHBB", family, index, 0, 0, 0)):
        kind, owner, state, _, _ = struct.unpack_from("=BxxxiHBB", message)
        fields = dict(attributes(message[12:]))
        if kind == family and owner == index and state & _PERMANENT and _NDA_DST in fields and _NDA_LLADDR in fields:
            yield fields[_NDA_DST], fields[_NDA_LLADDR].hex(":"), state


def add_neighbour(route: RouteSocket, index: int, entry: Neighbour) -> None:
    route.change(_NEW_NEIGHBOUR, _neighbour(index, entry), CREATE | REPLACE)


def remove_neighbour(route: RouteSocket, index: int, entry: Neighbour) -> None:
    _remove(route, _neighbour(index, entry))


def add_forward(route: RouteSocket, index: int, entry: Forward) -> None:
    route.change(_NEW_NEIGHBOUR, _forward(index, entry), CREATE | REPLACE)


def remove_forward(route: RouteSocket, index: int, entry: Forward) -> None:
    _remove(route, _forward(index, entry))


def _neighbour(index: int, entry: Neighbour) -> bytes:
    head = struct.pack("=BxxxiHBB", family_of(entry.address), index, _PERMANENT, 0, 0)
    return head + attribute(_NDA_DST, packed(entry.address)) + attribute(_NDA_LLADDR, packed_mac(entry.mac))


def _forward(index: int, entry: Forward) -> bytes:
    head = struct.pack("=BxxxiHBB", _AF_BRIDGE, index, _PERMANENT, _SELF, 0)
    return head + attribute(_NDA_DST, packed(entry.address)) + attribute(_NDA_LLADDR, packed_mac(entry.mac))


def _remove(route: RouteSocket, payload: bytes) -> None:
    try:
        route.change(_DELETE_NEIGHBOUR, payload)
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.ESRCH):
            raise
