"""Which Traefik image this cluster has.

Owns: finding the archive on this host and reading the image's name in it. Called by: traefik/part. Never does: import it (the
agent does).
"""

from __future__ import annotations

import json
import logging
import tarfile
from collections.abc import Iterable
from pathlib import Path

from k1s.client.interface import Object

log = logging.getLogger("k1s.addons")

REPOSITORY = "k1s.io/traefik"
_INDEX_BYTES = 64 * 1024
_NAME = "io.containerd.image.name"


def find_image(directories: Iterable[Path], nodes: Iterable[Object]) -> str | None:
    """The name with its version: from an archive in one of the directories, else from what the nodes say they hold."""
    for directory in directories:
        for path in sorted(directory.glob("traefik*.tar"), reverse=True):
            name = _name_in(path)
            if name is not None and name.startswith(f"{REPOSITORY}:"):
                return name
    held = {
        name
        for node in nodes
        for image in (node.get("status") or {}).get("images") or []
        for name in image.get("names") or []
        if name.startswith(f"{REPOSITORY}:")
    }
    return max(held, key=_version, default=None)


def _name_in(path: Path) -> str | None:
    """The name in the archive's index; its layers, which come later, are not read."""
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.name == "index.json" and member.size <= _INDEX_BYTES:
                    file = archive.extractfile(member)
                    manifests = json.loads(file.read()).get("manifests") if file is not None else None
                    return next(
                        (str(m["annotations"][_NAME]) for m in manifests or [] if _NAME in m.get("annotations", {})), None
                    )
                if member.name.startswith("blobs/"):
                    return None
    except (OSError, tarfile.TarError, ValueError, AttributeError, TypeError) as error:
        log.error("%s: not an image archive: %s", path, error)
    return None


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.rpartition(":")[2].split(".") if part.isdigit())
