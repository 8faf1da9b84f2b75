"""Image archives (tar files).

Owns: reading the names out of an OCI or docker archive. Called by: fake.py, agent/node/images.
Never does: unpack layers.
"""

from __future__ import annotations

import json
import tarfile

_NAME = "io.containerd.image.name"
_MAX_INDEX = 4 * 1024 * 1024


def image_names(path: str) -> list[str]:
    """The names of the images in an archive (compressed or not). Raises ValueError if it is none."""
    try:
        with tarfile.open(path, "r:*") as tar:
            for member in tar:
                if member.name.removeprefix("./") in ("index.json", "manifest.json") and member.size <= _MAX_INDEX:
                    file = tar.extractfile(member)
                    names = _from_index(json.load(file)) if file is not None else []
                    if names:
                        return names
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not an image archive: {error}") from error
    raise ValueError(f"{path} names no image")


def _from_index(index: object) -> list[str]:
    if isinstance(index, list):  # docker save: [{"RepoTags": [...]}]
        return [tag for entry in index for tag in entry.get("RepoTags") or []]
    if isinstance(index, dict):
        annotations = [m.get("annotations") or {} for m in index.get("manifests") or []]
        return [a[_NAME] for a in annotations if a.get(_NAME)]
    return []
