"""An API server (memory store, no sockets) with the add-ons in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from k1s.api.catalog import builtin
from k1s.base.clock import REAL_CLOCK
from k1s.base.http import Request
from k1s.base.tasks import Supervisor
from k1s.client.rest import RestClient
from k1s.client.transport import LocalTransport
from k1s.server.addons import app
from k1s.server.addons.context import AddonSettings
from k1s.server.apiserver.admission.chain import AdmissionChain
from k1s.server.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from k1s.server.apiserver.app import ApiServer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.controllers.everything import stored
from k1s.storage.memory import MemoryStore

Object = dict[str, Any]
ADMIN = UserInfo("admin", ("system:masters", "system:authenticated"))


class Open:
    """Everybody is the administrator and may do everything."""

    async def authenticate(self, request: Request) -> UserInfo:
        return ADMIN

    async def authorize(self, user: UserInfo, info: RequestInfo) -> None:
        return None


class Rig:
    """An API server that lives on while the add-ons are started and stopped."""

    def __init__(self, server: ApiServer, home: Path) -> None:
        self.server, self.home = server, home
        self.client = RestClient(LocalTransport(server.handle, ADMIN), "test")
        self.settings = AddonSettings(home / "server", (home / "images",), frozenset(), lambda: b"")
        self.manifests = self.settings.manifests_dir
        self.manifests.mkdir(parents=True)

    @asynccontextmanager
    async def running(self, settings: AddonSettings | None = None) -> AsyncIterator[None]:
        client = RestClient(LocalTransport(self.server.handle, ADMIN), "k1s-addons")
        async with Supervisor() as tasks:
            tasks.spawn(
                "addons",
                app.run(client, self.server.informers, self.server.catalog, REAL_CLOCK, settings or self.settings),
            )
            try:
                await self.until(lambda: self.server.catalog.by_kind("k3s.cattle.io", "v1", "Addon"))
                yield
            finally:
                tasks.stop()

    async def until(self, probe: Callable[[], Any], seconds: float = 10.0) -> Any:
        deadline = asyncio.get_running_loop().time() + seconds
        while not (found := probe()):
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError("never became true")
            await asyncio.sleep(0.01)
        return found

    def find(self, kind: str, name: str, namespace: str = "default", api_version: str = "v1") -> Object | None:
        resource = self.server.catalog.by_api_version(api_version, kind)
        return self.server.informers.informer(resource).get(name, namespace) if resource is not None else None

    def data(self, name: str) -> str | None:
        return ((self.find("ConfigMap", name) or {}).get("data") or {}).get("key")

    def addon(self, name: str) -> Object | None:
        return self.find("Addon", name, "kube-system", "k3s.cattle.io/v1")

    def applied(self, name: str) -> str:
        conditions = ((self.addon(name) or {}).get("status") or {}).get("conditions") or [{}]
        return str(conditions[0].get("status", ""))

    def objects(self, name: str) -> list[str]:
        return [entry["name"] for entry in ((self.addon(name) or {}).get("status") or {}).get("objects") or []]

    def events(self, reason: str) -> list[str]:
        return [e["message"] for e in self.server.informers.informer(builtin("Event", "")).list() if e["reason"] == reason]

    def everything(self) -> dict[str, str]:
        """Every object with its revision."""
        return {
            f"{resource.qualified} {obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}": obj["metadata"][
                "resourceVersion"
            ]
            for resource in stored(self.server.catalog)
            for obj in self.server.informers.informer(resource).list()
        }

    async def settled(self) -> None:
        """Long enough for the directory's changes to be looked at and worked on."""
        await asyncio.sleep(0.8)


@asynccontextmanager
async def addon_rig(home: Path) -> AsyncIterator[Rig]:
    store = MemoryStore()
    await store.open()
    server = ApiServer(store, authenticator=Open(), authorizer=Open())
    async with Supervisor() as tasks:
        await tasks.start("api", server.run)
        made = Rig(server, home)
        server.admission = AdmissionChain((NamespaceLifecycle(made.client, server.informers),))
        for name in ("default", "kube-system"):
            await made.client.create(builtin("Namespace"), {"metadata": {"name": name}})
        yield made
        tasks.stop()
    await store.close()
