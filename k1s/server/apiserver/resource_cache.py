"""All objects of one stored resource, in memory, as bytes.

Owns: ResourceCache: the objects in key order, the ring of recent changes, indices, the watchers and handlers that are told.
Called by: watch_cache (which feeds it), handlers (reads and watches), informers. Never does: I/O.
Bounds: the ring holds RING_CHANGES changes and about RING_BYTES; older watches are served from the log first (resumption.py).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from k1s.api.catalog import Resource
from k1s.server.apiserver.delivery import Delivery
from k1s.server.apiserver.entries import Change, Entry, head_of, splice
from k1s.server.apiserver.selected import Selected
from k1s.server.apiserver.selection import Selection
from k1s.server.apiserver.watcher import Render, Watcher

Object = dict[str, Any]
ChangeHandler = Callable[[Object | None, Object | None], None]
IndexFunction = Callable[[Object], Iterable[str]]

RING_CHANGES = 4096
RING_BYTES = 8 * 1024 * 1024


class ResourceCache:
    """`resource` is the row of the storage version. `revision` is that of the newest change of this resource."""

    def __init__(self, resource: Resource, delivery: Delivery | None = None) -> None:
        self.resource = resource
        self._delivery = delivery if delivery is not None else Delivery()
        self.prefix = resource.storage_prefix
        self.head = head_of(resource)
        self.revision = 0
        # Changes after this revision are in the ring.
        self.ring_start = 0
        self.watchers: set[Watcher] = set()
        # Changes taken in, and events sent to watchers that have ended.
        self.changes = self.sent = 0
        # Whether somebody reads them through an informer's list or index: only then decoded ones are worth keeping.
        self.read = False
        # Called when the last object has gone.
        self.on_empty: Callable[[], None] | None = None
        self._entries: dict[str, Entry] = {}
        self._keys: list[str] = []
        self._ring: deque[Change] = deque()
        self._ring_bytes = 0
        self._selected = Selected()
        self._handlers: list[ChangeHandler] = []
        self._index_functions: dict[str, IndexFunction] = {}
        self._indices: dict[str, dict[str, dict[str, Entry]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def describe(self, resource: Resource) -> None:
        """Take the row of the storage version, which a changed definition may have replaced."""
        self.resource, self.head = resource, head_of(resource)

    # Reading

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def entries(self, namespace: str = "") -> list[Entry]:
        """In key order."""
        if not namespace:
            return [self._entries[key] for key in self._keys]
        first = bisect_left(self._keys, f"{namespace}/")
        last = bisect_left(self._keys, f"{namespace}0")  # "0" is the character after "/"
        return [self._entries[key] for key in self._keys[first:last]]

    def selected(self, selection: Selection) -> list[Entry]:
        """Those that a selection matches, in key order."""
        if selection.everything:
            return self.entries(selection.namespace)
        if selection.name and (selection.namespace or not self.resource.namespaced):
            entry = self._entries.get(f"{selection.namespace}/{selection.name}" if selection.namespace else selection.name)
            return [entry] if entry is not None and selection.matches(entry) else []
        known = self._selected.known(selection, self.revision, reversed(self._ring), self.ring_start)
        if known is not None:
            return [self._entries[key] for key in sorted(known)]
        found = [entry for entry in self.entries(selection.namespace) if selection.matches(entry)]
        self._selected.learn(selection, self.revision, {entry.key for entry in found}, len(self._keys))
        return found

    def entries_at(self, revision: int, namespace: str = "") -> list[Entry] | None:
        """As they were: those of now, with what happened since taken back. None if the ring does not reach back so far."""
        if revision >= self.revision:
            return self.entries(namespace)
        if revision < self.ring_start:
            return None
        undone: dict[str, Entry | None] = {}
        for change in reversed(self._ring):
            if change.revision <= revision:
                break
            undone[change.entry.key] = change.previous
        found = [entry for entry in self.entries(namespace) if entry.key not in undone]
        found += [entry for entry in undone.values() if entry is not None and namespace in ("", entry.namespace)]
        found.sort(key=lambda entry: entry.key)
        return found

    def indexed(self, index: str, value: str) -> list[Entry]:
        return list(self._indices[index].get(value, {}).values())

    def add_index(self, name: str, values: IndexFunction) -> None:
        if name in self._index_functions:
            return
        self._index_functions[name] = values
        table: dict[str, dict[str, Entry]] = {}
        self._indices[name] = table
        for key in self._keys:
            entry = self._entries[key]
            for value in values(entry.peek()):
                table.setdefault(value, {})[key] = entry

    # Being told

    def add_handler(self, handler: ChangeHandler) -> None:
        self._handlers.append(handler)
        for key in list(self._keys):
            entry = self._entries[key]
            handler(None, entry.obj())
            if not self.read:
                entry.forget()

    def watch(self, watcher: Watcher, after: int) -> None:
        """Add a watcher and give it what happened after revision `after`, which the ring has to reach (resumption.py)."""
        if after < self.ring_start:
            raise ValueError(f"revision {after} is before {self.ring_start}, where the ring begins")
        if self.revision > after:
            for change in self._ring:
                if change.revision > after:
                    watcher.offer(change, {})
        self.watchers.add(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        self.watchers.discard(watcher)
        self.sent += watcher.sent
        watcher.sent = 0

    def new_watcher(self, selection: Selection, *, render: Render | None, bookmark: Any) -> Watcher:
        return Watcher(selection, self._delivery, render=render, bookmark=bookmark, on_close=self.unwatch)

    # Being fed

    def load(self, key: str, value: bytes, revision: int, create_revision: int) -> None:
        """An object of the first list; nobody is told."""
        self._entries[key] = Entry(key, splice(value, self.head, revision), revision, create_revision)
        self._keys.append(key)
        self.revision = max(self.revision, revision)

    def loaded(self, revision: int) -> None:
        """The first list is complete as of `revision`."""
        self._keys.sort()
        # Not the newest object's revision: what was deleted later does not show in the objects.
        self.begin(max(self.ring_start, revision))

    def put(self, key: str, value: bytes, revision: int, create_revision: int) -> None:
        """An object was created or changed."""
        entry = Entry(key, splice(value, self.head, revision), revision, create_revision)
        previous = self._entries.get(key)
        self._entries[key] = entry
        if previous is None:
            insort(self._keys, key)
        self._tell(Change("ADDED" if previous is None else "MODIFIED", entry, previous, revision))

    def remove(self, key: str, revision: int) -> None:
        """An object was deleted."""
        previous = self._entries.pop(key, None)
        if previous is None:
            return
        del self._keys[bisect_left(self._keys, key)]
        self._tell(Change("DELETED", previous.at(revision), previous, revision))
        if not self._entries and self.on_empty is not None:
            self.on_empty()

    def restart(self, revision: int) -> None:
        """The feed has a gap: end all watches and forget the ring (the caller puts what differs)."""
        for watcher in list(self.watchers):
            watcher.end()
        self.begin(revision)

    def begin(self, revision: int) -> None:
        """What is known begins here: of earlier revisions only the log can tell."""
        self._ring.clear()
        self._ring_bytes = 0
        self.ring_start = self.revision = revision
        self._selected.forget()

    def all_keys(self) -> list[str]:
        return list(self._keys)

    def _tell(self, change: Change) -> None:
        self.revision = change.revision
        self.changes += 1
        entry, previous = change.entry, change.previous
        for name, values in self._index_functions.items():
            self._reindex(name, values, change)
        if self._handlers:
            old = previous.obj() if previous is not None else None
            new = entry.obj() if change.type != "DELETED" else None
            for handler in self._handlers:
                handler(old, new)
        shared: dict[str, bytes] = {}
        for watcher in list(self.watchers):
            watcher.offer(change, shared)
        if previous is not None:
            previous.retire()
        entry.retire(keep_object=self.read)
        self._remember(change)

    def _reindex(self, name: str, values: IndexFunction, change: Change) -> None:
        table = self._indices[name]
        key = change.entry.key
        if change.previous is not None:
            for value in values(change.previous.obj()):
                bucket = table.get(value)
                if bucket is not None:
                    bucket.pop(key, None)
                    if not bucket:
                        del table[value]
        if change.type != "DELETED":
            for value in values(change.entry.obj()):
                table.setdefault(value, {})[key] = change.entry

    def _remember(self, change: Change) -> None:
        # The entry's bytes are counted once: as long as it is current they are not the ring's.
        self._ring.append(change)
        self._ring_bytes += len(change.entry.raw)
        while len(self._ring) > RING_CHANGES or (self._ring_bytes > RING_BYTES and len(self._ring) > 1):
            gone = self._ring.popleft()
            self._ring_bytes -= len(gone.entry.raw)
            self.ring_start = gone.revision
