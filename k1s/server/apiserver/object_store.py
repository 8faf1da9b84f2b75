"""Objects in the store: keys, encoding, compare and swap, and the errors a client is told.

Owns: ObjectStore: create, guaranteed_update, delete, reads at a revision. Called by: handlers, subresources, deletion.
Never does: decide what an object may look like (strategies, validation, admission do), authorize.

Every write waits until the watch cache shows it, so whoever got the answer reads its own write.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from k1s.api.catalog import Resource
from k1s.api.errors import (
    ApiError,
    already_exists,
    expired,
    internal,
    not_found,
    request_entity_too_large,
    server_timeout,
    service_unavailable,
    too_old_resource_version,
)
from k1s.server.apiserver.entries import Entry, encode, splice
from k1s.server.apiserver.resource_cache import ResourceCache
from k1s.server.apiserver.watch_cache import WatchCache
from k1s.storage.errors import Closed, Expired, KeyExists, KeyNotFound, RevisionConflict, StoreError, StoreFull
from k1s.storage.interface import Event, Listing, Origin, Store

Object = dict[str, Any]

# Gives the new object (storage version), or None for "leave it as it is".
Change = Callable[[Entry], Awaitable[Object | None]]

# Lost races in a row until a write gives up; each one means that somebody else's write went through.
MAX_CONFLICTS = 64

# Bytes of an object as it is stored: what a request may have (upstream's etcd takes half of that).
MAX_OBJECT = 3 * 1024 * 1024

_VOLATILE = {("", "events"), ("coordination.k8s.io", "leases")}


def key_of(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


class ObjectStore:
    def __init__(self, store: Store, hub: WatchCache) -> None:
        self._store, self._hub = store, hub

    @property
    def revision(self) -> int:
        return self._store.revision

    def cache(self, resource: Resource) -> ResourceCache:
        return self._hub.cache(resource)

    async def find(self, resource: Resource, namespace: str, name: str) -> Entry | None:
        """The current object, or None."""
        if self._hub.revision < self._store.revision:
            await self._hub.fresh()
        return self._hub.cache(resource).get(f"{namespace}/{name}" if namespace else name)

    async def get(self, resource: Resource, namespace: str, name: str) -> Entry:
        """The current object. Raises ApiError 404."""
        entry = await self.find(resource, namespace, name)
        if entry is None:
            raise not_found(resource.plural, resource.group, name)
        return entry

    async def fresh(self) -> None:
        await self._hub.fresh()

    async def create(self, resource: Resource, namespace: str, name: str, obj: Object, origin: Origin) -> Entry:
        """Store a new object. Raises ApiError 409 AlreadyExists."""
        cache = self._hub.cache(resource)
        key = key_of(namespace, name)
        value = _encoded(obj, cache.head)
        try:
            revision = await self._store.create(cache.prefix + key, value, origin=origin, volatile=volatile(resource))
        except KeyExists:
            raise already_exists(resource.plural, resource.group, name) from None
        except StoreError as error:
            raise refusal(error) from error
        await self._hub.wait(revision)
        return Entry(key, splice(value, cache.head, revision), revision, revision)

    async def guaranteed_update(
        self, resource: Resource, namespace: str, name: str, change: Change, origin: Origin, *, dry_run: bool = False
    ) -> Entry:
        """Apply `change` to the current object and store the result; again with the newer object when somebody was faster.

        A result that is equal to the current object is not written. Raises ApiError 404 and what `change` raises.
        """
        cache = self._hub.cache(resource)
        entry = await self.get(resource, namespace, name)
        for _ in range(MAX_CONFLICTS):
            obj = await change(entry)
            if obj is None:
                return entry
            value = _encoded(obj, cache.head)
            spliced = splice(value, cache.head, entry.revision)
            if spliced == entry.raw or same(obj, entry.obj()):
                return entry
            if dry_run:
                return Entry(entry.key, spliced, entry.revision, entry.create_revision)
            try:
                revision = await self._store.update(
                    cache.prefix + entry.key, value, expected=entry.revision, origin=origin, volatile=volatile(resource)
                )
            except RevisionConflict as lost:
                current = lost.current
                raw = splice(current.value, cache.head, current.revision)
                entry = Entry(entry.key, raw, current.revision, current.create_revision)
                continue
            except KeyNotFound:
                raise not_found(resource.plural, resource.group, name) from None
            except StoreError as error:
                raise refusal(error) from error
            await self._hub.wait(revision)
            return Entry(entry.key, splice(value, cache.head, revision), revision, entry.create_revision)
        raise server_timeout(resource.plural, resource.group, origin.verb)

    async def remove(self, resource: Resource, entry: Entry, origin: Origin, *, dry_run: bool = False) -> bool:
        """Delete exactly this revision of an object. False: somebody was faster, look again."""
        if dry_run:
            return True
        cache = self._hub.cache(resource)
        try:
            revision = await self._store.delete(
                cache.prefix + entry.key, expected=entry.revision, origin=origin, volatile=volatile(resource)
            )
        except (RevisionConflict, KeyNotFound):
            await self._hub.fresh()
            return False
        except StoreError as error:
            raise refusal(error) from error
        await self._hub.wait(revision)
        return True

    async def history(self, resource: Resource, after: int, upto: int) -> tuple[Sequence[Event], int]:
        """A piece of what happened to a resource in (after, upto], and up to where it is complete. Raises ApiError 410."""
        prefix, durable = resource.storage_prefix, not volatile(resource)
        try:
            return await self._store.history(prefix, after=after, upto=upto, durable=durable)
        except Expired as error:
            raise too_old_resource_version(after, error.compacted) from None
        except StoreError as error:
            raise refusal(error) from error

    async def list_at(self, resource: Resource, prefix: str, after: str, limit: int, revision: int) -> Listing:
        """A page as it was at an older revision. Raises ApiError 410."""
        root = resource.storage_prefix
        try:
            if volatile(resource):
                # What a crash may have lost is not shown as if it had never been.
                await self._store.history(root, after=revision, upto=revision)
            return await self._store.list(root + prefix, after=root + after if after else "", limit=limit, revision=revision)
        except Expired:
            raise expired("The resourceVersion for the provided list is too old.") from None
        except StoreError as error:
            raise refusal(error) from error


def _encoded(obj: Object, head: bytes) -> bytes:
    """Raises ApiError 413: patches could make an object grow without end."""
    value = encode(obj, head)
    if len(value) > MAX_OBJECT:
        raise request_entity_too_large(f"limit is {MAX_OBJECT}")
    return value


def volatile(resource: Resource) -> bool:
    """Leases and events: written often, worth little after a crash."""
    return (resource.stored_group, resource.storage_plural or resource.plural) in _VOLATILE


def refusal(error: StoreError) -> ApiError:
    """What a client is told when the store cannot."""
    if isinstance(error, StoreFull):
        return ApiError(507, "InsufficientStorage", f"the datastore is full: {error}")
    if isinstance(error, Closed):
        return service_unavailable("the server is shutting down")
    return internal(f"{type(error).__name__}: {error}")


def same(new: Object, old: Object) -> bool:
    """Whether a write would change nothing but the times in managedFields."""
    if {k: v for k, v in new.items() if k != "metadata"} != {k: v for k, v in old.items() if k != "metadata"}:
        return False
    skip = ("resourceVersion", "managedFields")
    before, after = old["metadata"], new["metadata"]
    if {k: v for k, v in after.items() if k not in skip} != {k: v for k, v in before.items() if k not in skip}:
        return False
    return _timeless(after.get("managedFields")) == _timeless(before.get("managedFields"))


def _timeless(managed: list[Object] | None) -> list[Object]:
    return [{k: v for k, v in entry.items() if k != "time"} for entry in managed or []]
