"""An informer factory over plain dicts, for everything that only reads informers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from k1s.api.catalog import Resource, builtin
from k1s.api.selectors import LabelSelector

Object = dict[str, Any]


class DictInformer:
    """A verified stand-in: the Informer protocol over one dict; `put` and `drop` call the handlers."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self.objects: dict[tuple[str, str], Object] = {}
        self._indexes: dict[str, Callable[[Object], Iterable[str]]] = {}
        self._handlers: list[Callable[[Object | None, Object | None], None]] = []

    @property
    def resource(self) -> Resource:
        return self._resource

    async def synced(self) -> None:
        return None

    def get(self, name: str, namespace: str = "") -> Object | None:
        return self.objects.get((namespace, name))

    def list(self, namespace: str = "", selector: LabelSelector | None = None) -> Iterable[Object]:
        for (where, _), obj in self.objects.items():
            if namespace in ("", where) and (selector is None or selector.matches(obj["metadata"].get("labels") or {})):
                yield obj

    def by_index(self, index: str, value: str) -> Iterable[Object]:
        return [o for o in self.objects.values() if value in set(self._indexes[index](o))]

    def add_index(self, name: str, values: Callable[[Object], Iterable[str]]) -> None:
        self._indexes.setdefault(name, values)

    def add_handler(self, handler: Callable[[Object | None, Object | None], None]) -> None:
        self._handlers.append(handler)
        for obj in list(self.objects.values()):
            handler(None, obj)

    def put(self, obj: Object) -> Object:
        meta = obj["metadata"]
        meta.setdefault("uid", f"uid-{self._resource.plural}-{meta.get('namespace', '')}-{meta['name']}")
        key = (meta.get("namespace", ""), meta["name"])
        old, self.objects[key] = self.objects.get(key), obj
        for handler in self._handlers:
            handler(old, obj)
        return obj

    def drop(self, name: str, namespace: str = "") -> None:
        old = self.objects.pop((namespace, name))
        for handler in self._handlers:
            handler(old, None)


class DictInformers:
    def __init__(self) -> None:
        self._informers: dict[Resource, DictInformer] = {}

    def informer(self, resource: Resource, *, namespace: str = "", field_selector: str = "") -> DictInformer:
        return self._informers.setdefault(resource, DictInformer(resource))

    def put(self, kind: str, name: str, namespace: str = "", **fields: Any) -> Object:
        resource = builtin(kind)
        metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **fields.pop("metadata", {})}
        obj = {"apiVersion": resource.api_version, "kind": kind, "metadata": metadata, **fields}
        return self.informer(resource).put(obj)

    def drop(self, kind: str, name: str, namespace: str = "") -> None:
        self.informer(builtin(kind)).drop(name, namespace)


@pytest.fixture
def informers() -> DictInformers:
    return DictInformers()
