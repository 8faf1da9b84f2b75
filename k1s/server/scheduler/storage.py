"""Claims, volumes and storage classes as the scheduler asks for them: a view of the caches.

Owns: InformerStorage. Called by: app (makes it), plugins/volume_binding (through Snapshot.storage). Never does: copy objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from k1s.api.catalog import builtin
from k1s.client.interface import InformerFactory, Object


class InformerStorage:
    def __init__(self, informers: InformerFactory) -> None:
        self._claims = informers.informer(builtin("PersistentVolumeClaim"))
        self._volumes = informers.informer(builtin("PersistentVolume"))
        self._classes = informers.informer(builtin("StorageClass"))

    async def synced(self) -> None:
        for informer in (self._claims, self._volumes, self._classes):
            await informer.synced()

    def add_handler(self, handler: Callable[[Object | None, Object | None], None]) -> None:
        for informer in (self._claims, self._volumes, self._classes):
            informer.add_handler(handler)

    def claim(self, namespace: str, name: str) -> Object | None:
        return self._claims.get(name, namespace)

    def volume(self, name: str) -> Object | None:
        return self._volumes.get(name)

    def volumes(self) -> Iterable[Object]:
        return self._volumes.list()

    def storage_class(self, name: str) -> Object | None:
        return self._classes.get(name)
