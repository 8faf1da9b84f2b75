"""The OpenAPI definitions of Kubernetes v1.37: one at a time out of the file, never all in memory.

Owns: finding and indexing the definitions file (1.8 MB; most of it is descriptions). The index holds names and offsets only;
a definition is read and parsed when asked for, so nothing of the file stays resident.
Called by: schema (to build its compact nodes), openapi_schemas. Never does: interpret a definition; that is schema's job.
"""

from __future__ import annotations

import importlib.util
import os
import re
from functools import cache
from typing import Any

import orjson

Json = dict[str, Any]

ENV = "K1S_DEFINITIONS"
_PACKAGE = "kubernetes_validate"
_FILE = os.path.join("kubernetes-json-schema", "v1.37.0-local", "_definitions.json")
# A literal start lets the search skip ahead: ten times faster than an anchored line.
_START = re.compile(rb'\n    "(io\.k8s\.[^"]+)": \{')
_END = b"\n    }"
REF_PREFIX = "#/$defs/"

META_V1 = "io.k8s.apimachinery.pkg.apis.meta.v1"
OBJECT_META = f"{META_V1}.ObjectMeta"

# Groups whose definitions do not stand under io.k8s.api.<first part of the group>.
_PACKAGES = {
    "": "io.k8s.api.core",
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "apiregistration.k8s.io": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
    "internal.apiserver.k8s.io": "io.k8s.api.apiserverinternal",
}


def path() -> str:
    """The file: what K1S_DEFINITIONS names, else the data of the package, whose code is not imported."""
    named = os.environ.get(ENV)
    if named:
        return named
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"no OpenAPI definitions: set {ENV}, or install the package kubernetes-validate")
    return os.path.join(spec.submodule_search_locations[0], _FILE)


class _Index:
    """Name -> where its JSON stands. The descriptor stays open: an upgrade may replace the file under a running server."""

    __slots__ = ("_fd", "_spans")

    def __init__(self, file: str) -> None:
        self._fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        self._spans: dict[str, tuple[int, int]] = {}
        for match in _START.finditer(data):
            start = match.end() - 1
            end = data.index(_END, start) + len(_END)
            self._spans[match.group(1).decode()] = (start, end - start)
        if not self._spans:
            raise ValueError(f"{file} holds no Kubernetes definitions in the layout k1s reads")

    def __contains__(self, name: str) -> bool:
        return name in self._spans

    def names(self) -> list[str]:
        return list(self._spans)

    def read(self, name: str) -> Json:
        start, length = self._spans[name]
        parsed: Json = orjson.loads(os.pread(self._fd, length, start))
        return parsed


@cache
def _index() -> _Index:
    return _Index(path())


def definition(name: str) -> Json:
    """The raw definition, descriptions and all, freshly parsed (about 50 us). KeyError if there is none."""
    return _index().read(name)


def names() -> list[str]:
    """Every definition there is."""
    return _index().names()


def exists(name: str) -> bool:
    return name in _index()


def definition_name(group: str, version: str, kind: str) -> str:
    """`apps`, `v1`, `Deployment` -> `io.k8s.api.apps.v1.Deployment`. KeyError if there is none."""
    package = _PACKAGES.get(group)
    if package is None:
        package = f"io.k8s.api.{group.partition('.')[0]}"
    for name in (f"{package}.{version}.{kind}", f"{META_V1}.{kind}"):
        if name in _index():
            return name
    raise KeyError(f"{group}/{version} {kind}" if group else f"{version} {kind}")


def ref_target(ref: str) -> str:
    """The definition that a $ref of this file names."""
    return ref.removeprefix(REF_PREFIX)
