"""The way to other nodes' pods, brought into the kernel and kept there.

Owns: looking at what there is, and the order of changes. Called by: agent.network.overlay; everything blocks: in a worker thread.
Never does: decide (overlay.plan). Whatever may be repeated.
"""

from __future__ import annotations

from k1s.net import link, names, route
from k1s.net.link import LinkError, opened
from k1s.net.overlay import vxlan
from k1s.net.overlay.plan import Changes, Wanted, difference


def observe() -> Wanted:
    """What k1s has in the kernel for other nodes' pods."""
    routes = frozenset(found for found in route.own() if found.link not in (names.DNS_LINK, names.BRIDGE))
    device = link.index_of(names.VXLAN)
    if device is None:
        return Wanted(routes)
    return Wanted(routes, vxlan.neighbours(device), vxlan.forwards(device))


def apply(wanted: Wanted, device: vxlan.Device | None) -> tuple[bool, Changes]:
    """Make the device (or remove the one of another time), then its entries, then routes; returns whether the device was
    touched, and what else was changed."""
    touched = link.delete(names.VXLAN) if device is None else vxlan.ensure(device)
    changes = difference(wanted, observe())
    if not changes:
        return touched, changes
    for unwanted in changes.remove.routes:
        route.remove(unwanted)
    if device is not None:
        _entries(changes)
    for missing in changes.add.routes:
        route.ensure(missing)
    return touched, changes


def _entries(changes: Changes) -> None:
    index = link.index_of(names.VXLAN)
    if index is None:
        raise LinkError(f"link {names.VXLAN} vanished while it was set up")
    with opened(f"entries of {names.VXLAN}") as socket:
        for forward in changes.remove.forwards:
            vxlan.remove_forward(socket, index, forward)
        for neighbour in changes.remove.neighbours:
            vxlan.remove_neighbour(socket, index, neighbour)
        for forward in changes.add.forwards:
            vxlan.add_forward(socket, index, forward)
        for neighbour in changes.add.neighbours:
            vxlan.add_neighbour(socket, index, neighbour)
