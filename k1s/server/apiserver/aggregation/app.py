"""API aggregation: keeps every APIService's condition true, and knows which requests belong to another server.

Owns: Aggregator. Called by: apiserver/app (`route` for every request that is authorized), server/app (`run`).
Never does: speak to extension servers itself (remote.py, proxy.py).

A remote one is looked at when its APIService, its Service or the Service's endpoints change, and when passing a request on to it
failed: nothing polls. What failed out there is tried again after RETRY's backoff.
Bounds: one queue entry, one parsed row and the documents of one version per APIService; MAX_CONTEXTS TLS contexts (the oldest
goes); WORKERS checks at the same time.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.backoff import Backoff
from k1s.base.clock import rfc3339
from k1s.base.http import Answer, Request
from k1s.client.workqueue import WorkQueue
from k1s.server.apiserver.aggregation.proxy import pass_on, unavailable, unreachable
from k1s.server.apiserver.aggregation.registration import (
    AUTOMANAGED,
    LOCAL,
    Remote,
    Verdict,
    local_name,
    local_service,
    remote_of,
    set_available,
)
from k1s.server.apiserver.aggregation.remote import RemoteServer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.discovery import RemoteVersion
from k1s.server.apiserver.entries import Entry
from k1s.server.apiserver.forward import Target
from k1s.server.apiserver.group_order import OWN_GROUP
from k1s.server.apiserver.outgoing import CallFailed, Outgoing
from k1s.server.apiserver.services import NoRoute, ServiceResolver, slice_service
from k1s.storage.interface import Origin

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]

log = logging.getLogger("k1s.apiserver")

WORKERS = 4
MAX_CONTEXTS = 32
RETRY = Backoff(1.0, 60.0)
_ORIGIN = Origin("system:apiserver", "update")
_CREATED = Origin("system:apiserver", "create")
# Queue keys are names of APIServices; with this before a version and a group it is an own one to make or take away.
_OWN = "own/"


class Aggregator:
    """`identity` loads the front proxy's client certificate into a context; without it none is shown."""

    def __init__(self, server: ApiServer, identity: Callable[[ssl.SSLContext], None] | None) -> None:
        self._server, self._identity = server, identity
        self._resource = builtin("APIService")
        self._services = server.informers.informer(self._resource)
        self._definitions = server.informers.informer(builtin("CustomResourceDefinition"))
        self._remotes: dict[tuple[str, str], Remote] = {}
        self._contexts: dict[tuple[bytes, bool], ssl.SSLContext] = {}
        self._queue = WorkQueue(server.clock, RETRY)
        self._resolver = ServiceResolver(server.informers)
        self._outgoing = Outgoing(server.dialer.connect)

    async def run(self, ready: Callable[[], None]) -> None:
        informers = self._server.informers
        self._services.add_handler(self._changed)
        self._definitions.add_handler(self._defined)
        informers.informer(builtin("Service")).add_handler(self._service_changed)
        informers.informer(builtin("EndpointSlice")).add_handler(self._slice_changed)
        for group, versions in self._server.catalog.groups().items():
            for version in versions:
                if group != OWN_GROUP and self._services.get(local_name(group, version)) is None:
                    self._queue.add(f"{_OWN}{version}/{group}")
        ready()
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(WORKERS):
                    tasks.create_task(self._work(), name=f"aggregation {number}")
        finally:
            self._queue.close()
            self._outgoing.close()

    def forget_identity(self) -> None:
        """The front proxy's certificate has been renewed: new connections show the new one."""
        self._contexts.clear()

    # Requests

    async def route(self, request: Request, info: RequestInfo, user: UserInfo) -> Answer | None:
        """The extension server's answer; None if the request is this server's own."""
        if not self._remotes or not info.path.startswith("/apis/"):
            return None
        if info.is_resource:
            group, version = info.group, info.version
        else:
            parts = info.path.split("/")
            group, version = (parts[2], parts[3]) if len(parts) > 3 else ("", "")
        remote = self._remotes.get((group, version))
        if remote is None:
            return None
        if not remote.available:
            return unavailable()
        try:
            target = self._locate(remote, info.path, ())
        except NoRoute as error:
            log.info("APIService %s: %s", remote.name, error)
            self._queue.add(remote.name)
            return unavailable()
        try:
            return await pass_on(request, user, target, self._server.dialer.connect)
        except ApiError as error:
            if error.code != 503:
                raise
            self._queue.add(remote.name)
            return unreachable(error)

    def _locate(self, remote: Remote, path: str, headers: tuple[tuple[str, str], ...]) -> Target:
        host, port = self._resolver.resolve(remote.namespace, remote.service, remote.port)
        return Target(host, port, path, self._tls(remote), remote.server_name, headers)

    def _tls(self, remote: Remote) -> ssl.SSLContext:
        slot = (remote.ca, remote.insecure)
        context = self._contexts.get(slot)
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if remote.insecure:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            elif remote.ca:
                # As Go does: a bundle may hold the server's own certificate or an intermediate CA.
                context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
                try:
                    context.load_verify_locations(cadata=remote.ca.decode())
                except (ssl.SSLError, ValueError) as error:
                    raise NoRoute("InvalidCABundle", f"unable to load root certificates: {error}") from error
            else:
                context.load_default_certs()
            if self._identity is not None:
                self._identity(context)
            if len(self._contexts) >= MAX_CONTEXTS:
                del self._contexts[next(iter(self._contexts))]
            self._contexts[slot] = context
        return context

    # Being told

    def _changed(self, old: Object | None, new: Object | None) -> None:
        before, after = (remote_of(old) if old else None), (remote_of(new) if new else None)
        if before is not None and (after is None or after.path != before.path):
            self._remotes.pop((before.group, before.version), None)
            self._publish(before, None)
        if after is not None:
            self._remotes[after.group, after.version] = after
            if before is None or before.available != after.available or before.priority != after.priority:
                self._show(after)
        subject = new or old
        assert subject is not None
        name = subject["metadata"]["name"]
        if new is None and AUTOMANAGED in (subject["metadata"].get("labels") or {}):
            self._own(subject["spec"].get("group") or "", subject["spec"]["version"])
        if new is None or old is None or old.get("spec") != new.get("spec"):
            self._queue.forget(name)
            self._queue.add(name)

    def _defined(self, old: Object | None, new: Object | None) -> None:
        for definition in (old, new):
            if definition is not None:
                for version in definition["spec"].get("versions") or ():
                    self._own(definition["spec"]["group"], version["name"])

    def _own(self, group: str, version: str) -> None:
        self._queue.add(f"{_OWN}{version}/{group}")

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        if self._remotes:
            meta = (new or old or {})["metadata"]
            self._wake(f"{meta.get('namespace', '')}/{meta['name']}")

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        if self._remotes:
            for piece in (old, new):
                if piece is not None:
                    self._wake(slice_service(piece))

    def _wake(self, service: str) -> None:
        for remote in self._remotes.values():
            if f"{remote.namespace}/{remote.service}" == service:
                self._queue.forget(remote.name)
                self._queue.add(remote.name)

    # Work

    async def _work(self) -> None:
        while True:
            key, _, _ = await self._queue.get()
            try:
                if key.startswith(_OWN):
                    version, _, group = key.removeprefix(_OWN).partition("/")
                    await self._sync_own(group, version)
                elif await self._sync(key):
                    self._queue.forget(key)
                else:
                    self._queue.retry(key)
            except ApiError as error:
                log.warning("APIService %s: %s", key, error.message)
                self._queue.retry(key)
            finally:
                self._queue.done(key)

    async def _sync_own(self, group: str, version: str) -> None:
        """Make, or take away, the APIService of a version that is, or is no longer, served here."""
        name = local_name(group, version)
        found = self._services.get(name)
        rows = [row for row in self._server.catalog if (row.group, row.version) == (group, version)]
        if rows and found is None:
            automanaged = "true" if all(row.custom for row in rows) else "onstart"
            obj = local_service(group, version, automanaged, rfc3339(self._server.clock.now()))
            await self._server.objects.create(self._resource, "", name, obj, _CREATED)
        elif not rows and found is not None and (found["metadata"].get("labels") or {}).get(AUTOMANAGED) == "true":
            entry = await self._server.objects.find(self._resource, "", name)
            if entry is not None:
                await self._server.objects.remove(self._resource, entry, _ORIGIN)

    async def _sync(self, name: str) -> bool:
        """False: look again after a while, since nothing here will tell when it is better."""
        obj = self._services.get(name)
        if obj is None:
            return True
        remote = remote_of(obj)
        if remote is None:
            await self._judge(name, LOCAL)
            return True
        asked = RemoteServer(remote, self._locate, self._outgoing)
        verdict = await asked.check()
        complete = True
        if verdict[0]:
            complete = await self._read(remote, asked)
        await self._judge(name, verdict)
        return complete and (verdict[0] or verdict[1] != "FailedDiscoveryCheck")

    async def _read(self, remote: Remote, asked: RemoteServer) -> bool:
        """Take in what it serves. Whether all could be had."""
        try:
            resources = await asked.resources()
        except CallFailed as error:
            log.info("APIService %s: its discovery could not be read: %s", remote.name, error)
            return False
        v3 = await self._document(remote, asked.openapi_v3)
        v2 = await self._document(remote, asked.openapi_v2)
        if self._remotes.get((remote.group, remote.version)) is not None:
            self._publish(remote, resources)
            self._server.openapi.remote_type(remote.group, remote.version, v3, v2)
        return True

    async def _document(self, remote: Remote, read: Callable[[], Awaitable[bytes]]) -> bytes:
        """Empty if it cannot be had: only `kubectl explain` misses it."""
        try:
            return await read()
        except CallFailed as error:
            log.info("APIService %s: its OpenAPI could not be read: %s", remote.name, error)
            return b""

    def _show(self, remote: Remote) -> None:
        """The row in discovery, with the resources that were read last; stale until some have been."""
        known = self._server.discovery.remotes.get((remote.group, remote.version))
        self._server.discovery.remotes[remote.group, remote.version] = RemoteVersion(
            remote.priority, known.resources if known is not None else [], remote.available and known is not None
        )
        self._server.discovery.invalidate()

    def _publish(self, remote: Remote, resources: list[Object] | None) -> None:
        discovery, slot = self._server.discovery, (remote.group, remote.version)
        if resources is None:
            discovery.remotes.pop(slot, None)
            self._server.openapi.forget_remote(*slot)
        else:
            discovery.remotes[slot] = RemoteVersion(remote.priority, resources, remote.available)
        discovery.invalidate()

    async def _judge(self, name: str, verdict: Verdict) -> None:
        now = rfc3339(self._server.clock.now())

        async def change(entry: Entry) -> Object | None:
            obj = entry.fresh()
            return obj if set_available(obj, verdict, now) else None

        try:
            await self._server.objects.guaranteed_update(self._resource, "", name, change, _ORIGIN)
        except ApiError as error:
            if error.code != 404:
                raise
