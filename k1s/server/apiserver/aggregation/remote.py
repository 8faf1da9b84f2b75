"""What is asked of an extension server: is it there, which resources has it, what do they look like.

Owns: RemoteServer: the check, discovery and OpenAPI of one APIService. Called by: aggregation/app.
Never does: keep anything, pass clients' requests on (proxy.py). Everything is asked as system:kube-aggregator.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Callable
from typing import Any

import orjson

from k1s.server.apiserver.aggregation.registration import PASSED, Remote, Verdict
from k1s.server.apiserver.forward import Target
from k1s.server.apiserver.openapi_protobuf import encode_document
from k1s.server.apiserver.outgoing import Answered, CallFailed, Outgoing
from k1s.server.apiserver.services import NoRoute

Object = dict[str, Any]

CHECK_SECONDS = 6.0
DOCUMENT_SECONDS = 20.0
# Tries of one check; another one follows when something changes, or after the queue's backoff.
_TRIES = 2
_AS_AGGREGATOR = (("X-Remote-User", "system:kube-aggregator"), ("X-Remote-Group", "system:masters"))
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

# (remote, path, headers) -> Target. Raises NoRoute.
Locate = Callable[[Remote, str, tuple[tuple[str, str], ...]], Target]


class RemoteServer:
    def __init__(self, remote: Remote, locate: Locate, outgoing: Outgoing) -> None:
        self._remote, self._locate, self._outgoing = remote, locate, outgoing

    async def check(self) -> Verdict:
        """The condition Available. Raises nothing that a server out there could cause."""
        remote = self._remote
        failure = ""
        for _ in range(_TRIES):
            try:
                target = self._locate(remote, remote.path, _AS_AGGREGATOR)
            except NoRoute as error:
                return (False, error.reason, str(error))
            # Upstream names the service's own address here; ours is one of its endpoints.
            url = f"https://{target.host}:{target.port}{remote.path}"
            try:
                answer = await self._outgoing.call(target, seconds=CHECK_SECONDS)
            except CallFailed as error:
                failure = f'failing or missing response from {url}: Get "{url}": {error}'
                continue
            if 200 <= answer.status < 300:
                return PASSED
            failure = f"failing or missing response from {url}: bad status from {url}: {answer.status}"
        return (False, "FailedDiscoveryCheck", failure)

    async def resources(self) -> list[Object]:
        """Its resources as aggregated discovery has them. Raises CallFailed."""
        remote = self._remote
        answer = await self._get("/apis", f"{_AGGREGATED},application/json;q=0.5")
        found = _json(answer)
        if answer.status == 200 and found.get("kind") == "APIGroupDiscoveryList":
            for group in found.get("items") or ():
                if (group.get("metadata") or {}).get("name") == remote.group:
                    for version in group.get("versions") or ():
                        if version.get("version") == remote.version:
                            return list(version.get("resources") or ())
        answer = await self._get(remote.path, "application/json")
        if answer.status != 200:
            raise CallFailed(f"{remote.path}: status {answer.status}")
        return aggregated(remote, _json(answer).get("resources") or [])

    async def openapi_v3(self) -> bytes:
        """Its document, gzipped; empty if it has none. Raises CallFailed."""
        answer = await self._get(f"/openapi/v3{self._remote.path}", "application/json", DOCUMENT_SECONDS)
        if answer.status != 200 or not _json(answer).get("openapi"):
            return b""
        return await asyncio.to_thread(_packed, answer.body)

    async def openapi_v2(self) -> bytes:
        """Paths and definitions of this group and version, gzipped; empty if it has none. Raises CallFailed."""
        answer = await self._get("/openapi/v2", "application/json", DOCUMENT_SECONDS)
        if answer.status != 200:
            return b""
        # These documents are large: not on the event loop.
        return await asyncio.to_thread(_part_of_v2, answer, self._remote.path)

    async def _get(self, path: str, accept: str, seconds: float = CHECK_SECONDS) -> Answered:
        try:
            target = self._locate(self._remote, path, (*_AS_AGGREGATOR, ("Accept", accept)))
        except NoRoute as error:
            raise CallFailed(str(error)) from error
        return await self._outgoing.call(target, seconds=seconds)


def _part_of_v2(answer: Answered, base: str) -> bytes:
    """Raises CallFailed if the part could not be put into our own document, which it would spoil for everybody."""
    document = _json(answer)
    try:
        paths = {p: v for p, v in (document.get("paths") or {}).items() if p == base or p.startswith(f"{base}/")}
        if not paths:
            return b""
        definitions = _referenced(paths, document.get("definitions") or {})
        info = {"title": "", "version": ""}
        encode_document({"swagger": "2.0", "info": info, "paths": paths, "definitions": definitions})
    except (AttributeError, KeyError, TypeError, ValueError, struct.error) as error:
        raise CallFailed(f"/openapi/v2: {error!r}") from error
    return _packed(orjson.dumps({"paths": paths, "definitions": definitions}))


def aggregated(remote: Remote, rows: list[Object]) -> list[Object]:
    """The rows of an APIResourceList as aggregated discovery has them: subresources below their resource."""
    out: dict[str, Object] = {}
    for row in rows:
        if "/" not in row["name"]:
            item: Object = {
                "resource": row["name"],
                "responseKind": _kind(remote, row),
                "scope": "Namespaced" if row.get("namespaced") else "Cluster",
                "singularResource": row.get("singularName") or "",
                "verbs": row.get("verbs") or [],
            }
            item.update({key: row[key] for key in ("shortNames", "categories") if row.get(key)})
            out[row["name"]] = item
    for row in rows:
        parent, slash, name = row["name"].partition("/")
        if slash and parent in out:
            sub = {"subresource": name, "responseKind": _kind(remote, row), "verbs": row.get("verbs") or []}
            out[parent].setdefault("subresources", []).append(sub)
    return list(out.values())


def _kind(remote: Remote, row: Object) -> Object:
    group, version = row.get("group") or remote.group, row.get("version") or remote.version
    return {"group": group, "version": version, "kind": row.get("kind") or ""}


def _json(answer: Answered) -> Object:
    try:
        found = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _packed(data: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def _referenced(node: Any, definitions: Object) -> Object:
    """The definitions that `node` refers to, and those that these refer to."""
    out: Object = {}
    waiting: list[Any] = [node]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict):
            ref = item.get("$ref")
            name = ref.removeprefix("#/definitions/") if isinstance(ref, str) else ""
            if name in definitions and name not in out:
                out[name] = definitions[name]
                waiting.append(definitions[name])
            waiting.extend(item.values())
    return out
