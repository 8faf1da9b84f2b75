"""Encryption at rest, put together for one server, and its admin endpoint.

Owns: open_encryption (files and options to a Rotation), `paths` (/v1-k1s/encrypt/...). Called by: server/app.
Never does: authorize: the paths are non-resource URLs that no role names, so they are for system:masters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from k1s.api.errors import ApiError, bad_request, method_not_allowed, path_not_found
from k1s.base.clock import Clock
from k1s.base.http import Answer, Handler, Request, Response, Stream
from k1s.server.apiserver.encryption.config import Configuration, EncryptionError, parse
from k1s.server.apiserver.encryption.rotation import Rotation
from k1s.storage.interface import Store

ROOT = "/v1-k1s/encrypt/"


async def open_encryption(
    store: Store, directory: Path, clock: Clock, *, wanted: bool = False, provider_config: str = ""
) -> Rotation:
    """`directory`: where the keys are; `store` must be open. Raises EncryptionError, OSError."""
    static: Configuration | None = None
    if provider_config:
        if wanted:
            raise EncryptionError("--secrets-encryption and --encryption-provider-config exclude each other")
        static = _read(Path(provider_config))
    rotation = Rotation(store, directory, clock, static)
    rotation.load(wanted=wanted)
    await rotation.check()
    return rotation


def _read(file: Path) -> Configuration:
    import yaml

    try:
        return parse(yaml.safe_load(file.read_text()), str(file))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EncryptionError(f"{file}: {' '.join(str(error).split())}") from None


def paths(rotation: Rotation) -> dict[str, Handler]:
    """For ApiServer(paths=...): GET status; POST of a verb, answered by its progress as lines of JSON."""
    verbs = {
        "enable": rotation.enable,
        "disable": rotation.disable,
        "prepare": rotation.prepare,
        "rotate": rotation.rotate,
        "rotate-keys": rotation.rotate_keys,
        "reencrypt": rotation.reencrypt,
    }

    async def handle(request: Request) -> Answer:
        verb = request.path.removeprefix(ROOT)
        if verb == "status" and request.method == "GET":
            return Response(200, orjson.dumps(status(rotation)))
        if verb not in verbs and verb != "status":
            raise path_not_found()
        if verb == "status" or request.method != "POST":
            raise method_not_allowed()
        try:
            verbs[verb]()
        except EncryptionError as error:
            raise bad_request(str(error)) from None
        except OSError as error:
            raise ApiError(500, "InternalError", f"the keys cannot be saved: {error}") from error
        return Stream(_progress(rotation))

    return {ROOT: handle}


async def _progress(rotation: Rotation) -> AsyncIterator[bytes]:
    progress = rotation.progress
    while True:
        yield orjson.dumps({**asdict(progress), "stage": rotation.stage}) + b"\n"
        if progress.finished:
            return
        await rotation.moved()


def status(rotation: Rotation) -> dict[str, Any]:
    """Names of keys only."""
    rules = rotation.ring.configuration.rules
    active = {rule.writer.name for rule in rules if rule.writer is not None}
    return {
        "enabled": rotation.enabled,
        "static": rotation.static,
        "stage": rotation.stage,
        "resources": [name for rule in rules for name in rule.resources],
        "keys": [{"name": key.name, "type": "AES-GCM", "active": key.name in active} for key in rotation.keys],
        "progress": asdict(rotation.progress),
    }
