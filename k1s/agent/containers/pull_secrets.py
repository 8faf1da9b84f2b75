"""imagePullSecrets -> credentials.

Owns: reading .dockerconfigjson and .dockercfg and matching registries. Called by: containers/images.
Never does: log a secret. Pure.
Source: pkg/credentialprovider/keyring.go.
"""

from __future__ import annotations

import base64
import fnmatch
import json
from collections.abc import Iterable
from typing import Any

from k1s.agent.containers.references import registry_of
from k1s.cri.runtime import RegistryAuth

Object = dict[str, Any]
_DOCKER_HUB = ("index.docker.io", "docker.io", "registry-1.docker.io")


def credentials(image: str, secrets: Iterable[Object]) -> list[RegistryAuth]:
    """Every credential that fits the image's registry, the most specific first."""
    found: list[tuple[int, RegistryAuth]] = []
    for secret in secrets:
        for server, entry in _entries(secret).items():
            length = _match(server, image)
            if length:
                found.append((length, _auth(server, entry)))
    return [auth for _, auth in sorted(found, key=lambda pair: -pair[0])]


def _entries(secret: Object) -> dict[str, Object]:
    data = secret.get("data") or {}
    for key in (".dockerconfigjson", ".dockercfg"):
        if key in data:
            try:
                decoded = json.loads(base64.b64decode(data[key]))
            except ValueError:
                return {}  # validated by the API for typed secrets; kubelet ignores a broken one as well
            entries = decoded.get("auths", {}) if key == ".dockerconfigjson" else decoded
            return {k: v for k, v in entries.items() if isinstance(v, dict)} if isinstance(entries, dict) else {}
    return {}


def _match(server: str, image: str) -> int:
    """How much of the image's name the entry names; 0 if it is for another registry."""
    target = server.removeprefix("https://").removeprefix("http://").rstrip("/")
    for suffix in ("/v1", "/v2"):
        target = target.removesuffix(suffix)
    host, _, path = target.partition("/")
    registry = registry_of(image)
    if registry in _DOCKER_HUB:
        return len(target) if host in _DOCKER_HUB else 0
    if not fnmatch.fnmatchcase(registry, host) or registry.count(".") != host.count("."):
        return 0
    rest = image.partition("/")[2]
    return len(target) if not path or rest.startswith(path) else 0


def _auth(server: str, entry: Object) -> RegistryAuth:
    username, password = entry.get("username") or "", entry.get("password") or ""
    if entry.get("auth") and not username:
        try:
            username, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        except ValueError:
            username, password = "", ""
    return RegistryAuth(
        username=username, password=password, identity_token=entry.get("identitytoken") or "", server_address=server
    )
