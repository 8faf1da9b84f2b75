"""Small files that must never be seen half written.

Owns: `write_atomic` (temporary file beside the target, fsync, rename) and `read_private`.
Called by: pki, certificates, kubeconfig, join. Never does: decide what is secret (the caller names the mode).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

PRIVATE = 0o600
PUBLIC = 0o644


def write_atomic(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Replace `path` by `data` in one step; the bytes never exist under a wider mode than `mode`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # else a power cut may bring the old name back
    finally:
        os.close(directory)


def read_if_exists(path: Path) -> bytes | None:
    """The file's bytes, None if there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
