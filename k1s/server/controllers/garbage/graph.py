"""Who owns whom.

Owns: Graph: what is known of objects that have owners or are being deleted together with what they own, and for each change the
keys to look at; `decide` (pure): what to do with an object, given the state of its owners.
Called by: garbage/collector. Never does: I/O. Bound: objects with owner references, and those being deleted with a
collector's finalizer; plain objects are not kept.
Source: upstream pkg/controller/garbagecollector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from k1s.api import meta
from k1s.api.catalog import Resource
from k1s.client.interface import Object

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class Owner:
    api_version: str
    kind: str
    name: str
    uid: str
    blocks: bool


@dataclass(slots=True)
class Node:
    """An object as the graph needs it. `foreground`: it goes when those it owns have gone; `orphaning`: it lets them go first."""

    uid: str
    resource: Resource
    namespace: str
    name: str
    owners: tuple[Owner, ...] = ()
    deleting: bool = False
    foreground: bool = False
    orphaning: bool = False


@dataclass(slots=True)
class Graph:
    nodes: dict[str, Node] = field(default_factory=dict)
    # owner's UID -> UIDs of what it owns
    dependents: dict[str, set[str]] = field(default_factory=dict)

    def observe(self, resource: Resource, obj: Object) -> list[str]:
        """Take in an object as it is now; returns the keys to look at."""
        new = _node(resource, obj)
        old = self.nodes.get(new.uid)
        if old is None and not new.owners and not (new.foreground or new.orphaning):
            return []
        self._link(old.owners if old else (), new.owners, new.uid)
        self.nodes[new.uid] = new
        woken = []
        if new.orphaning and not (old and old.orphaning):
            woken.append(_orphan_key(new.uid))
        if new.foreground and not (old and old.foreground):
            woken.append(delete_key(new.uid))
            woken.extend(delete_key(uid) for uid in self.dependents.get(new.uid, ()))
        if old is None or old.owners != new.owners:
            woken.append(delete_key(new.uid))
            woken.extend(self._waiting_owners((*(old.owners if old else ()), *new.owners)))
        if not new.owners and not (new.foreground or new.orphaning):
            del self.nodes[new.uid]
        return woken

    def forget(self, uid: str) -> list[str]:
        """The object is gone: what it owned, and owners that waited for it, must be looked at."""
        old = self.nodes.pop(uid, None)
        woken = [delete_key(dependent) for dependent in self.dependents.get(uid, ())]
        if old is not None:
            self._link(old.owners, (), uid)
            woken.extend(self._waiting_owners(old.owners))
        return woken

    def children(self, uid: str) -> list[Node]:
        return [self.nodes[d] for d in self.dependents.get(uid, ()) if d in self.nodes]

    def blocking(self, uid: str) -> list[Node]:
        """What must go before the owner may."""
        return [n for n in self.children(uid) if any(o.uid == uid and o.blocks for o in n.owners)]

    def _waiting_owners(self, owners: tuple[Owner, ...]) -> list[str]:
        return [delete_key(o.uid) for o in owners if (node := self.nodes.get(o.uid)) is not None and node.foreground]

    def _link(self, old: tuple[Owner, ...], new: tuple[Owner, ...], uid: str) -> None:
        for owner in {o.uid for o in old} - {o.uid for o in new}:
            mine = self.dependents.get(owner)
            if mine is not None:
                mine.discard(uid)
                if not mine:
                    del self.dependents[owner]
        for owner in {o.uid for o in new}:
            self.dependents.setdefault(owner, set()).add(uid)


def delete_key(uid: str) -> str:
    return f"delete/{uid}"


def _orphan_key(uid: str) -> str:
    return f"orphan/{uid}"


def _node(resource: Resource, obj: Object) -> Node:
    finalizers, deleting = meta.finalizers(obj), meta.is_deleting(obj)
    owners = tuple(
        Owner(r["apiVersion"], r["kind"], r["name"], r["uid"], bool(r.get("blockOwnerDeletion")))
        for r in meta.owner_references(obj)
    )
    return Node(
        meta.uid(obj), resource, meta.namespace(obj), meta.name(obj), owners, deleting,
        foreground=deleting and FOREGROUND in finalizers,
        orphaning=deleting and ORPHAN in finalizers,
    )  # fmt: skip


class State(Enum):
    """What has become of an owner. WAITING: it is being deleted in the foreground and waits for what it owns."""

    SOLID = "solid"
    ABSENT = "absent"
    WAITING = "waiting"


@dataclass(slots=True)
class Decision:
    """`act`: keep; drop the references to `owners`; delete with `policy`."""

    act: Literal["keep", "unlink", "delete"] = "keep"
    owners: tuple[str, ...] = ()
    policy: str = ""
    # Owner references that must stop blocking first: they close a circle of foreground deletions.
    unblock: tuple[str, ...] = ()


def decide(node: Node, state_of: Callable[[Owner], State], children: list[Node]) -> Decision:
    """What to do with an object that is not itself being deleted."""
    states = {owner: state_of(owner) for owner in node.owners}
    gone = tuple(owner.uid for owner, state in states.items() if state is not State.SOLID)
    if not gone:
        return Decision()
    if len(gone) < len(states):
        return Decision("unlink", gone)
    waiting = tuple(owner.uid for owner, state in states.items() if state is State.WAITING)
    if waiting and children:
        circle = any(child.foreground for child in children)
        return Decision("delete", policy="Foreground", unblock=waiting if circle else ())
    return Decision("delete", policy="Background")
