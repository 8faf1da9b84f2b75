"""The API server: the chain of filters every request passes, in order. Read this first.

(audit, around it all) request info > authentication > impersonation > flow control > authorization > handler

Owns: ApiServer. Called by: base/http_server and in-process clients (`handle`), server/app (construction, `run`).
Never does: know a kind. Keys of Request.context: "user" (UserInfo of an in-process caller), "cause" (the revision that made
it write), "headers" (what is added to the answer, whichever it is), "audit" (told who asks). A request that fails in an
unforeseen way is answered 500 and logged once, with its traceback.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import orjson

from k1s.api.catalog import Catalog, Resource, builtin_catalog
from k1s.api.convert import convert
from k1s.api.errors import ApiError, bad_request, internal, timeout
from k1s.base.clock import REAL_CLOCK, Clock
from k1s.base.http import Answer, BodyLost, Handler, Request, Response, Stream
from k1s.base.metrics import Registry as Metrics
from k1s.server.apiserver import request_info
from k1s.server.apiserver.aggregation.app import Aggregator
from k1s.server.apiserver.allocators import Allocators
from k1s.server.apiserver.answers import error_answer, page_not_found
from k1s.server.apiserver.attributes import ANONYMOUS, AdmissionRequest, RequestInfo, UserInfo
from k1s.server.apiserver.audit_id import audit_id
from k1s.server.apiserver.call import warning
from k1s.server.apiserver.conversion import Conversion
from k1s.server.apiserver.crds import CustomResources
from k1s.server.apiserver.dial import Dialer, TunnelSource
from k1s.server.apiserver.discovery import Discovery
from k1s.server.apiserver.entries import Entry
from k1s.server.apiserver.flow.app import FlowControl
from k1s.server.apiserver.health import Health
from k1s.server.apiserver.informers import CacheInformers
from k1s.server.apiserver.list_bodies import ListBodies
from k1s.server.apiserver.long_running import LongRunning
from k1s.server.apiserver.negotiation import accepted
from k1s.server.apiserver.non_resource import NonResource
from k1s.server.apiserver.object_store import ObjectStore
from k1s.server.apiserver.openapi import OpenApi
from k1s.server.apiserver.registry import HandlerKey, Registry, ResourceHandler
from k1s.server.apiserver.request_metrics import RequestMetrics, labels_of
from k1s.server.apiserver.timers import Timers
from k1s.server.apiserver.watch_cache import WatchCache
from k1s.server.config import ServerConfig
from k1s.storage.interface import Store

log = logging.getLogger("k1s.apiserver")

Object = dict[str, Any]

# Seconds a read waits for a revision that has not happened yet.
_FUTURE_SECONDS = 3.0
# What the API says is for its caller only and for now (upstream's WithCacheControl).
_PRIVATE = ("Cache-Control", "no-cache, private")
_LONG_RUNNING = ("exec", "attach", "portforward", "proxy", "log")


class AuthenticatorLike(Protocol):
    async def authenticate(self, request: Request) -> UserInfo: ...


class AuthorizerLike(Protocol):
    async def authorize(self, user: UserInfo, info: RequestInfo) -> None: ...


class AdmissionLike(Protocol):
    async def mutate(self, request: AdmissionRequest) -> None: ...
    async def validate(self, request: AdmissionRequest) -> None: ...


Impersonate = Callable[[Request, UserInfo], Awaitable[UserInfo]]


class ApiServer:
    """Construct, then `run(ready)`; `handle` is a base.http.Handler.

    `handlers`: (group, plural, subresource) -> handler, for what other parts serve. `paths`: non-resource path -> Handler; a key
    that ends with "/" is a prefix; `open_paths` of them are served without authentication.
    `admission` may be set after construction (it needs `informers`). `proxy_identity` loads the client certificate that extension
    servers know us by; `aggregation.run` is for the caller to start. `tunnels` and `local_node` (the one on this host) are for
    `dialer`, through which everything goes that leaves the server.
    """

    def __init__(
        self,
        store: Store,
        *,
        authenticator: AuthenticatorLike,
        authorizer: AuthorizerLike,
        admission: AdmissionLike | None = None,
        config: ServerConfig | None = None,
        clock: Clock = REAL_CLOCK,
        catalog: Catalog | None = None,
        impersonate: Impersonate | None = None,
        handlers: Mapping[HandlerKey, ResourceHandler] | None = None,
        paths: Mapping[str, Handler] | None = None,
        open_paths: tuple[str, ...] = (),
        flow: FlowControl | None = None,
        metrics: Metrics | None = None,
        proxy_identity: Callable[[ssl.SSLContext], None] | None = None,
        tunnels: TunnelSource | None = None,
        local_node: str = "",
    ) -> None:
        self.clock = clock
        self.config = config if config is not None else ServerConfig()
        self.catalog = catalog if catalog is not None else builtin_catalog()
        self.authenticator, self.authorizer, self.admission = authenticator, authorizer, admission
        self.metrics = metrics if metrics is not None else Metrics()
        self.hub = WatchCache(store)
        for resource in self.catalog:
            if resource.persisted and self.stored(resource) is resource:
                self.hub.add(resource)
        self.objects = ObjectStore(store, self.hub)
        self.informers = CacheInformers(self.hub)
        self.timers = Timers(self.hub, clock)
        self.lists = ListBodies(clock)
        self.allocators: Allocators | None = None
        self.discovery = Discovery(self.catalog, f"{self._address()}:{self.config.https_listen_port}")
        self.openapi = OpenApi(self.catalog)
        self.custom = CustomResources(self)
        self.conversion = Conversion(self, self.custom.webhook)
        self.dialer = Dialer(self.informers, tunnels, local_node=local_node, service_cidr=self.config.service_cidr, clock=clock)
        self.aggregation = Aggregator(self, proxy_identity)
        self._impersonate = impersonate
        self.flow = flow if flow is not None else self._flow_control()
        self.long_running = LongRunning()
        self._registry = Registry(handlers or {})
        self.health = Health(lambda: self.hub.revision >= 0)
        self._non_resource = NonResource(self, {**self.flow.paths(), **(paths or {})})
        self._open_paths = open_paths
        self._counters = RequestMetrics(self.metrics)

    async def run(self, ready: Callable[[], None]) -> None:
        """Load the cache and follow the store for ever; `ready` once requests can be served."""

        loaded = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.hub.run(loaded.set), name="watch cache")
            await loaded.wait()
            self.allocators = Allocators(self.informers, self.config)
            await self.custom.start()
            tasks.create_task(self.custom.run(), name="custom resources")
            tasks.create_task(self.timers.run(), name="watch timers")
            ready()

    def _flow_control(self) -> FlowControl:
        reads, writes = self.config.max_requests_inflight, self.config.max_mutating_requests_inflight
        return FlowControl(self.informers, self.clock, reads=reads, writes=writes, size=self._list_size)

    def _list_size(self, info: RequestInfo) -> int:
        """How many objects a list reads at most."""
        if info.resource is None or not info.resource.persisted:
            return 0
        return len(self.hub.cache(info.resource))

    def _address(self) -> str:
        return self.config.advertise_address or self.config.bind_address

    def exposition(self) -> bytes:
        """All metrics, as /metrics shows them."""
        self._counters.look(self.hub.caches(), self.flow, self.long_running)
        return self.metrics.exposition()

    def add_check(self, name: str, check: Callable[[], str | None]) -> None:
        """A named check of /livez and /readyz: None or what is wrong."""
        self.health.checks[name] = check

    # The chain

    async def handle(self, request: Request) -> Answer:
        began = self.clock.monotonic()
        info: RequestInfo | None = None
        # Callers inside read no headers.
        audit = None if "user" in request.context else audit_id(request)
        try:
            info = request_info.parse(request, self.catalog)
            answer = await self._filtered(request, info)
        except ApiError as error:
            answer = error_answer(error, [warning(text) for text in dict.fromkeys(error.warnings)], request)
        except BodyLost as error:
            answer = error_answer(_lost(error))
        except Exception as error:  # the boundary: one request's defect must not end the server
            log.error("%s %s failed", request.method, request.path, exc_info=error)
            answer = error_answer(internal(f"{type(error).__name__}: {error}"), request=request)
        if isinstance(answer, Response | Stream):
            more = request.context.get("headers", ()) if audit is None else (*request.context.get("headers", ()), audit)
            if not answer.headers:
                answer.headers = [_PRIVATE, *more]
            elif any(name == _PRIVATE[0] for name, _ in answer.headers):
                answer.headers = [*answer.headers, *more]
            else:
                answer.headers = [_PRIVATE, *answer.headers, *more]
        self._counters.note(request, info, answer, self.clock.monotonic() - began)
        return answer

    async def _filtered(self, request: Request, info: RequestInfo) -> Answer:
        if not info.is_resource and self._open(info.path):
            return await self._non_resource.handle(request, info)
        user = request.context.get("user")
        inside = user is not None
        if user is None:
            user = await self._authenticated(request)
            if user.name != ANONYMOUS.name:
                request.context["known"] = True
        if self._impersonate is not None and not inside:
            user = await self._impersonate(request, user)
        request.context["user"] = user
        if inside:
            return await self._authorized(request, info, user)
        if info.subresource in _LONG_RUNNING or info.verb == "proxy":
            self.long_running.check(info, user)
            with self.long_running.asking(info, user):
                answer = await self._authorized(request, info, user)
            return self.long_running.follow(answer, info, user, labels_of(info, request))
        if info.verb == "watch":
            self.long_running.check(info, user)
        flow = self.flow.classify(info, user)
        # Whatever comes of it, the answer says where the request was counted.
        request.context["headers"] = flow.headers
        width, verb = self.flow.width(info), info.verb
        if not await self.flow.enter(flow, width, verb):
            return self.flow.refusal(flow)
        try:
            answer = await self._authorized(request, info, user)
        finally:
            self.flow.leave(flow, width, verb)
        return self.long_running.follow(answer, info, user, labels_of(info, request)) if verb == "watch" else answer

    async def _authenticated(self, request: Request) -> UserInfo:
        try:
            user = await self.authenticator.authenticate(request)
        except ApiError:
            self._counters.authenticated(None)
            raise
        self._counters.authenticated(user)
        audit = request.context.get("audit")
        if audit is not None:
            audit(user)
        return user

    async def _authorized(self, request: Request, info: RequestInfo, user: UserInfo) -> Answer:
        try:
            await self.authorizer.authorize(user, info)
        except ApiError as error:
            self._counters.authorized(error)
            raise
        self._counters.authorized(None)
        elsewhere = await self.aggregation.route(request, info, user)
        if elsewhere is not None:
            return elsewhere
        if not info.is_resource:
            return await self._non_resource.handle(request, info)
        if info.resource is None and not self._is_builtin(info.group):
            raise page_not_found()
        handler = self._registry.find(info)
        if info.resource is not None and not info.resource.persisted:
            accepted(request)  # reviews have no other form, so a Table is refused here for all of them
        answer = await handler(request, info, user, self)
        if info.resource is not None and info.resource.deprecation and isinstance(answer, Response | Stream):
            answer = replace(answer, headers=[*answer.headers, warning(info.resource.deprecation)])
        return answer

    def _is_builtin(self, group: str) -> bool:
        return any(r.group == group for r in self.catalog if not r.custom)

    def _open(self, path: str) -> bool:
        return any(path == p or (p.endswith("/") and path.startswith(p)) for p in self._open_paths)

    # What handlers ask

    def stored(self, resource: Resource) -> Resource:
        """The row of the version that a resource is stored in."""
        if not resource.storage_version or (resource.storage_version, resource.storage_group) == (
            resource.version,
            resource.group,
        ):
            return resource
        found = self.catalog.stored(resource.storage_group, resource.storage_version, resource.storage_plural)
        return found if found is not None else resource

    def is_stored(self, resource: Resource) -> bool:
        return self.stored(resource) is resource and not resource.custom

    def rendered(self, resource: Resource, entry: Entry) -> bytes:
        """An object's JSON in the version of `resource`."""
        stored = self.stored(resource)
        if stored is resource and (not resource.custom or entry.raw.startswith(self.hub.cache(resource).head)):
            return entry.raw
        return orjson.dumps(self._restated(entry.obj(), resource))

    def converted(self, resource: Resource, raw: bytes) -> Object:
        return self._restated(orjson.loads(raw), resource)

    def _restated(self, obj: Object, resource: Resource) -> Object:
        if resource.custom:  # an object may lie there in a version that was the stored one once
            return {**obj, "apiVersion": resource.api_version}
        return convert(obj, self.stored(resource), resource)

    async def shown(self, resource: Resource, entry: Entry) -> bytes:
        """As `rendered`, for every kind: where a conversion webhook has to be asked, it is. Raises ApiError 500."""
        if not self.conversion.calls(resource):
            return self.rendered(resource, entry)
        return (await self.all_shown(resource, [entry]))[0]

    async def all_shown(self, resource: Resource, entries: Sequence[Entry]) -> list[bytes]:
        """The same for many, in at most one call."""
        if not self.conversion.calls(resource):
            return [self.rendered(resource, entry) for entry in entries]
        head = b'{"apiVersion":"%b",' % resource.api_version.encode()
        out = [entry.raw for entry in entries]
        other = [index for index, raw in enumerate(out) if not raw.startswith(head)]
        converted = await self.conversion.to(resource, [entries[index].peek() for index in other])
        for index, obj in zip(other, converted, strict=True):
            out[index] = orjson.dumps(obj)
        return out

    async def convert(self, obj: Object, source: Resource, target: Resource) -> Object:
        """An object of a client or of the store in another version. Raises ApiError 500."""
        if not target.custom:
            return convert(obj, source, target)
        return (await self.conversion.to(target, [obj]))[0]

    async def reach(self, revision: int) -> None:
        """Wait until the cache shows `revision`. Raises ApiError 504 if that does not happen soon."""
        if self.hub.revision >= revision:
            return
        try:
            async with asyncio.timeout(_FUTURE_SECONDS):
                await self.hub.wait(revision)
        except TimeoutError:
            error = timeout(f"Too large resource version: {revision}, current: {self.hub.revision}", 1)
            cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            error.details = {"causes": [cause], "retryAfterSeconds": 1}
            raise error from None

    def generated_name(self, base: str) -> str:
        from k1s.server.apiserver.write_meta import generated

        return generated(base)


def _lost(error: BodyLost) -> ApiError:
    """Nobody may be there to read it; if there is, in upstream's words."""
    if error.slow:
        return timeout("request did not complete within the allotted timeout")
    return bad_request(f"unable to read the request body: {error}")
