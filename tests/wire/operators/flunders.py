"""An aggregated API server as people write them: Flunders, in memory, authenticated and authorized through the main server.

Its callers are believed by the front proxy's certificate (ConfigMap kube-system/extension-apiserver-authentication); who may do
what is asked with SubjectAccessReviews. Whoever refers to another Flunder must be allowed to get that one, too.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
from aiohttp import web

from k1s.base import pki
from tests.wire.operators.flunders_described import API_VERSION, BASE, GROUP, KIND, PLURAL, VERSION, described

Object = dict[str, Any]
_CODES = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 415: "UnsupportedMediaType"}


class Refused(Exception):
    def __init__(self, code: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.code, self.reason = code, reason or _CODES.get(code, "BadRequest")


@dataclass(frozen=True)
class Caller:
    """Who asks, by what the front proxy says, and for what."""

    user: str
    groups: tuple[str, ...]
    extra: dict[str, list[str]]
    verb: str = ""
    path: str = ""


@dataclass
class Authentication:
    """What the ConfigMap says of the front proxy."""

    client_ca: bytes
    proxy_ca: bytes
    names: list[str]
    user_headers: list[str]
    group_headers: list[str]
    extra_prefixes: list[str]

    @classmethod
    def read(cls, data: dict[str, str]) -> Authentication:
        def listed(key: str) -> list[str]:
            return list(json.loads(data[f"requestheader-{key}"]))

        return cls(
            data["client-ca-file"].encode(),
            data["requestheader-client-ca-file"].encode(),
            listed("allowed-names"),
            listed("username-headers"),
            listed("group-headers"),
            listed("extra-headers-prefix"),
        )

    def caller(self, request: web.Request) -> Caller:
        connection = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
        shown = connection.getpeercert(binary_form=True) if connection is not None else None
        if not shown:
            raise Refused(401, "Unauthorized")
        pem = ssl.DER_cert_to_PEM_cert(shown).encode()
        name = pki.read_certificate(pem).subject.common_name
        if not pki.signed_by(pem, self.proxy_ca) or (self.names and name not in self.names):
            raise Refused(401, "Unauthorized")
        users = [value for header in self.user_headers for value in request.headers.getall(header, [])]
        if len(users) != 1:
            raise Refused(401, "Unauthorized")
        groups = [value for header in self.group_headers for value in request.headers.getall(header, [])]
        extra: dict[str, list[str]] = {}
        for header, value in request.headers.items():
            for prefix in self.extra_prefixes:
                if header.lower().startswith(prefix.lower()):
                    extra.setdefault(unquote(header[len(prefix) :].lower()), []).append(value)
        return Caller(users[0], tuple(groups), extra)


@dataclass
class Store:
    """The Flunders, and all that ever happened to them, by resourceVersion."""

    items: dict[tuple[str, str], Object] = field(default_factory=dict)
    log: list[tuple[int, str, Object]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    versions: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def revision(self) -> int:
        return self.log[-1][0] if self.log else 0

    async def note(self, event: str, obj: Object) -> Object:
        revision = next(self.versions)
        meta = {**obj["metadata"], "resourceVersion": str(revision)}
        obj = {**obj, "metadata": meta}
        slot = (meta["namespace"], meta["name"])
        if event == "DELETED":
            self.items.pop(slot)
        else:
            self.items[slot] = obj
        self.log.append((revision, event, obj))
        async with self.changed:
            self.changed.notify_all()
        return obj


def _status(code: int, message: str, reason: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason}
    return web.json_response({**body, "code": code}, status=code)


def _missing(name: str) -> Refused:
    return Refused(404, f'{PLURAL}.{GROUP} "{name}" not found')


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    out = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = _merged(out.get(key), value)
    return out


def table(items: list[Object], revision: str, *, head: bool = True) -> Object:
    columns = [
        {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
        {"name": "Reference", "type": "string", "format": "", "description": "", "priority": 0},
    ]
    rows = [
        {
            "cells": [obj["metadata"]["name"], (obj.get("spec") or {}).get("reference") or "<none>"],
            "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]},
        }
        for obj in items
    ]
    meta = {"resourceVersion": revision}
    out: Object = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "rows": rows}
    return {**out, "columnDefinitions": columns if head else []}


class FlunderServer:
    """In a thread of its own. `seen`: everybody who was let in; `refused`: how many were not."""

    def __init__(self, home: Path, api: str, api_ca: Path, token: str) -> None:
        now = time.time()
        self.ca = pki.create_ca("wardle-ca", now)
        key = pki.new_key()
        leaf = pki.issue(self.ca, key, pki.Subject("wardle", sans=("api.wardle.svc",)), usage="server", now=now)
        self._files = home / "wardle.pem", home / "wardle.key"
        for file, data in zip(self._files, (leaf, key), strict=True):
            file.write_bytes(data)
        self._api, self._token, self._api_tls = api, token, ssl.create_default_context(cafile=str(api_ca))
        self.port, self.refused = 0, 0
        self.seen: list[Caller] = []
        self.reviews: list[Object] = []
        self.store: Store
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        started = threading.Event()

        def run() -> None:
            try:
                asyncio.run(self._main(started))
            except (OSError, AssertionError, KeyError, aiohttp.ClientError, ssl.SSLError) as error:
                self._failure = error
                started.set()

        self._thread = threading.Thread(target=run, name="wardle", daemon=True)
        self._thread.start()
        assert started.wait(30)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(20)
            assert not self._thread.is_alive()

    async def _main(self, started: threading.Event) -> None:
        self._loop, self._ended, self.store = asyncio.get_running_loop(), asyncio.Event(), Store()
        headers = {"Authorization": f"Bearer {self._token}"}
        connector = aiohttp.TCPConnector(ssl=self._api_tls)
        async with aiohttp.ClientSession(self._api, headers=headers, connector=connector) as self._session:
            path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
            async with self._session.get(path) as answer:
                assert answer.status == 200, await answer.text()
                self.authentication = Authentication.read((await answer.json())["data"])
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._files)
            context.verify_mode = ssl.CERT_OPTIONAL
            # Those whom it does not believe get an answer, not a broken handshake.
            for authority in (self.authentication.client_ca, self.authentication.proxy_ca):
                context.load_verify_locations(cadata=authority.decode())
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", self._handle)
            runner = web.AppRunner(app, shutdown_timeout=0.2, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=context)
            await site.start()
            self.port = runner.addresses[0][1]
            started.set()
            await self._ended.wait()
            await runner.cleanup()

    # A request

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            caller = self.authentication.caller(request)
            namespace, name, verb = _asked(request)
            self.seen.append(Caller(caller.user, caller.groups, caller.extra, verb, request.path))
            if not verb:
                await self._allowed(caller, {"nonResourceAttributes": {"path": request.path, "verb": "get"}})
                document = described(request)
                if document is None:
                    raise Refused(404, "the server could not find the requested resource")
                return document
            await self._allowed_flunder(caller, verb, namespace, name)
            if verb == "watch":
                return await self._watch(request, namespace)
            body = await request.json() if request.can_read_body else {}
            return await self._answer(request, caller, verb, namespace, name, body)
        except Refused as error:
            self.refused += error.code == 401
            return _status(error.code, str(error), error.reason)

    async def _allowed_flunder(self, caller: Caller, verb: str, namespace: str, name: str) -> None:
        what = {"group": GROUP, "version": VERSION, "resource": PLURAL, "verb": verb, "namespace": namespace, "name": name}
        await self._allowed(caller, {"resourceAttributes": what})

    async def _allowed(self, caller: Caller, what: Object) -> None:
        spec = {"user": caller.user, "groups": list(caller.groups), "extra": caller.extra, **what}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        async with self._session.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", json=review) as answer:
            found = await answer.json()
        self.reviews.append(found)
        if not (found.get("status") or {}).get("allowed"):
            raise Refused(403, f'wardle: user "{caller.user}" may not: {json.dumps(what)}: {found.get("message", "")}')

    async def _answer(
        self, request: web.Request, caller: Caller, verb: str, namespace: str, name: str, body: Object
    ) -> web.Response:
        store, slot = self.store, (namespace, name)
        if verb in ("list", "deletecollection"):
            found = [obj for obj in store.items.values() if _selected(request, namespace, obj)]
            if verb == "deletecollection":
                for obj in found:
                    await store.note("DELETED", obj)
            return _shown(request, found, str(store.revision), None)
        if verb == "create":
            meta = body["metadata"]
            if (namespace, meta["name"]) in store.items:
                raise Refused(409, f'{PLURAL}.{GROUP} "{meta["name"]}" already exists', "AlreadyExists")
            await self._may_refer(caller, namespace, body)
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            meta = {**meta, "namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now}
            made = await store.note("ADDED", {**body, "metadata": meta})
            return _shown(request, [made], "", 201)
        old = store.items.get(slot)
        if old is None:
            raise _missing(name)
        if verb == "delete":
            return _shown(request, [await store.note("DELETED", old)], "", 200)
        if verb in ("update", "patch"):
            if verb == "patch" and request.content_type != "application/merge-patch+json":
                raise Refused(415, "the body of the request was in an unknown format")
            new, version = body if verb == "update" else _merged(old, body), old["metadata"]["resourceVersion"]
            if new["metadata"].get("resourceVersion", version) != version:
                raise Refused(409, f'Operation cannot be fulfilled on {PLURAL}.{GROUP} "{name}": modified')
            await self._may_refer(caller, namespace, new)
            kept = {key: old["metadata"][key] for key in ("namespace", "name", "uid", "creationTimestamp")}
            old = await store.note("MODIFIED", {**new, "metadata": {**new["metadata"], **kept}})
        return _shown(request, [old], "", 200)

    async def _may_refer(self, caller: Caller, namespace: str, obj: Object) -> None:
        reference = (obj.get("spec") or {}).get("reference")
        if reference:
            await self._allowed_flunder(caller, "get", namespace, reference)

    async def _watch(self, request: web.Request, namespace: str) -> web.StreamResponse:
        store, asked = self.store, request.query.get("resourceVersion", "")
        bare = {"kind": KIND, "apiVersion": API_VERSION}
        seconds = float(request.query.get("timeoutSeconds") or 300)
        out = web.StreamResponse(headers={"Content-Type": "application/json"})
        out.enable_chunked_encoding()
        await out.prepare(request)
        head = True

        async def send(event: str, obj: Object) -> None:
            nonlocal head
            if _selected(request, namespace, obj):
                shown = obj
                if "as=Table" in request.headers.get("Accept", ""):
                    shown, head = table([obj], obj["metadata"]["resourceVersion"], head=head), False
                await out.write(json.dumps({"type": event, "object": shown}).encode() + b"\n")

        at = int(asked or 0)
        if not at:
            at = store.revision
            for obj in list(store.items.values()):
                await send("ADDED", obj)
        if request.query.get("sendInitialEvents") == "true":
            meta = {"resourceVersion": str(at), "annotations": {"k8s.io/initial-events-end": "true"}}
            await out.write(json.dumps({"type": "BOOKMARK", "object": {**bare, "metadata": meta}}).encode() + b"\n")
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for revision, event, obj in list(store.log):
                        if revision > at:
                            at = revision
                            await send(event, obj)
                    async with store.changed:
                        if store.revision == at:
                            await store.changed.wait()
        except TimeoutError:
            pass
        return out


def _asked(request: web.Request) -> tuple[str, str, str]:
    """(namespace, name, verb); no verb: no Flunders are asked for."""
    parts = request.path.removeprefix(f"{BASE}/").split("/") if request.path.startswith(f"{BASE}/") else []
    namespace = parts[1] if len(parts) > 2 and parts[0] == "namespaces" else ""
    rest = parts[2:] if namespace else parts
    if not rest or rest[0] != PLURAL or len(rest) > 2:
        return "", "", ""
    name = rest[1] if len(rest) == 2 else ""
    verbs = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    verb = verbs[request.method]
    if not name and verb in ("get", "delete"):
        watching = request.query.get("watch") in ("1", "true")
        verb = "deletecollection" if verb == "delete" else "watch" if watching else "list"
    return namespace, name, verb


def _selected(request: web.Request, namespace: str, obj: Object) -> bool:
    if request.query.get("labelSelector"):
        raise Refused(400, "labels are not looked at")
    field_, _, value = request.query.get("fieldSelector", "").partition("=")
    if field_ not in ("", "metadata.name"):
        raise Refused(400, f'"{field_}" is not a known field selector')
    meta = obj["metadata"]
    return namespace in ("", meta["namespace"]) and value.removeprefix("=") in ("", meta["name"])


def _shown(request: web.Request, items: list[Object], revision: str, code: int | None) -> web.Response:
    """`code` None: a list of them."""
    if "as=Table" in request.headers.get("Accept", "") and request.method == "GET":
        return web.json_response(table(items, revision or items[0]["metadata"]["resourceVersion"]))
    if code is not None:
        return web.json_response(items[0], status=code)
    meta = {"resourceVersion": revision}
    return web.json_response({"kind": f"{KIND}List", "apiVersion": API_VERSION, "metadata": meta, "items": items})
