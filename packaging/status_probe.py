"""Tries every verb that a running API server's discovery advertises, resource by resource.

Called by: status_doc.py. An API server runs in this process, over the memory store, with the real authentication,
authorization, admission and default objects; requests go through its whole chain of filters, but for the sockets.
Never does: judge answers beyond whether a verb does what its name says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import orjson
import yaml

from k1s.base import pki
from k1s.base.clock import REAL_CLOCK
from k1s.base.http import Headers, MemoryBody, Request, Response, Stream
from k1s.client.rest import RestClient
from k1s.client.transport import LocalTransport
from k1s.server.apiserver.app import ApiServer
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.bootstrap import ensure_defaults
from k1s.server.config import ServerConfig
from k1s.server.security import Security
from k1s.storage.memory import MemoryStore

Object = dict[str, Any]

EXAMPLES = Path(__file__).with_name("status_examples.yaml")
NAMESPACE = "status"
ROOT = UserInfo("root", ("system:masters", "system:authenticated"))
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
# Each format of a patch, under the word that the document has for it.
PATCHES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
# Subresources that lead to a node or a pod: nothing to try them on here; the wire and end-to-end tests do.
ELSEWHERE = {
    "pods": ("attach", "binding", "ephemeralcontainers", "eviction", "exec", "log", "portforward", "proxy", "resize"),
    "nodes": ("proxy",),
    "services": ("proxy",),
    "namespaces": ("finalize",),
    "serviceaccounts": ("token",),
}
_ATTEMPTS = 5


class Broken(Exception):
    """A verb that discovery advertises did not do what it says."""


@dataclass(slots=True)
class Report:
    """What works of one resource."""

    group: str
    version: str
    row: Object
    works: list[str] = field(default_factory=list)
    subresources: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Server:
    """The API server and what to send it."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    async def send(self, method: str, target: str, body: Any = None, kind: str = "", accept: str = "") -> Response | Stream:
        path, _, query = target.partition("?")
        data = b"" if body is None else orjson.dumps(body)
        headers = [("User-Agent", "status/1")]
        if data:
            headers.append(("Content-Type", kind or "application/json"))
        if accept:
            headers.append(("Accept", accept))
        pairs = parse_qsl(query, keep_blank_values=True)
        request = Request(method, path, pairs, Headers(headers), MemoryBody(data), target, context={"user": ROOT})
        answer = await self._server.handle(request)
        assert isinstance(answer, Response | Stream)
        return answer

    async def ok(self, method: str, target: str, body: Any = None, kind: str = "", accept: str = "") -> Object:
        """The decoded answer. Raises Broken."""
        answer = await self.send(method, target, body, kind, accept)
        if not isinstance(answer, Response) or answer.status >= 300:
            shown = answer.body[:400].decode(errors="replace") if isinstance(answer, Response) else "a stream"
            raise Broken(f"{method} {target}: {getattr(answer, 'status', '')} {shown}")
        decoded: Object = orjson.loads(answer.body)
        return decoded

    async def first_event(self, target: str) -> Object:
        """The first event of a watch. Raises Broken."""
        answer = await self.send("GET", target)
        if not isinstance(answer, Stream):
            raise Broken(f"GET {target}: {answer.status} {answer.body[:200]!r}")
        chunk = await asyncio.wait_for(anext(answer.chunks), 5)
        await answer.chunks.aclose()  # type: ignore[attr-defined]
        event: Object = orjson.loads(chunk.splitlines()[0])
        return event


