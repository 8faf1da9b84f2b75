"""Garbage collector: what has no owner left goes; owners that are deleted in the foreground or orphan their own are served.

Watches: every resource but events. Keys: delete/<uid> (should this object go? may this owner go?), orphan/<uid>.
Owns: carrying out what garbage/graph decides, after a look at the live object.
Never does: trust its cache for a deletion: an owner counts as absent only when the server says so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import Resource
from k1s.api.errors import ApiError
from k1s.client.controller import KeysOf
from k1s.client.interface import Object
from k1s.server.controllers.everything import EveryResource, is_stored_version
from k1s.server.controllers.garbage.graph import FOREGROUND, ORPHAN, Graph, Node, Owner, State, decide, delete_key
from k1s.server.controllers.reconciler import Context

# An owner of a kind that nobody serves: look again after so long (its definition may come back).
UNKNOWN_KIND_SECONDS = 300.0
# Owners the server said are gone; a UID never comes back. The oldest are forgotten first.
ABSENT_OWNERS = 1000


class GarbageCollector(EveryResource):
    name = "generic-garbage-collector"
    workers = 8

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.graph = Graph()
        self._absent: OrderedDict[str, None] = OrderedDict()

    def wants(self, resource: Resource) -> bool:
        return resource.kind != "Event"

    def keys_for(self, resource: Resource) -> KeysOf:
        def changed(old: Object | None, new: Object | None) -> Iterable[str]:
            if new is None:
                return self.graph.forget(meta.uid(old or {}))
            return self.graph.observe(resource, new)

        return changed

    async def work(self, key: str) -> float | None:
        verb, _, uid = key.partition("/")
        node = self.graph.nodes.get(uid)
        if node is None:
            return None
        live = await self._live(node)
        if live is None:
            return None
        if verb == "orphan":
            return await self._orphan(node, live)
        if node.foreground and meta.is_deleting(live):
            return await self._foreground(node, live)
        if meta.is_deleting(live) or not node.owners:
            return None
        return await self._collect(node, live)

    async def _live(self, node: Node) -> Object | None:
        """The object: from the cache if nothing can come of it, else from the server."""
        cached = self.cache(node.resource).get(node.name, node.namespace)
        if cached is not None and meta.uid(cached) == node.uid and not meta.is_deleting(cached):
            if all(self._cached_state(node, owner) is State.SOLID for owner in node.owners):
                return None
        return await self._get(node.resource, node.name, node.namespace, node.uid)

    async def _get(self, resource: Resource, name: str, namespace: str, uid: str) -> Object | None:
        try:
            live = await self.client.get(resource, name, namespace)
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        return live if meta.uid(live) == uid else None

    async def _collect(self, node: Node, live: Object) -> float | None:
        states: dict[Owner, State] = {}
        unknown = False
        for owner in node.owners:
            resource = self._resource_of(owner)
            if resource is None:
                unknown = True
                states[owner] = State.SOLID
            else:
                states[owner] = await self._state(node, owner, resource)
        found = decide(node, states.__getitem__, self.graph.children(node.uid))
        if found.act == "unlink":
            keep = [r for r in meta.owner_references(live) if r["uid"] not in found.owners]
            await self._patch(node.resource, live, {"ownerReferences": keep})
        elif found.act == "delete":
            if found.unblock:
                refs = [
                    {**r, "blockOwnerDeletion": False} if r["uid"] in found.unblock else r for r in meta.owner_references(live)
                ]
                await self._patch(node.resource, live, {"ownerReferences": refs})
            await self._delete(node, live, found.policy)
        return UNKNOWN_KIND_SECONDS if unknown else None

    async def _delete(self, node: Node, live: Object, policy: str) -> None:
        # Finalizers that someone set beforehand say how the object wants to go.
        if ORPHAN in meta.finalizers(live):
            policy = "Orphan"
        elif FOREGROUND in meta.finalizers(live):
            policy = "Foreground"
        try:
            await self.client.delete(node.resource, node.name, node.namespace, uid=node.uid, propagation=policy)
        except ApiError as error:
            if error.code != 404:
                raise

    async def _foreground(self, node: Node, live: Object) -> float | None:
        blocking = self.graph.blocking(node.uid)
        if not blocking:
            await self._drop_finalizer(node.resource, live, FOREGROUND)
            return None
        for child in blocking:
            if not child.foreground:
                self.controller.add(delete_key(child.uid))
        return None  # the last child to go wakes us

    async def _orphan(self, node: Node, live: Object) -> float | None:
        for child in self.graph.children(node.uid):
            found = await self._get(child.resource, child.name, child.namespace, child.uid)
            if found is not None:
                keep = [r for r in meta.owner_references(found) if r["uid"] != node.uid]
                await self._patch(child.resource, found, {"ownerReferences": keep})
        await self._drop_finalizer(node.resource, live, ORPHAN)
        return None

    async def _drop_finalizer(self, resource: Resource, live: Object, finalizer: str) -> None:
        if finalizer in meta.finalizers(live):
            await self._patch(resource, live, {"finalizers": [f for f in meta.finalizers(live) if f != finalizer]})

    async def _patch(self, resource: Resource, live: Object, change: Object) -> None:
        patch = {"metadata": {"uid": meta.uid(live), "resourceVersion": meta.resource_version(live), **change}}
        try:
            after = await self.client.patch(resource, meta.name(live), meta.namespace(live), patch)
        except ApiError as error:
            if error.code != 404:
                raise
        else:
            live["metadata"]["resourceVersion"] = meta.resource_version(after)

    def _resource_of(self, owner: Owner) -> Resource | None:
        """The stored version of the owner's kind; its reference may name another version."""
        group = owner.api_version.rpartition("/")[0]
        matches = [r for r in self.catalog if r.group == group and r.kind == owner.kind and r.persisted]
        return next((r for r in matches if is_stored_version(r)), matches[0] if matches else None)

    def _cached_state(self, node: Node, owner: Owner) -> State:
        """From the cache alone; ABSENT then only means: ask the server."""
        resource = self._resource_of(owner)
        if resource is None or not is_stored_version(resource):
            return State.ABSENT
        cached = self.cache(resource).get(owner.name, node.namespace if resource.namespaced else "")
        if cached is None or meta.uid(cached) != owner.uid:
            return State.ABSENT
        return _state_of(cached)

    async def _state(self, node: Node, owner: Owner, resource: Resource) -> State:
        if resource.namespaced and not node.namespace:
            return State.SOLID  # a reference that cannot hold; upstream leaves such objects alone, too
        state = self._cached_state(node, owner)
        if state is not State.ABSENT or owner.uid in self._absent:
            return state
        live = await self._get(resource, owner.name, node.namespace if resource.namespaced else "", owner.uid)
        if live is not None:
            return _state_of(live)
        self._absent[owner.uid] = None
        if len(self._absent) > ABSENT_OWNERS:
            self._absent.popitem(last=False)
        return State.ABSENT


def _state_of(owner: Object) -> State:
    waiting = meta.is_deleting(owner) and FOREGROUND in meta.finalizers(owner)
    return State.WAITING if waiting else State.SOLID
