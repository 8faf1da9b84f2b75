"""One object of an add-on, applied or taken away.

Owns: server-side apply as the field manager k1s-addon, the judgement whether a refusal can pass by itself, what removal spares.
Called by: manifests, definitions. Never does: read files, keep records.
"""

from __future__ import annotations

from enum import Enum

from k1s.api import meta
from k1s.api.catalog import Catalog, Resource
from k1s.api.errors import ApiError
from k1s.client.interface import APPLY_PATCH, Object
from k1s.client.rest import RestClient
from k1s.server.addons.context import FIELD_MANAGER
from k1s.server.addons.documents import Identity

DEFAULT_NAMESPACE = "default"
# What the object itself is refused for; everything else may pass: a namespace to come, a webhook that is down, a quota.
_FINAL = (400, 405, 413, 415, 422)


class Refused(Exception):
    """The object was not applied. `final`: trying again as it stands is of no use. `missing`: its kind is not served."""

    def __init__(self, message: str, *, final: bool, missing: bool = False) -> None:
        super().__init__(message)
        self.final, self.missing = final, missing


class Removal(Enum):
    GONE = "gone"
    # Its definition still has objects that are not the add-on's.
    IN_USE = "in use"


class Objects:
    def __init__(self, client: RestClient, catalog: Catalog) -> None:
        self._client, self._catalog = client, catalog

    def identity(self, obj: Object) -> Identity:
        """Who the object is; without a namespace of its own it goes where kubectl would put it."""
        metadata = obj["metadata"]
        return self.scoped(Identity(obj["apiVersion"], obj["kind"], metadata.get("namespace") or "", metadata["name"]))

    def scoped(self, identity: Identity) -> Identity:
        """With a namespace if its kind has one, without if not; as it stands while the kind is not served."""
        resource = self._resource(identity)
        if resource is None:
            return identity
        return identity._replace(namespace=(identity.namespace or DEFAULT_NAMESPACE) if resource.namespaced else "")

    async def is_foreign(self, identity: Identity) -> bool:
        """Whether the object is there and no add-on has had a part in it."""
        live = await self._live(identity)
        return live is not None and not _is_ours(live)

    async def apply(self, identity: Identity, obj: Object) -> Object:
        """The object as it is then. Raises Refused."""
        resource = self._resource(identity)
        if resource is None:
            text = f'no kind "{identity.kind}" in {identity.api_version} (yet): its definition is not there'
            raise Refused(text, final=False, missing=True)
        body = {**obj, "metadata": {**obj["metadata"], **({"namespace": identity.namespace} if identity.namespace else {})}}
        if not resource.namespaced:
            body["metadata"].pop("namespace", None)
        body.pop("status", None)
        try:
            return await self._client.patch(
                resource, identity.name, identity.namespace, body,
                content_type=APPLY_PATCH, field_manager=FIELD_MANAGER, force=True, strict=True,
            )  # fmt: skip
        except ApiError as error:
            raise Refused(error.message, final=error.code in _FINAL) from error

    async def remove(self, identity: Identity, uid: str) -> Removal:
        """Delete it, unless somebody has made it anew. `uid` is "" if it may never have been applied. Raises ApiError."""
        resource = self._resource(identity)
        live = await self._live(identity)
        if resource is None or live is None or not (meta.uid(live) == uid if uid else _is_ours(live)):
            return Removal.GONE
        if identity.kind == "CustomResourceDefinition" and await self._has_objects(live):
            return Removal.IN_USE
        try:
            await self._client.delete(resource, identity.name, identity.namespace, propagation="Background", uid=meta.uid(live))
        except ApiError as error:
            if error.code != 404:
                raise
        return Removal.GONE

    async def _has_objects(self, definition: Object) -> bool:
        group, plural = definition["spec"]["group"], definition["spec"]["names"]["plural"]
        for resource in self._catalog:
            if resource.group == group and resource.plural == plural:
                return any(not meta.is_deleting(obj) for obj in await self._client.list(resource))
        return False

    async def _live(self, identity: Identity) -> Object | None:
        resource = self._resource(identity)
        if resource is None:
            return None
        try:
            return await self._client.get(resource, identity.name, identity.namespace)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def _resource(self, identity: Identity) -> Resource | None:
        return self._catalog.by_api_version(identity.api_version, identity.kind)


def _is_ours(live: Object) -> bool:
    return any(entry.get("manager") == FIELD_MANAGER for entry in meta.metadata(live).get("managedFields") or [])
