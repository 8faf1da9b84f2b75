"""A storm of random requests on an API server in process, with all of admission, and what must hold of every answer.

`Storm.run` returns the requests that broke a rule. Rules: no 500; an error is a Status with code, reason and message; what was
acknowledged is there at the end, at the revision of its last acknowledged write or (by its own status) gone.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson

from k1s.base.clock import VirtualClock
from k1s.base.http import Answer, Headers, MemoryBody, Request, Response, Stream
from k1s.client.rest import RestClient
from k1s.client.transport import LocalTransport
from k1s.server.apiserver.app import ApiServer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.config import ServerConfig
from k1s.server.security import Security
from k1s.storage.memory import MemoryStore
from tests.fuzz.generate import Generator

ADMIN = UserInfo("admin", ("system:masters", "system:authenticated"))
NAMESPACE = "storm"
_SLOWEST = 20.0
# Waits for a revision that never comes end with 504, as documented; 503 is a webhook or server that does not exist.
_ALLOWED = (503, 504)


@dataclass(frozen=True)
class Shot:
    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def request(self) -> Request:
        path, _, query = self.target.partition("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        return Request(self.method, unquote(path), pairs, Headers(self.headers), MemoryBody(self.body), self.target)

    def dump(self) -> dict[str, Any]:
        body = base64.b64encode(self.body).decode()
        return {"method": self.method, "target": self.target, "headers": [list(h) for h in self.headers], "body": body}

    @classmethod
    def load(cls, raw: dict[str, Any]) -> Shot:
        headers = tuple((name, value) for name, value in raw["headers"])
        return cls(raw["method"], raw["target"], headers, base64.b64decode(raw["body"]))


class Allowed:
    """Authorization has tests of its own."""

    async def authenticate(self, request: Request) -> UserInfo:
        return ADMIN

    async def authorize(self, user: UserInfo, info: RequestInfo) -> None:
        return None


@asynccontextmanager
async def api_server(signing_key: bytes) -> AsyncIterator[ApiServer]:
    store, clock, config = MemoryStore(), VirtualClock(), ServerConfig()
    await store.open()
    allowed = Allowed()
    security = Security(config, clock, [signing_key])
    server = ApiServer(store, authenticator=allowed, authorizer=allowed, clock=clock, config=config, handlers=security.handlers())
    ready = asyncio.Event()
    running = asyncio.create_task(server.run(ready.set))
    try:
        await ready.wait()
        client = RestClient(LocalTransport(server.handle, ADMIN), "storm")
        server.admission = security.attach(server.informers, client, server.catalog, server.convert, server.dialer.connect)
        for name in (NAMESPACE, "kube-system"):
            await send(server, Shot("POST", "/api/v1/namespaces", body=orjson.dumps({"metadata": {"name": name}})))
        account = orjson.dumps({"metadata": {"name": "default"}})
        await send(server, Shot("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", body=account))
        yield server
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()


async def send(server: ApiServer, shot: Shot) -> tuple[int, Any, bytes]:
    """(code, decoded body or None, body). Of a stream the first part is taken."""
    answer: Answer = await asyncio.wait_for(server.handle(shot.request()), _SLOWEST)
    if isinstance(answer, Stream):
        body = b""
        try:
            body = await asyncio.wait_for(anext(answer.chunks, b""), 0.01)
        except TimeoutError:
            pass
        await answer.chunks.aclose()  # type: ignore[attr-defined]
        return answer.status, None, body
    assert isinstance(answer, Response), answer
    decoded = orjson.loads(answer.body) if answer.content_type == "application/json" and answer.body else None
    return answer.status, decoded, answer.body


def wrong(shot: Shot, code: int, body: Any) -> str:
    """What is wrong with an answer, "" if nothing."""
    if code >= 500 and code not in _ALLOWED:
        return f"{code}: {(body or {}).get('message')}"
    if code >= 400 and isinstance(body, dict):
        if body.get("kind") != "Status" or body.get("code") != code:
            return f"{code} without a Status: {body}"
        if not body.get("message"):
            return f"{code} without a message"
    return ""


def _stored(path: str) -> str:
    """Two groups or versions may show the same objects."""
    return path.replace("/autoscaling/v1/", "/autoscaling/v2/").replace("/apis/events.k8s.io/v1/", "/api/v1/")


def _whole(path: str, name: str) -> str:
    """The path of the object, for one of its subresources."""
    before, _, last = path.rpartition("/")
    return path if last == name else before


class Storm:
    """`broken`: (request, what was wrong)."""

    def __init__(self, server: ApiServer, seed: int) -> None:
        self._server = server
        self._make = Generator(seed)
        self._known: dict[str, dict[str, Any]] = {}
        self.broken: list[tuple[Shot, str]] = []
        self.codes: dict[int, int] = {}

    async def run(self, shots: int) -> None:
        for _ in range(shots):
            await self.fire(self._next())
        await self._nothing_lost()

    async def fire(self, shot: Shot) -> None:
        try:
            code, body, _ = await send(self._server, shot)
        except TimeoutError:
            self.broken.append((shot, "no answer"))
            return
        self.codes[code] = self.codes.get(code, 0) + 1
        if problem := wrong(shot, code, body):
            self.broken.append((shot, problem))
        elif code < 300 and (shot.method == "DELETE" or (shot.method != "GET" and isinstance(body, dict))):
            self._note(shot, body or {})

    def _note(self, shot: Shot, body: dict[str, Any]) -> None:
        # A DELETE with a body goes by what stands there, whatever the query says.
        if not self._resource.persisted or ("dryRun=" in shot.target and shot.method != "DELETE"):
            return
        meta = body.get("metadata", {})
        path = _stored(shot.target.partition("?")[0])
        if shot.method == "DELETE":
            # What has finalizers stays; the storm does not keep count of those.
            self._known = {k: v for k, v in self._known.items() if k != path and not k.startswith(f"{path}/")}
        elif meta.get("resourceVersion") and body.get("kind") == self._resource.kind:
            path = f"{path}/{meta['name']}" if shot.method == "POST" else _whole(path, meta["name"])
            self._known[path] = body
            if meta.get("deletionTimestamp"):
                self._known.pop(path)

    async def _nothing_lost(self) -> None:
        for path, written in self._known.items():
            code, found, _ = await send(self._server, Shot("GET", path))
            shot = Shot("GET", path)
            if code != 200:
                self.broken.append((shot, f"{code} for what was acknowledged: {written['metadata']}"))
            elif int(found["metadata"]["resourceVersion"]) < int(written["metadata"]["resourceVersion"]):
                self.broken.append((shot, "an older revision than acknowledged"))

    def _next(self) -> Shot:
        make, pick = self._make, self._make.random
        self._resource = resource = make.resource()
        name = pick.choice(("a", "b", "c.d"))
        base = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
        root = f"{base}/namespaces/{NAMESPACE}/{resource.plural}" if resource.namespaced else f"{base}/{resource.plural}"
        one = f"{root}/{name}"
        json = (("Content-Type", "application/json"), ("Accept", make.accept() if make.chance(0.1) else "application/json"))
        choice = pick.random()
        if choice < 0.40:
            return Shot("POST", root + make.query(read=False), json, make.raw(make.body(resource, name)))
        current = self._known.get(_stored(one)) or make.body(resource, name)
        if choice < 0.55:
            body = make.spoiled(current)
            if isinstance(body.get("metadata"), dict) and make.chance(0.5):
                body["metadata"].pop("resourceVersion", None)
            part = pick.choice(("", "", "", "/status", "/scale", "/finalize", "/approval", "/ephemeralcontainers", "/resize"))
            return Shot("PUT", one + part + make.query(read=False), json, make.raw(body))
        if choice < 0.80:
            kind, data = make.patch(resource, current, name)
            part = pick.choice(("", "", "", "", "/status", "/scale", "/approval", "/ephemeralcontainers", "/resize"))
            query = make.query(read=False) or ("?fieldManager=m" if kind.startswith("application/apply") else "")
            return Shot("PATCH", one + part + query, (("Content-Type", kind), json[1]), data)
        if choice < 0.88:
            options = make.spoiled(
                {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": "x"}}
            )
            body = b"" if make.chance(0.6) else make.raw(options)
            return Shot("DELETE", (root if make.chance(0.1) else one) + make.query(read=False), json, body)
        read = (("Accept", make.accept()),)
        if choice < 0.90:
            return Shot("GET", root + (make.query(read=True) or "?") + "&watch=true", read)
        return Shot("GET", (one if make.chance(0.3) else root) + make.query(read=True), read)
