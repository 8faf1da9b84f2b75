"""Controllers that look after every resource there is, custom ones included.

Owns: EveryResource (a Reconciler that watches all resources of the catalog and those that CustomResourceDefinitions add) and
`stored` (each kind once). Called by: garbage/collector, namespace. Never does: anything to the objects.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from k1s.api import meta
from k1s.api.catalog import Catalog, Resource, builtin
from k1s.client.controller import KeysOf
from k1s.client.interface import Object
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

log = logging.getLogger("k1s.controller")

CRD = builtin("CustomResourceDefinition")
_PREFIX = "crd:"
# A definition that was just established appears in the catalog at once; so many seconds we look for it.
_TRIES, _WAIT = 10, 1.0


def stored(catalog: Catalog) -> Iterator[Resource]:
    """Every resource that can be watched and deleted, each kind in the version it is stored in."""
    for resource in catalog:
        if "watch" in resource.verbs and "delete" in resource.verbs and is_stored_version(resource):
            yield resource


def is_stored_version(resource: Resource) -> bool:
    if not resource.storage_version:
        return True
    place = (resource.storage_group, resource.storage_version, resource.storage_plural or resource.plural)
    return place == (resource.group, resource.version, resource.plural)


class EveryResource(Reconciler):
    """Subclasses say what they want and do the work; keys that begin with "crd:" are ours."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.crds = self.cache(CRD)
        self._followed: set[str] = set()
        self._tries: dict[str, int] = {}

    def wants(self, resource: Resource) -> bool:
        raise NotImplementedError

    def keys_for(self, resource: Resource) -> KeysOf:
        raise NotImplementedError

    async def work(self, key: str) -> float | None:
        raise NotImplementedError

    def watches(self) -> Iterable[Watch]:
        for resource in stored(self.catalog):
            if self.wants(resource):
                self._followed.add(resource.storage_prefix)
                yield resource, self.keys_for(resource)
        yield CRD, self._crd_changed

    def _crd_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        if new is not None and meta.is_true(new, "Established") and not (old is not None and meta.is_true(old, "Established")):
            yield f"{_PREFIX}{meta.name(new)}"

    async def reconcile(self, key: str) -> float | None:
        if key.startswith(_PREFIX):
            return await self._follow(key.removeprefix(_PREFIX))
        return await self.work(key)

    async def _follow(self, name: str) -> float | None:
        """Watch the resource that a definition added."""
        plural, _, group = name.partition(".")
        found = [r for r in stored(self.catalog) if r.group == group and r.plural == plural]
        if not found and self.crds.get(name) is not None:
            self._tries[name] = self._tries.get(name, 0) + 1
            if self._tries[name] <= _TRIES:
                return _WAIT
            log.warning("%s: the catalog does not have %s", self.name, name)
        self._tries.pop(name, None)
        for resource in found:
            if self.wants(resource) and resource.storage_prefix not in self._followed:
                self._followed.add(resource.storage_prefix)
                await self.controller.attach(self.cache(resource), self.keys_for(resource))
        return None
