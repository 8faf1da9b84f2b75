"""/statusz and /flagz: what runs, since when, and with which options.

Owns: ZPages. Called by: non_resource. Never does: authorize (RBAC), show a secret (options say which they are).
Source: component-base/zpages (KEP-4827, KEP-4828), on by default since v1.36.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from k1s.api.errors import ApiError, not_acceptable
from k1s.base.clock import Clock, rfc3339
from k1s.base.http import Request, Response
from k1s.version import GIT_VERSION, KUBERNETES_MAJOR, KUBERNETES_MINOR

_WARNING = (
    "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees "
    "and is for debugging purposes only."
)
_GROUP, _VERSIONS = "config.k8s.io", ("v1alpha1", "v1beta1")
_NAME = "kube-apiserver"


class ZPages:
    def __init__(self, config: Any, clock: Clock, paths: Callable[[], list[str]]) -> None:
        self._config, self._clock, self._paths = config, clock, paths
        self._started = clock.now()

    def statusz(self, request: Request) -> Response:
        version = _structured(request, "Statusz")
        up = int(self._clock.now() - self._started)
        go, emulated = f"python{platform.python_version()}", f"{KUBERNETES_MAJOR}.{KUBERNETES_MINOR}"
        paths = self._paths()
        if version:
            return _document("Statusz", version, startTime=rfc3339(self._started), uptimeSeconds=up, goVersion=go,
                             binaryVersion=GIT_VERSION.lstrip("v"), emulationVersion=emulated, paths=paths)  # fmt: skip
        lines = [
            f"Started: {rfc3339(self._started)}",
            f"Up: {up // 3600} hr {up // 60 % 60:02d} min {up % 60:02d} sec",
            f"Go version: {go}",
            f"Binary version: {GIT_VERSION.lstrip('v')}",
            f"Emulation version: {emulated}",
            f"Paths: {' '.join(paths)}",
        ]
        return _text("statusz", lines)

    def flagz(self, request: Request) -> Response:
        version = _structured(request, "Flagz")
        flags = self._flags()
        if version:
            return _document("Flagz", version, flags=flags)
        return _text("flagz", [f"{name}={value}" for name, value in flags.items()])

    def _flags(self) -> dict[str, str]:
        out = {}
        for field in dataclasses.fields(self._config):
            value = getattr(self._config, field.name)
            secret = bool(field.metadata.get("secret")) or "token" in field.name
            text = "CLASSIFIED" if secret and value else _shown(value)
            out[field.name.replace("_", "-")] = text
        return dict(sorted(out.items()))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ",".join(map(str, value)) + "]"
    return str(value) if isinstance(value, str | int | Path) else repr(value)


def _structured(request: Request, kind: str) -> str:
    """The version that was asked for, "" for text. Raises ApiError 406."""
    accept = request.headers.get("accept", "")
    for choice in accept.split(","):
        media, *parameters = [part.strip() for part in choice.split(";")]
        if media in ("", "*/*", "text/plain", "text/*"):
            return ""
        given = dict(part.split("=", 1) for part in parameters if "=" in part)
        if media == "application/json" and given.get("g") == _GROUP and given.get("as") == kind and given.get("v") in _VERSIONS:
            return given["v"]
    raise _refused(kind)


def _refused(kind: str) -> ApiError:
    return not_acceptable(["text/plain", *(f"application/json;v={v};g={_GROUP};as={kind}" for v in _VERSIONS)])


def _document(kind: str, version: str, **values: Any) -> Response:
    head = {"kind": kind, "apiVersion": f"{_GROUP}/{version}", "metadata": {"name": _NAME}}
    return Response(200, orjson.dumps({**head, **values}))


def _text(page: str, lines: list[str]) -> Response:
    body = "\n".join([f"{_NAME} {page}", _WARNING, "", *lines]) + "\n"
    return Response(200, body.encode(), "text/plain; charset=utf-8")
