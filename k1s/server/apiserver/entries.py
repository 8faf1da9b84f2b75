"""An object as the watch cache holds it: encoded once, decoded at most once.

Owns: Entry, Change, and the encoding of objects in the store: apiVersion, kind and metadata come first, in that order, and
metadata carries no resourceVersion; so the version is put in by cutting the bytes at a known place.
Called by: watch_cache, object_store. Never does: I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from sys import intern
from typing import Any

import orjson

from k1s.api.catalog import Resource

Object = dict[str, Any]
# Among an entry's facts; no field has this name.
LABELS = ""


def head_of(resource: Resource) -> bytes:
    """What every stored object of a resource begins with."""
    start = orjson.dumps({"apiVersion": f"{_storage_api_version(resource)}", "kind": resource.kind})
    return start[:-1] + b',"metadata":{'


def _storage_api_version(resource: Resource) -> str:
    group = resource.stored_group
    version = resource.storage_version or resource.version
    return f"{group}/{version}" if group else version


def encode(obj: Object, head: bytes) -> bytes:
    """The bytes that go to the store. Raises ValueError if the object is not of the resource `head` belongs to."""
    meta = obj["metadata"]
    if "resourceVersion" in meta:
        meta = {key: value for key, value in meta.items() if key != "resourceVersion"}
    ordered = {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "metadata": meta}
    for key, value in obj.items():
        if key not in ordered:
            ordered[key] = value
    data = orjson.dumps(ordered)
    if not data.startswith(head):
        raise ValueError(f"{obj.get('apiVersion')} {obj.get('kind')} does not begin with {head!r}")
    return data


def splice(value: bytes, head: bytes, revision: int) -> bytes:
    """The bytes that clients get: the stored ones with metadata.resourceVersion."""
    cut = len(head)
    if value[:cut] == head:
        return b'%b"resourceVersion":"%d",%b' % (head, revision, value[cut:])
    # Written by something that does not keep our order (an import, another version): slow, but right.
    obj = orjson.loads(value)
    obj["metadata"] = {**(obj.get("metadata") or {}), "resourceVersion": str(revision)}
    return orjson.dumps(obj)


class Entry:
    """One object at one revision. `key` is `namespace/name` or `name`; `raw` has the resourceVersion in it."""

    __slots__ = ("_facts", "_obj", "create_revision", "key", "name", "namespace", "raw", "revision")

    def __init__(self, key: str, raw: bytes, revision: int, create_revision: int) -> None:
        self.key = key
        namespace, slash, name = key.partition("/")
        self.namespace, self.name = (namespace, name) if slash else ("", key)
        self.raw = raw
        self.revision = revision
        self.create_revision = create_revision
        self._obj: Object | None = None
        self._facts: Object | None = None

    def obj(self) -> Object:
        """The decoded object, READ-ONLY: everybody gets the same one."""
        if self._obj is None:
            decoded: Object = orjson.loads(self.raw)
            self._obj = decoded
        return self._obj

    def peek(self) -> Object:
        """The decoded object for one look: kept only if somebody needed it before."""
        if self._obj is not None:
            return self._obj
        decoded: Object = orjson.loads(self.raw)
        return decoded

    def fresh(self) -> Object:
        """A copy of one's own, to change."""
        decoded: Object = orjson.loads(self.raw)
        return decoded

    def known(self, paths: tuple[str, ...]) -> Object | None:
        """The facts, if these have been read before."""
        facts = self._facts
        if facts is None:
            return None
        for path in paths:
            if path not in facts:
                return None
        return facts

    def facts(self, paths: tuple[str, ...], read: Callable[[Object, str], str]) -> Object:
        """The labels (under LABELS) and these fields: read off the object once, then kept, since selectors ask again."""
        facts = self.known(paths)
        if facts is not None:
            return facts
        facts = self._facts
        obj = self.peek()
        labels = obj["metadata"].get("labels") or {}
        facts = {} if facts is None else dict(facts)
        # Many objects share their values.
        facts[LABELS] = {key: intern(value) for key, value in labels.items()}
        for path in paths:
            facts[path] = intern(read(obj, path))
        self._facts = facts
        return facts

    def forget(self) -> None:
        """Drop the decoded object; whoever got it keeps it."""
        self._obj = None

    def retire(self, *, keep_object: bool = False) -> None:
        """Drop what was needed to tell of a change; all but the bytes when a newer state has come."""
        self._facts = None
        if not keep_object:
            self._obj = None

    def at(self, revision: int) -> Entry:
        """The same object under another resourceVersion, as it is told to a watcher whose selector it has left."""
        old = b'"resourceVersion":"%d"' % self.revision
        raw = self.raw.replace(old, b'"resourceVersion":"%d"' % revision, 1)
        return Entry(self.key, raw, revision, self.create_revision)


class Change:
    """One event of one resource. For DELETED `entry` is the last state under the deletion's revision."""

    __slots__ = ("entry", "previous", "revision", "type")

    def __init__(self, type_: str, entry: Entry, previous: Entry | None, revision: int) -> None:
        self.type = type_
        self.entry = entry
        self.previous = previous
        self.revision = revision


def frame(type_: str, raw: bytes) -> bytes:
    """One line of a watch."""
    return b'{"type":"%b","object":%b}\n' % (type_.encode(), raw)
