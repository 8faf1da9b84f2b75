"""default/kubernetes comes back when somebody deletes it: pods find the API server by it.

Watches: the Service, Endpoints and EndpointSlice of that name (key: the kind). Owns: making them again as they were.
Called by: controllers.app. Never does: change one that is there (the server's start and its address follower do).
Source: upstream pkg/controlplane/controller/kubernetesservice, which looks every ten seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import Resource, builtin
from k1s.api.errors import ApiError
from k1s.client.controller import KeysOf
from k1s.client.interface import Object
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

NAMESPACE, NAME = "default", "kubernetes"
KINDS = {resource.kind: resource for resource in map(builtin, ("Service", "Endpoints", "EndpointSlice"))}
_KEPT = ("name", "namespace", "labels", "annotations")


class KubernetesServiceController(Reconciler):
    name = "kubernetes-service"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        # Kind -> the object as it was when it went.
        self._gone: dict[str, Object] = {}

    def watches(self) -> Iterable[Watch]:
        return [(resource, self._changed(kind)) for kind, resource in KINDS.items()]

    def _changed(self, kind: str) -> KeysOf:
        def keys(old: Object | None, new: Object | None) -> Iterable[str]:
            if new is not None or old is None or (meta.namespace(old), meta.name(old)) != (NAMESPACE, NAME):
                return ()
            self._gone[kind] = old
            return (kind,)

        return keys

    async def reconcile(self, key: str) -> float | None:
        resource: Resource = KINDS[key]
        gone = self._gone.get(key)
        if gone is not None and self.cache(resource).get(NAME, NAMESPACE) is None:
            metadata = {field: gone["metadata"][field] for field in _KEPT if gone["metadata"].get(field)}
            again = {field: value for field, value in gone.items() if field not in ("metadata", "status")}
            try:
                await self.client.create(resource, {**again, "metadata": metadata})
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
        self._gone.pop(key, None)
        return None
