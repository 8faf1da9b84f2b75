"""Paths that are not resources: discovery, OpenAPI, version, health, metrics, and what other parts add.

Owns: NonResource. Called by: app. Never does: authorize.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from k1s.api.errors import method_not_allowed
from k1s.base.http import Answer, Handler, Request, Response
from k1s.base.metrics import CONTENT_TYPE
from k1s.server.apiserver.answers import compressed, json_answer, page_not_found
from k1s.server.apiserver.attributes import RequestInfo
from k1s.server.apiserver.health import ROOTS
from k1s.server.apiserver.zpages import ZPages
from k1s.version import GIT_VERSION, KUBERNETES_MAJOR, KUBERNETES_MINOR

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

_Z_PAGES = ("/flagz", "/statusz")


class NonResource:
    """`paths`: path -> Handler; a key that ends with "/" is a prefix."""

    def __init__(self, server: ApiServer, paths: Mapping[str, Handler]) -> None:
        self._server, self._paths = server, dict(paths)
        self._pages = ZPages(server.config, server.clock, self._roots)

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
            return json_answer(version())
        if path.startswith("/openapi/"):
            return await self._server.openapi.answer(request)
        if path in ("/api", "/apis") or path.startswith(("/api/", "/apis/")):
            return self._server.discovery.answer(request)
        for root in ROOTS:
            if path == root or path.startswith(f"{root}/"):
                return self._server.health.answer(request, root, path[len(root) + 1 :])
        if path == "/metrics":
            return await compressed(request, Response(200, self._server.exposition(), CONTENT_TYPE))
        if path in _Z_PAGES:
            return self._pages.flagz(request) if path == "/flagz" else self._pages.statusz(request)
        if path == "/":
            return json_answer({"paths": self._roots()})
        raise page_not_found()

    def _roots(self) -> list[str]:
        paths = ["/api", "/api/v1", "/apis", *ROOTS, *_Z_PAGES, "/metrics", "/openapi/v2", "/openapi/v3", "/version"]
        for group, versions in self._server.discovery.groups().items():
            if group:
                paths += [f"/apis/{group}", *(f"/apis/{group}/{version}" for version in versions)]
        paths += [f"{root}/{check}" for root in ROOTS for check in self._server.health.checks]
        return sorted({*paths, *(path for path in self._paths if not path.endswith("/"))})


def version() -> dict[str, str]:
    machine = platform.machine()
    return {
        "major": KUBERNETES_MAJOR,
        "minor": KUBERNETES_MINOR,
        "emulationMajor": KUBERNETES_MAJOR,
        "emulationMinor": KUBERNETES_MINOR,
        "minCompatibilityMajor": KUBERNETES_MAJOR,
        "minCompatibilityMinor": str(int(KUBERNETES_MINOR) - 1),
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{sys.version_info.major}.{sys.version_info.minor}",
        "compiler": "cpython",
        "platform": f"linux/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }",
    }
