"""The objects an informer holds.

Owns: ObjectStore: objects by namespace and name, indices over them, and the handlers told of every change.
Called by: client/informer. Never does: I/O, copy objects (readers must not change them).
Bound: what the API server holds for the resource and selector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from k1s.api.selectors import LabelSelector
from k1s.client.interface import ChangeHandler, Object

IndexFunction = Callable[[Object], Iterable[str]]
_Key = tuple[str, str]


class ObjectStore:
    def __init__(self) -> None:
        self._namespaces: dict[str, dict[str, Object]] = {}
        self._functions: dict[str, IndexFunction] = {}
        # index name -> value -> objects by key (a dict keeps the order of arrival)
        self._indices: dict[str, dict[str, dict[_Key, Object]]] = {}
        self._handlers: list[ChangeHandler] = []

    def get(self, name: str, namespace: str = "") -> Object | None:
        return self._namespaces.get(namespace, {}).get(name)

    def list(self, namespace: str = "", selector: LabelSelector | None = None) -> Iterable[Object]:
        if namespace:
            found = list(self._namespaces.get(namespace, {}).values())
        else:
            found = [obj for objects in self._namespaces.values() for obj in objects.values()]
        if selector is None:
            return found
        return [obj for obj in found if selector.matches(obj["metadata"].get("labels") or {})]

    def by_index(self, index: str, value: str) -> Iterable[Object]:
        return list(self._indices[index].get(value, {}).values())

    def add_index(self, name: str, values: IndexFunction) -> None:
        if name in self._functions:
            return
        self._functions[name] = values
        self._indices[name] = {}
        for obj in self.list():
            self._enter(name, obj)

    def add_handler(self, handler: ChangeHandler) -> None:
        self._handlers.append(handler)
        for obj in self.list():
            handler(None, obj)

    def put(self, obj: Object) -> None:
        """Add or replace; nothing happens if this very version is here already."""
        meta = obj["metadata"]
        namespace, name = meta.get("namespace") or "", meta["name"]
        objects = self._namespaces.setdefault(namespace, {})
        old = objects.get(name)
        if old is not None and old["metadata"].get("resourceVersion") == meta.get("resourceVersion"):
            return
        # Deleted and made again while nobody watched: two events, so that nobody mistakes one object for the other.
        if old is not None and old["metadata"].get("uid") != meta.get("uid"):
            self.remove(namespace, name)
            old = None
            objects = self._namespaces.setdefault(namespace, {})
        for index in self._functions:
            if old is not None:
                self._leave(index, old)
            self._enter(index, obj)
        objects[name] = obj
        self._tell(old, obj)

    def remove(self, namespace: str, name: str, last: Object | None = None) -> None:
        """`last` is the object's final state, if the server sent it."""
        objects = self._namespaces.get(namespace, {})
        old = objects.pop(name, None)
        if old is None:
            return
        if not objects:
            del self._namespaces[namespace]
        for index in self._functions:
            self._leave(index, old)
        self._tell(last or old, None)

    def replace(self, items: Iterable[Object]) -> None:
        """Make the store hold exactly `items`, telling handlers only what changed."""
        wanted: set[_Key] = set()
        for obj in items:
            wanted.add(_key(obj))
            self.put(obj)
        for obj in self.list():
            if _key(obj) not in wanted:
                self.remove(*_key(obj))

    def _tell(self, old: Object | None, new: Object | None) -> None:
        for handler in self._handlers:
            handler(old, new)

    def _enter(self, index: str, obj: Object) -> None:
        for value in self._functions[index](obj):
            self._indices[index].setdefault(value, {})[_key(obj)] = obj

    def _leave(self, index: str, obj: Object) -> None:
        table = self._indices[index]
        for value in self._functions[index](obj):
            entries = table.get(value)
            if entries is not None:
                entries.pop(_key(obj), None)
                if not entries:
                    del table[value]


def _key(obj: dict[str, Any]) -> _Key:
    meta = obj["metadata"]
    return meta.get("namespace") or "", meta["name"]
