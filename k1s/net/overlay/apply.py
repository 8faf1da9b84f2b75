"""The way to other nodes' pods, brought into the kernel and kept there.

Owns: looking at what there is, and the order of changes. Called by: agent.network.overlay; everything blocks: in a worker thread.
Never does: decide (overlay.plan). Whatever may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from k1s.net import link, names, route
from k1s.net.link import LinkError, opened
from k1s.net.netlink import NetlinkError, RouteSocket
from k1s.net.overlay import vxlan
from k1s.net.overlay.plan import Changes, Wanted, difference

T = TypeVar("T")


def observe() -> Wanted:
    """What k1s has in the kernel for other nodes' pods."""
    routes = frozenset(found for found in route.own() if found.link not in (names.DNS_LINK, names.BRIDGE))
    device = link.index_of(names.VXLAN)
    if device is None:
        return Wanted(routes)
    return Wanted(routes, vxlan.neighbours(device), vxlan.forwards(device))


def apply(wanted: Wanted, device: vxlan.Device | None) -> tuple[bool, Changes]:
    """Make the device (or remove the one of another time), then its entries, then routes; returns whether the device was
    touched, and what else was changed. Raises LinkError with all that the kernel refused, once the rest is done."""
    touched = link.delete(names.VXLAN) if device is None else vxlan.ensure(device)
    changes = difference(wanted, observe())
    faults = _remove(changes.remove) + _add(changes.add)
    if faults:
        raise LinkError("; ".join(faults))
    return touched, changes


def _remove(unwanted: Wanted) -> list[str]:
    faults = _each(route.remove, unwanted.routes)
    if unwanted.forwards or unwanted.neighbours:
        with _device() as (socket, index):
            faults += _each(lambda entry: vxlan.remove_forward(socket, index, entry), unwanted.forwards)
            faults += _each(lambda entry: vxlan.remove_neighbour(socket, index, entry), unwanted.neighbours)
    return faults


def _add(missing: Wanted) -> list[str]:
    """Entries before routes: nothing is sent that way before it is complete."""
    faults = []
    if missing.forwards or missing.neighbours:
        with _device() as (socket, index):
            faults += _each(lambda entry: vxlan.add_forward(socket, index, entry), missing.forwards)
            faults += _each(lambda entry: vxlan.add_neighbour(socket, index, entry), missing.neighbours)
    return faults + _each(route.ensure, missing.routes)


def _each(act: Callable[[T], None], items: Iterable[T]) -> list[str]:
    """All of them: a peer that cannot be reached must not keep others from being. Returns what the kernel refused."""
    faults = []
    for item in items:
        try:
            act(item)
        except (LinkError, NetlinkError) as error:
            faults.append(str(error) if isinstance(error, LinkError) else f"{item}: {error}")
    return faults


@contextmanager
def _device() -> Iterator[tuple[RouteSocket, int]]:
    index = link.index_of(names.VXLAN)
    if index is None:
        raise LinkError(f"link {names.VXLAN} vanished while it was set up")
    with opened(f"entries of {names.VXLAN}") as socket:
        yield socket, index
