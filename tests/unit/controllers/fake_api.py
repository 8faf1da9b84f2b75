"""An API server in memory, enough for controllers: Client and InformerFactory in one, changes delivered at once.

It stamps uid, resourceVersion, generation and creationTimestamp, honours finalizers, preconditions and resourceVersion on
writes. It does not validate, default or authorize: for that the tests in tests/wire run controllers against the real server.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson

from k1s.api.catalog import Resource, builtin
from k1s.api.errors import ApiError, already_exists, conflict, not_found
from k1s.base.clock import VirtualClock, rfc3339
from k1s.client.events import EventRecorder
from k1s.client.store import ObjectStore
from k1s.server.controllers.config import ControllerConfig
from k1s.server.controllers.reconciler import Context, Reconciler

Object = dict[str, Any]


def copy(obj: Object) -> Object:
    return orjson.loads(orjson.dumps(obj))


def merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge(out.get(key), value)
    return out


class FakeInformer:
    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.store = ObjectStore()
        self.get, self.list, self.by_index = self.store.get, self.store.list, self.store.by_index
        self.add_index, self.add_handler = self.store.add_index, self.store.add_handler

    async def synced(self) -> None:
        return None


class FakeApi:
    def __init__(self, clock: VirtualClock | None = None) -> None:
        self.clock = clock or VirtualClock()
        self.caches: dict[str, FakeInformer] = {}
        self.calls: list[tuple[str, str, str]] = []  # (verb, plural/subresource, namespace/name)
        self.fail: Callable[[str, Resource, Object | None], ApiError | None] = lambda verb, resource, obj: None
        self.graceful_pods = False
        self._numbers = itertools.count(1)
        self.held: list[Callable[[], None]] | None = None  # when a list: cache updates wait until `release`

    # --- InformerFactory

    def informer(self, resource: Resource, *, namespace: str = "", field_selector: str = "") -> Any:
        key = resource.storage_prefix
        if key not in self.caches:
            self.caches[key] = FakeInformer(resource)
        return self.caches[key]

    def release(self) -> None:
        held, self.held = self.held or [], None
        for change in held:
            change()

    # --- Client

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        return copy(self._live(resource, name, namespace))

    async def list(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> list[Object]:
        return [copy(o) for o in self._table(resource).values() if not namespace or o["metadata"].get("namespace") == namespace]

    async def create(
        self, resource: Resource, obj: Object, namespace: str = "", *, subresource: str = "", name: str = "", cause: int = 0
    ) -> Object:
        self._check("create", resource, obj, subresource)
        obj = copy(obj)
        meta = obj.setdefault("metadata", {})
        obj.setdefault("apiVersion", resource.api_version)
        obj.setdefault("kind", resource.kind)
        if subresource == "eviction":
            await self.delete(resource, name, namespace)
            return obj
        if resource.namespaced:
            meta.setdefault("namespace", namespace or "default")
        number = next(self._numbers)
        if "name" not in meta:
            meta["name"] = f"{meta['generateName']}{number:05d}"
        key = (meta.get("namespace", ""), meta["name"])
        if key in self._table(resource):
            raise already_exists(resource.plural, resource.group, meta["name"])
        meta.update(uid=f"uid-{number}", creationTimestamp=rfc3339(self.clock.now()), generation=1)
        self._put(resource, obj)
        return copy(obj)

    async def update(self, resource: Resource, obj: Object, *, subresource: str = "", cause: int = 0) -> Object:
        self._check("update", resource, obj, subresource)
        meta = obj["metadata"]
        live = self._live(resource, meta["name"], meta.get("namespace", ""))
        if meta.get("resourceVersion") and meta["resourceVersion"] != live["metadata"]["resourceVersion"]:
            raise conflict(resource.plural, resource.group, meta["name"])
        if subresource in ("status", "approval"):
            new = {**copy(live), "status": copy(obj.get("status") or {})}
            if obj["metadata"].get("annotations"):
                new["metadata"]["annotations"] = copy(obj["metadata"]["annotations"])
        elif subresource == "finalize":
            new = {**copy(live), "spec": copy(obj["spec"])}
        else:
            new = copy(obj)
            new["metadata"]["generation"] = live["metadata"]["generation"] + (new.get("spec") != live.get("spec"))
            if "status" in live:
                new["status"] = copy(live["status"])
        return self._settle(resource, new)

    async def patch(
        self, resource: Resource, name: str, namespace: str, patch: Any, *, content_type: str = "", subresource: str = "",
        field_manager: str = "", force: bool = False, cause: int = 0,
    ) -> Object:  # fmt: skip
        live = self._live(resource, name, namespace)
        wanted = (patch.get("metadata") or {}).get("uid")
        if wanted and wanted != live["metadata"]["uid"]:
            raise conflict(resource.plural, resource.group, name)
        new = merge(copy(live), patch)
        return await self.update(resource, new, subresource=subresource)

    async def delete(
        self, resource: Resource, name: str, namespace: str = "", *, propagation: str = "", uid: str = "",
        resource_version: str = "", grace_period_seconds: int | None = None, cause: int = 0,
    ) -> Object:  # fmt: skip
        self._check("delete", resource, {"metadata": {"name": name, "namespace": namespace}}, "")
        new = copy(self._live(resource, name, namespace))
        meta = new["metadata"]
        if (uid and uid != meta["uid"]) or (resource_version and resource_version != meta["resourceVersion"]):
            raise conflict(resource.plural, resource.group, name)
        finalizers = [f for f in meta.get("finalizers", []) if f not in ("orphan", "foregroundDeletion")]
        if propagation in ("Orphan", "Foreground"):
            finalizers.append("orphan" if propagation == "Orphan" else "foregroundDeletion")
        meta["finalizers"] = finalizers
        graceful = resource.kind == "Pod" and self.graceful_pods and grace_period_seconds != 0
        if finalizers or graceful or (resource.kind == "Namespace" and new["spec"].get("finalizers")):
            meta.setdefault("deletionTimestamp", rfc3339(self.clock.now()))
            if resource.kind == "Pod":
                meta["deletionGracePeriodSeconds"] = 30 if graceful else 0
            return self._put(resource, new)
        return self._remove(resource, new)

    async def delete_collection(self, resource: Resource, namespace: str = "", *, label_selector: str = "") -> None:
        for obj in await self.list(resource, namespace):
            await self.delete(resource, obj["metadata"]["name"], obj["metadata"].get("namespace", ""))

    async def watch(self, *args: Any, **options: Any) -> AsyncIterator[tuple[str, Object]]:
        raise NotImplementedError
        yield

    async def raw(self, method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
        raise NotImplementedError

    # --- for tests

    def add(self, resource: Resource | str, **obj: Any) -> Object:
        """Put an object in as it is (metadata stamped where it says nothing)."""
        found = builtin(resource) if isinstance(resource, str) else resource
        number = next(self._numbers)
        meta = {"uid": f"uid-{number}", "generation": 1, "creationTimestamp": rfc3339(self.clock.now()), **obj.pop("metadata")}
        if found.namespaced:
            meta.setdefault("namespace", "default")
        return self._put(found, {"apiVersion": found.api_version, "kind": found.kind, "metadata": meta, **obj})

    def set(self, resource: str, name: str, namespace: str = "default", **patch: Any) -> Object:
        """Merge into an object, whatever a real server would say."""
        found = builtin(resource)
        live = copy(self._live(found, name, namespace if found.namespaced else ""))
        new = merge(live, patch)
        if "spec" in patch and new["spec"] != live.get("spec"):
            new["metadata"]["generation"] += 1
        return self._settle(found, new)

    def objects(self, resource: str) -> list[Object]:
        return [copy(o) for o in self._table(builtin(resource)).values()]

    def object(self, resource: str, name: str, namespace: str = "default") -> Object:
        found = builtin(resource)
        return copy(self._live(found, name, namespace if found.namespaced else ""))

    def kill(self, resource: str, name: str, namespace: str = "default") -> None:
        found = builtin(resource)
        self._remove(found, copy(self._live(found, name, namespace if found.namespaced else "")))

    # --- inside

    def _table(self, resource: Resource) -> dict[tuple[str, str], Object]:
        tables = self.__dict__.setdefault("_tables", {})
        return tables.setdefault(resource.storage_prefix, {})

    def _live(self, resource: Resource, name: str, namespace: str) -> Object:
        obj = self._table(resource).get((namespace, name))
        if obj is None:
            raise not_found(resource.plural, resource.group, name)
        return obj

    def _check(self, verb: str, resource: Resource, obj: Object, subresource: str) -> None:
        meta = obj.get("metadata") or {}
        plural = f"{resource.plural}/{subresource}" if subresource else resource.plural
        self.calls.append((verb, plural, f"{meta.get('namespace', '')}/{meta.get('name', '')}"))
        error = self.fail(verb, resource, obj)
        if error is not None:
            raise error

    def _settle(self, resource: Resource, new: Object) -> Object:
        meta = new["metadata"]
        hold = resource.kind == "Namespace" and new["spec"].get("finalizers")
        if (
            meta.get("deletionTimestamp")
            and not meta.get("finalizers")
            and not hold
            and not meta.get("deletionGracePeriodSeconds")
        ):
            return self._remove(resource, new)
        return self._put(resource, new)

    def _put(self, resource: Resource, obj: Object) -> Object:
        obj["metadata"]["resourceVersion"] = str(next(self._numbers))
        self._table(resource)[obj["metadata"].get("namespace", ""), obj["metadata"]["name"]] = obj
        self._show(lambda: self.informer(resource).store.put(copy(obj)))
        return copy(obj)

    def _remove(self, resource: Resource, obj: Object) -> Object:
        namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
        obj["metadata"]["resourceVersion"] = str(next(self._numbers))
        self._table(resource).pop((namespace, name), None)
        self._show(lambda: self.informer(resource).store.remove(namespace, name, copy(obj)))
        return copy(obj)

    def _show(self, change: Callable[[], None]) -> None:
        if self.held is not None:
            self.held.append(change)
        else:
            change()


class Bench:
    """Controllers running on a FakeApi in virtual time."""

    def __init__(self, *kinds: type[Reconciler], config: ControllerConfig | None = None, api: FakeApi | None = None) -> None:
        self.api = api or FakeApi()
        self.clock = self.api.clock
        self.events = EventRecorder(self.api, "test", clock=self.clock)  # type: ignore[arg-type]
        context = Context(self.api, self.api, self.clock, self.events, config or ControllerConfig())  # type: ignore[arg-type]
        self.controllers = [kind(context) for kind in kinds]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Bench:
        self._tasks.append(asyncio.create_task(self.events.run()))
        for controller in self.controllers:
            ready = asyncio.Event()
            task = asyncio.create_task(controller.run(ready.set))
            self._tasks.append(task)
            await asyncio.wait({task, asyncio.create_task(ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
        await self.settle()
        return self

    async def __aexit__(self, *exc: object) -> None:
        failed = [t for t in self._tasks if t.done()]
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in failed:
            task.result()

    async def settle(self, seconds: float = 0.5) -> None:
        """Let the controllers run until nothing happens any more (first retries included)."""
        await self.clock.advance(seconds)
        for _ in range(50):
            before = len(self.api.calls)
            await self.clock.advance(0.001)
            if len(self.api.calls) == before:
                return

    def reasons(self) -> list[str]:
        return [e["reason"] for e in self.api.objects("Event")]

    def kubelet(self, ready: bool = True, phase: str = "Running", **status: Any) -> None:
        """Every pod without a status runs (and is ready) from now on."""
        for number, pod in enumerate(self.api.objects("Pod")):
            if (pod.get("status") or {}).get("phase") not in (None, "", "Pending") or pod["metadata"].get("deletionTimestamp"):
                continue
            condition = {
                "type": "Ready",
                "status": "True" if ready else "False",
                "lastTransitionTime": rfc3339(self.clock.now()),
            }
            meta = pod["metadata"]
            self.api.set(
                "Pod", meta["name"], meta["namespace"], spec={"nodeName": "node1"},
                status={"phase": phase, "conditions": [condition], "podIPs": [{"ip": f"10.42.0.{number + 2}"}],
                        "podIP": f"10.42.0.{number + 2}", **status},
            )  # fmt: skip
