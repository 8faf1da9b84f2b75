"""Namespace: one that is deleted is emptied, then let go.

Watches: Namespaces (own key), every namespaced resource (a deletion inside a terminating namespace wakes it).
Owns: the conditions that tell what still holds it. Never does: force anything past finalizers.
Source: upstream pkg/controller/namespace/deletion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from k1s.api import meta
from k1s.api.catalog import Resource, builtin
from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.client.controller import KeysOf
from k1s.client.interface import Object
from k1s.server.controllers.everything import EveryResource, stored
from k1s.server.controllers.reconciler import Context, same
from k1s.server.controllers.remote_resources import remote_rows

NAMESPACE, POD, API_SERVICE = builtin("Namespace"), builtin("Pod"), builtin("APIService")
FINALIZER = "kubernetes"
# What is left goes when its own finalizers or grace periods end, which wakes us; this is only the safety net.
CHECK_SECONDS = 60.0
# Nothing tells when objects of another API server have gone.
REMOTE_SECONDS = 5.0


class NamespaceController(EveryResource):
    name = "namespace"
    workers = 4

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.namespaces, self.pods, self.services = self.cache(NAMESPACE), self.cache(POD), self.cache(API_SERVICE)

    def wants(self, resource: Resource) -> bool:
        return resource.namespaced or resource == NAMESPACE

    def keys_for(self, resource: Resource) -> KeysOf:
        return self._namespace_changed if resource == NAMESPACE else self._content_changed

    def _namespace_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        return (meta.name(new),) if new is not None and meta.is_deleting(new) else ()

    def _content_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        if new is not None:
            return ()
        namespace = self.namespaces.get(meta.namespace(old or {}))
        return (meta.name(namespace),) if namespace is not None and meta.is_deleting(namespace) else ()

    async def work(self, key: str) -> float | None:
        namespace = self.namespaces.get(key)
        if namespace is None or not meta.is_deleting(namespace):
            return None
        finalizers = (namespace.get("spec") or {}).get("finalizers") or []
        if FINALIZER not in finalizers:
            return None
        failures = await self._delete_content(key)
        remote, silent = await remote_rows(self.client, self.services.list())
        elsewhere = await self._delete_remote(key, remote, failures)
        left = [*self._seen(key), *elsewhere]
        conditions = plan_conditions(namespace, left, failures, self.stamp(), silent)
        status = {**(namespace.get("status") or {}), "phase": "Terminating", "conditions": conditions}
        if not same(status, namespace.get("status")):
            namespace = await self.client.update(NAMESPACE, {**namespace, "status": status}, subresource="status")
        if failures or silent:
            raise ApiError(500, "InternalError", "; ".join((*failures, *silent)))
        if elsewhere:
            return REMOTE_SECONDS
        if left or not await self._is_empty(key):
            return CHECK_SECONDS
        spec = {**(namespace.get("spec") or {}), "finalizers": [f for f in finalizers if f != FINALIZER]}
        try:
            await self.client.update(NAMESPACE, {**namespace, "spec": spec}, subresource="finalize")
        except ApiError as error:
            if error.code != 404:
                raise
        return None

    def _seen(self, namespace: str) -> list[Object]:
        """What the caches show inside."""
        return [obj for r in stored(self.catalog) if r.namespaced for obj in self.cache(r).list(namespace)]

    async def _delete_content(self, namespace: str) -> list[str]:
        """Ask for the deletion of what is inside and not going yet; returns what could not be asked.

        Pods go first: nothing that may protect something from them, such as a NetworkPolicy, is taken away while they run.
        """
        failures: list[str] = []
        # While the caches show content the server need not be asked; it has the last word when they show none.
        ask = not self._seen(namespace)
        pods = list(self.pods.list(namespace))
        for resource in [POD] if pods else [r for r in stored(self.catalog) if r.namespaced]:
            try:
                content = await self.client.list(resource, namespace) if ask else self.cache(resource).list(namespace)
                for obj in content:
                    if not meta.is_deleting(obj):
                        await self._delete(resource, obj)
            except ApiError as error:
                failures.append(f"{resource.qualified}: {error}")
        return failures

    async def _delete_remote(self, namespace: str, rows: list[Resource], failures: list[str]) -> list[Object]:
        """Ask extension servers for the deletion of what they have inside; what is left there (pods go first here, too)."""
        left: list[Object] = []
        for resource in [] if self.pods.list(namespace) else rows:
            try:
                for obj in await self.client.list(resource, namespace):
                    if not meta.is_deleting(obj):
                        await self._delete(resource, obj)
                left += await self.client.list(resource, namespace)
            except ApiError as error:
                failures.append(f"{resource.qualified}: {error}")
        return left

    async def _is_empty(self, namespace: str) -> bool:
        for resource in [r for r in stored(self.catalog) if r.namespaced]:
            if await self.client.list(resource, namespace):
                return False
        return True

    async def _delete(self, resource: Resource, obj: Object) -> None:
        try:
            await self.client.delete(resource, meta.name(obj), meta.namespace(obj), uid=meta.uid(obj), propagation="Background")
        except ApiError as error:
            if error.code != 404:
                raise


def plan_conditions(
    namespace: Object, left: list[Object], failures: list[str], stamp: str, silent: Sequence[str] = ()
) -> list[Object]:
    """The five conditions of a terminating namespace, upstream's words. `silent`: APIs that could not be asked."""
    start = f"Discovery failed for some groups, {len(silent)} failing: unable to retrieve the complete list of server APIs: "
    kinds = Counter(_qualified(obj) for obj in left)
    held = Counter(f for obj in left for f in meta.finalizers(obj))
    remaining = ", ".join(f"{kind} has {count} resource instances" for kind, count in sorted(kinds.items()))
    holding = ", ".join(f"{finalizer} in {count} resource instances" for finalizer, count in sorted(held.items()))
    rows = (
        (
            "NamespaceDeletionDiscoveryFailure",
            start + ", ".join(silent) if silent else "",
            "DiscoveryFailed" if silent else "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        ("NamespaceDeletionGroupVersionParsingFailure", "", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
        (
            "NamespaceDeletionContentFailure",
            f"Failed to delete all resource types, {len(failures)} remaining: " + "; ".join(failures) if failures else "",
            "ContentDeletionFailed" if failures else "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            f"Some resources are remaining: {remaining}" if kinds else "",
            "SomeResourcesRemain" if kinds else "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            f"Some content in the namespace has finalizers remaining: {holding}" if held else "",
            "SomeFinalizersRemain" if held else "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    )
    conditions: list[Object] = clone((namespace.get("status") or {}).get("conditions") or [])
    for kind, problem, reason, fine in rows:
        status = "True" if problem else "False"
        meta.set_condition(conditions, {"type": kind, "status": status, "reason": reason, "message": problem or fine}, stamp)
    return conditions


def _qualified(obj: Object) -> str:
    """`pods.`, `deployments.apps`: as upstream writes group resources here, from apiVersion and kind."""
    group = (obj.get("apiVersion") or "").rpartition("/")[0]
    return f"{(obj.get('kind') or '').lower()}s.{group}"
