"""From a change to the keys it wakes.

Owns: the ways in which controllers map a changed object to the objects that must be looked at again, and the indices
that make the way back cheap. Called by: controllers' `watches`. Never does: I/O.
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import Resource
from k1s.client.controller import KeysOf
from k1s.client.interface import Informer, Object

# Index: objects by the UID of their controller.
BY_CONTROLLER = "controller-uid"
# Index: objects without a controller by namespace.
ORPHANS = "orphans"


def own_key(old: Object | None, new: Object | None) -> Iterable[str]:
    obj = new if new is not None else old
    return (meta.key(obj),) if obj is not None else ()


def own_key_unless_deleted(old: Object | None, new: Object | None) -> Iterable[str]:
    return (meta.key(new),) if new is not None else ()


def controller_key(resource: Resource) -> KeysOf:
    """The controllers (of that kind) of the object, before and after the change."""

    def keys(old: Object | None, new: Object | None) -> Iterable[str]:
        found = {k for obj in (old, new) if obj is not None and (k := owner_key(obj, resource))}
        return tuple(found)

    return keys


def owner_key(obj: Object, resource: Resource) -> str:
    """The key of the object's controller if it is of that kind, else ""."""
    owner = meta.controller_of(obj)
    if owner is None or owner["kind"] != resource.kind or owner["apiVersion"].partition("/")[0] != _group(resource):
        return ""
    return f"{meta.namespace(obj)}/{owner['name']}" if resource.namespaced else str(owner["name"])


def _group(resource: Resource) -> str:
    return resource.group or resource.version


def index_ownership(informer: Informer) -> None:
    """Make `owned` and `orphans` possible on this cache."""
    informer.add_index(BY_CONTROLLER, _controller_uid)
    informer.add_index(ORPHANS, _orphan_namespace)


def owned(informer: Informer, owner: Object) -> Iterable[Object]:
    return informer.by_index(BY_CONTROLLER, meta.uid(owner))


def orphans(informer: Informer, namespace: str) -> Iterable[Object]:
    return informer.by_index(ORPHANS, namespace)


def _controller_uid(obj: Object) -> Iterable[str]:
    owner = meta.controller_of(obj)
    return (owner["uid"],) if owner is not None else ()


def _orphan_namespace(obj: Object) -> Iterable[str]:
    return (meta.namespace(obj),) if meta.controller_of(obj) is None else ()
