"""A tiny API server for one resource: a base.http.Handler that lists, watches and takes writes of ConfigMaps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson

from k1s.api.errors import ApiError, too_old_resource_version
from k1s.base.http import Answer, Request, Response, Stream

Object = dict[str, Any]


def config_map(name: str, version: int, *, uid: str = "", namespace: str = "default", **data: str) -> Object:
    meta = {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**meta, "managedFields": [{"manager": "x"}]}, "data": data}


class ScriptedServer:
    def __init__(self) -> None:
        self.revision = 10
        self.objects: dict[str, Object] = {}
        self.watchers: list[asyncio.Queue[bytes | None]] = []
        self.requests: list[Request] = []
        self.bodies: list[bytes] = []
        self.answers: list[Answer] = []  # given first, in order
        self.compacted = 0
        self.closed_streams = 0

    def put(self, name: str, **data: str) -> Object:
        self.revision += 1
        kind = "MODIFIED" if name in self.objects else "ADDED"
        obj = self.objects[name] = config_map(name, self.revision, **data)
        self.emit(kind, obj)
        return obj

    def drop(self, name: str) -> None:
        self.revision += 1
        obj = self.objects.pop(name)
        self.emit("DELETED", {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.revision)}})

    def emit(self, kind: str, obj: Object) -> None:
        for queue in self.watchers:
            queue.put_nowait(orjson.dumps({"type": kind, "object": obj}) + b"\n")

    def break_watches(self) -> None:
        for queue in self.watchers:
            queue.put_nowait(None)
        self.watchers.clear()

    def status(self, error: ApiError, headers: list[tuple[str, str]] | None = None) -> Response:
        return Response(error.code, orjson.dumps(error.status()), headers=headers or [])

    async def handle(self, request: Request) -> Answer:
        self.requests.append(request)
        self.bodies.append(await request.body.read(1 << 20))
        if self.answers:
            return self.answers.pop(0)
        if request.param("watch"):
            version = int(request.param("resourceVersion"))
            if version < self.compacted:
                return self.status(too_old_resource_version(version, self.compacted))
            return Stream(self._stream(version))
        if request.method == "GET":
            items = [{k: v for k, v in o.items() if k not in ("kind", "apiVersion")} for o in self.objects.values()]
            return Response(body=orjson.dumps({"metadata": {"resourceVersion": str(self.revision)}, "items": items}))
        return Response(body=self.bodies[-1] or b"{}")

    async def _stream(self, version: int) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.watchers.append(queue)
        for obj in self.objects.values():
            if int(obj["metadata"]["resourceVersion"]) > version:
                queue.put_nowait(orjson.dumps({"type": "MODIFIED", "object": obj}) + b"\n")
        try:
            while (line := await queue.get()) is not None:
                # Torn on purpose: events do not arrive in whole lines.
                yield line[:7]
                yield line[7:]
        finally:
            self.closed_streams += 1
