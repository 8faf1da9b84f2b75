"""Paths that are not resources: discovery, OpenAPI, version, health, metrics, and what other parts add.

Owns: NonResource. Called by: app. Never does: authorize.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from k1s.api.errors import method_not_allowed
from k1s.base.http import Answer, Handler, Request, Response
from k1s.base.metrics import CONTENT_TYPE
from k1s.server.apiserver.answers import json_answer, page_not_found
from k1s.server.apiserver.attributes import RequestInfo
from k1s.version import GIT_VERSION, KUBERNETES_MAJOR, KUBERNETES_MINOR

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

_HEALTH = ("/healthz", "/livez", "/readyz")
_TEXT = "text/plain; charset=utf-8"


class NonResource:
    """`paths`: path -> Handler; a key that ends with "/" is a prefix. `checks`: name -> None or what is wrong."""

    def __init__(self, server: ApiServer, paths: Mapping[str, Handler]) -> None:
        self._server, self._paths = server, dict(paths)
        self.checks: dict[str, Callable[[], str | None]] = {"ping": lambda: None, "watch-cache": self._cache_check}

    def _cache_check(self) -> str | None:
        return None if self._server.hub.revision >= 0 else "the first list of the store is not in yet"

    async def handle(self, request: Request, info: RequestInfo) -> Answer:
        """Raises ApiError 404, 405."""
        path = request.path
        found = self._paths.get(path)
        if found is None:
            prefixes = [p for p in self._paths if p.endswith("/") and path.startswith(p)]
            if prefixes:
                found = self._paths[max(prefixes, key=len)]
        if found is not None:
            return await found(request)
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed()
        if path == "/version" or path == "/version/":
            return json_answer(_version())
        if path.startswith("/openapi/"):
            return await self._server.openapi.answer(request)
        if path in ("/api", "/apis") or path.startswith(("/api/", "/apis/")):
            return self._server.discovery.answer(request)
        for root in _HEALTH:
            if path == root or path.startswith(f"{root}/"):
                return self._health(request, root, path[len(root) + 1 :])
        if path == "/metrics":
            return Response(200, self._server.exposition(), CONTENT_TYPE)
        if path == "/":
            return json_answer({"paths": self._roots()})
        raise page_not_found()

    def _roots(self) -> list[str]:
        paths = ["/api", "/api/v1", "/apis", *_HEALTH, "/metrics", "/openapi/v2", "/openapi/v3", "/version"]
        for group, versions in self._server.discovery.groups().items():
            if group:
                paths += [f"/apis/{group}", *(f"/apis/{group}/{version}" for version in versions)]
        paths += [f"{root}/{check}" for root in _HEALTH for check in self.checks]
        return sorted({*paths, *(path for path in self._paths if not path.endswith("/"))})

    def _health(self, request: Request, root: str, one: str) -> Response:
        """`ok`, or with ?verbose (or when something is wrong) a line per check; ?exclude=NAME leaves one out."""
        if one and one not in self.checks:
            raise page_not_found()
        left_out = set(request.params("exclude"))
        names = [one] if one else [name for name in self.checks if name not in left_out]
        lines, failed = [], False
        for name in names:
            wrong = self.checks[name]()
            failed = failed or wrong is not None
            lines.append(f"[+]{name} ok" if wrong is None else f"[-]{name} failed: {wrong}")
        kind = root.strip("/")
        if failed:
            return Response(500, ("\n".join([*lines, f"{kind} check failed"]) + "\n").encode(), _TEXT)
        if any(key == "verbose" for key, _ in request.query):
            return Response(200, ("\n".join([*lines, f"{kind} check passed"]) + "\n").encode(), _TEXT)
        return Response(200, b"ok", _TEXT)


def _version() -> dict[str, str]:
    machine = platform.machine()
    return {
        "major": KUBERNETES_MAJOR,
        "minor": KUBERNETES_MINOR,
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{sys.version_info.major}.{sys.version_info.minor}",
        "compiler": "cpython",
        "platform": f"linux/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }",
    }