@asynccontextmanager
async def running() -> AsyncIterator[Server]:
    """An API server with everything of its own, and the namespace that the objects go to."""
    config = ServerConfig(data_dir=Path("/nonexistent"))
    security, store = Security(config, REAL_CLOCK, [pki.new_key()]), MemoryStore()
    server = ApiServer(
        store,
        authenticator=security,
        authorizer=security,
        config=config,
        impersonate=security.impersonate,
        handlers=security.handlers(),
        paths=security.paths(),
    )
    await store.open()
    loaded = asyncio.Event()
    task = asyncio.create_task(server.run(loaded.set))
    try:
        await loaded.wait()
        client = RestClient(LocalTransport(server.handle, ROOT))
        server.admission = security.attach(server.informers, client)
        address = "192.0.2.1"
        await ensure_defaults(
            client, server.informers, config, advertise_address=address, client_ca=b"CA", request_header_ca=b"RH"
        )
        sender = Server(server)
        for kind, name, place in (("Namespace", NAMESPACE, "namespaces"), ("Node", NAMESPACE, "nodes")):
            await sender.ok("POST", f"/api/v1/{place}", {"kind": kind, "apiVersion": "v1", "metadata": {"name": name}})
        account = {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default"}}
        await sender.ok("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", account)
        yield sender
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()


class Probe:
    """One resource, verb by verb."""

    def __init__(self, server: Server, examples: Object, group: str, version: str, row: Object) -> None:
        self._server, self.report = server, Report(group, version, row)
        self._kind, self._verbs = row["responseKind"]["kind"], row["verbs"]
        self._api_version = f"{group}/{version}" if group else version
        self._example: Object = examples.get(f"{self._kind}.{group}") or examples.get(self._kind) or {}
        if self._kind not in examples and self._kind != "ComponentStatus":
            raise Broken(f"{EXAMPLES.name} has no {self._kind}")
        space = f"/namespaces/{NAMESPACE}" if row["scope"] == "Namespaced" else ""
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        self._at = f"{root}{space}/{row['resource']}"
        self._everywhere = f"{root}/{row['resource']}"
        self._numbers = count(1)

    def _object(self, name: str) -> Object:
        example = {key: value for key, value in self._example.items() if key not in ("name", "change")}
        number = name.removeprefix("status")
        text = orjson.dumps(example).replace(b"KNAME", name.capitalize().encode()).replace(b"NAME", name.encode())
        wanted = str(self._example.get("name", name)).replace("NAME", name).replace("NUMBER", number)
        body: Object = orjson.loads(text)
        labels = {"tried": name}
        meta = {**body.pop("metadata", {}), "name": wanted, "labels": labels}
        return {"apiVersion": self._api_version, "kind": self._kind, "metadata": meta, **body}

    async def run(self) -> Report:
        """Raises Broken."""
        if "get" not in self._verbs:
            await self._only_create()
        elif "create" not in self._verbs:
            await self._read_only()
        else:
            await self._keep()
        return self.report

    async def _only_create(self) -> None:
        body = self._object("status0")
        body["metadata"] = self._example.get("metadata", {})
        if self._kind == "Binding":
            await self._server.ok("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", _pod("bound"))
            body["metadata"] = {"name": "bound"}
        await self._server.ok("POST", self._at, body)
        self.report.works.append("create")

    async def _read_only(self) -> None:
        found = await self._server.ok("GET", self._at)
        for item in found["items"][:1]:
            await self._server.ok("GET", f"{self._at}/{item['metadata']['name']}")
        self.report.works += self._verbs
        await self._table("")

    async def _keep(self) -> None:
        name = await self._created()
        at = f"{self._at}/{name}"
        got = await self._server.ok("GET", at)
        if got["kind"] != self._kind or got["apiVersion"] != self._api_version:
            raise Broken(f"GET {at}: a {got['apiVersion']} {got['kind']}")
        await self._listed(name)
        await self._updated(at)
        patches = await self._patched(at)
        await self._table(name)
        await self._subresources(at)
        await self._deleted(at)
        wanted = {"create", "get", "list", "watch", "update", "patch", "delete", "deletecollection"}
        self.report.works += sorted(wanted & set(self._verbs))
        self.report.notes = [f"no {word} patch" for word in PATCHES if word not in patches]

    async def _created(self) -> str:
        """A dry run leaves nothing; then the real thing. The name of it."""
        body = self._object(f"status{next(self._numbers)}")
        tried = await self._server.ok("POST", f"{self._at}?dryRun=All", body)
        name: str = tried["metadata"]["name"]
        answer = await self._server.send("GET", f"{self._at}/{name}")
        if answer.status != 404:
            raise Broken(f"POST {self._at}?dryRun=All: stored")
        await self._server.ok("POST", f"{self._at}?fieldValidation=Strict", body)
        return name

    async def _listed(self, name: str) -> None:
        for where in (self._at, self._everywhere):
            for selector in (f"fieldSelector=metadata.name%3D{name}", "labelSelector=tried"):
                found = await self._server.ok("GET", f"{where}?{selector}")
                if name not in [item["metadata"]["name"] for item in found["items"]]:
                    raise Broken(f"GET {where}?{selector}: not in the list")
        if "watch" in self._verbs:
            target = f"{self._at}?watch=1&timeoutSeconds=5&fieldSelector=metadata.name%3D{name}"
            event = await self._server.first_event(target)
            if event["type"] != "ADDED" or event["object"]["metadata"]["name"] != name:
                raise Broken(f"GET {target}: {event['type']}")
        answer = await self._server.send("GET", f"{self._at}?fieldSelector=spec.nonsense%3Dx")
        if answer.status != 400:
            raise Broken(f"{self._at}: a field selector that is not supported is answered {answer.status}")

    async def _updated(self, at: str) -> None:
        """Somebody else may write in between: a controller, or admission."""
        for _ in range(_ATTEMPTS):
            got = await self._server.ok("GET", at)
            got["metadata"].setdefault("annotations", {})["updated"] = "yes"
            answer = await self._server.send("PUT", at, got)
            if answer.status == 200:
                return
            if answer.status != 409:
                break
        shown = answer.body[:300] if isinstance(answer, Response) else b""
        raise Broken(f"PUT {at}: {answer.status} {shown!r}")

    async def _patched(self, at: str) -> list[str]:
        works = []
        for word, kind in PATCHES.items():
            body: Any = {"metadata": {"annotations": {word: "yes"}}}
            target = at
            if word == "json":
                body = [{"op": "add", "path": "/metadata/annotations/json", "value": "yes"}]
            elif word == "apply":
                body = {"apiVersion": self._api_version, "kind": self._kind, **body}
                target = f"{at}?fieldManager=status&force=true"
            answer = await self._server.send("PATCH", target, body, kind)
            if not isinstance(answer, Response) or answer.status != 200:
                shown = answer.body[:300] if isinstance(answer, Response) else b""
                raise Broken(f"PATCH {at} ({word}): {answer.status} {shown!r}")
            if orjson.loads(answer.body)["metadata"]["annotations"].get(word) != "yes":
                raise Broken(f"PATCH {at} ({word}): not in the answer")
            works.append(word)
        if "change" in self._example:
            await self._server.ok("PATCH", at, self._example["change"], PATCHES["merge"])
        return works

    async def _table(self, name: str) -> None:
        found = await self._server.ok("GET", self._at, accept=TABLE)
        if found["kind"] != "Table":
            raise Broken(f"GET {self._at}: no Table")
        columns = found["columnDefinitions"]
        if any(len(row["cells"]) != len(columns) for row in found["rows"]):
            raise Broken(f"GET {self._at}: a row with other cells than columns")
        self.report.columns = [c["name"] + ("*" if c["priority"] else "") for c in columns]

    async def _subresources(self, at: str) -> None:
        resource = self.report.row["resource"]
        for sub in self.report.row.get("subresources") or ():
            name = sub["subresource"]
            self.report.subresources.append(name)
            if name in ELSEWHERE.get(resource, ()):
                continue
            for _ in range(_ATTEMPTS):
                got = await self._server.ok("GET", f"{at}/{name}")
                if got["kind"] != sub["responseKind"]["kind"]:
                    raise Broken(f"GET {at}/{name}: a {got['kind']}")
                answer = await self._server.send("PUT", f"{at}/{name}", got)
                if answer.status != 409:
                    break
            if answer.status != 200:
                shown = answer.body[:300] if isinstance(answer, Response) else b""
                raise Broken(f"PUT {at}/{name}: {answer.status} {shown!r}")
            await self._server.ok("PATCH", f"{at}/{name}", {}, PATCHES["merge"])

    async def _deleted(self, at: str) -> None:
        if self._kind == "Namespace":
            # What is in it goes with a controller; that it begins to go is all there is to see here.
            answer = await self._server.ok("DELETE", at)
            if not answer["metadata"].get("deletionTimestamp"):
                raise Broken(f"DELETE {at}: no deletionTimestamp")
            return
        await self._server.ok("DELETE", f"{at}?dryRun=All")
        await self._server.ok("GET", at)
        await self._server.ok("DELETE", f"{at}?gracePeriodSeconds=0")
        await self._gone(at)
        if "deletecollection" not in self._verbs:
            return
        other = f"{self._at}/{await self._created()}"
        name = f"status{next(self._numbers) - 1}"
        await self._server.ok("DELETE", f"{self._at}?labelSelector=tried%3D{name}&gracePeriodSeconds=0")
        await self._gone(other)

    async def _gone(self, at: str) -> None:
        """Finalizers of admission (protection) are taken off, as their controllers would."""
        answer = await self._server.send("GET", at)
        if answer.status == 200:
            with suppress(Broken):
                await self._server.ok("PATCH", at, {"metadata": {"finalizers": None}}, PATCHES["merge"])
            answer = await self._server.send("GET", at)
        if answer.status != 404:
            raise Broken(f"DELETE {at}: still there")


def _pod(name: str) -> Object:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


async def discover(server: Server) -> AsyncIterator[tuple[str, str, Object]]:
    """(group, version, resource) of aggregated discovery, in its order; legacy discovery must say the same."""
    for root in ("/api", "/apis"):
        for item in (await server.ok("GET", root, accept=AGGREGATED))["items"]:
            group = item["metadata"].get("name") or ""
            for version in item["versions"]:
                path = f"/apis/{group}/{version['version']}" if group else f"/api/{version['version']}"
                legacy = await server.ok("GET", path)
                old = {row["name"]: sorted(row["verbs"]) for row in legacy["resources"]}
                for row in version["resources"]:
                    new = {row["resource"]: sorted(row["verbs"])}
                    new |= {f"{row['resource']}/{s['subresource']}": sorted(s["verbs"]) for s in row.get("subresources") or ()}
                    for name, verbs in new.items():
                        if old.get(name) != verbs:
                            raise Broken(f"{path}: {name} is {verbs} in aggregated discovery, {old.get(name)} in the old one")
                    yield group, version["version"], row


async def probe() -> list[Report]:
    """A report of every resource. Raises Broken with every resource that has a verb that does not work."""
    examples: Object = yaml.safe_load(EXAMPLES.read_text())
    reports, faults = [], []
    async with running() as server:
        async for group, version, row in discover(server):
            try:
                reports.append(await Probe(server, examples, group, version, row).run())
            except Broken as error:
                faults.append(f"{row['resource']}.{group}: {error}")
    if faults:
        raise Broken("\n".join(faults))
    return reports
