"""A directory of files that changes in one step.

Owns: the ..data symlink protocol: readers see all of the old files or all of the new. Called by: volumes/payload.
Never does: ask the API.

  volume/key -> ..data/key        volume/..data -> ..2026_01_02_03_04_05.123456789        (kubelet's layout)
Source: pkg/volume/util/atomic_writer.go.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_DATA = "..data"
_NEW = "..data_tmp"


@dataclass(frozen=True, slots=True)
class FileContent:
    """What a file holds, its mode, and who owns it (None: us)."""

    data: bytes
    mode: int = 0o644
    uid: int | None = None


def write(directory: Path, files: Mapping[str, FileContent], *, group: int | None = None) -> bool:
    """Make `directory` hold exactly `files` (relative path -> content). False if it did already."""
    for path in files:
        _check(path)
    current = directory / _DATA
    if current.is_symlink() and _same(current.resolve(), files):
        return False
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=directory))
    fresh.chmod(0o755)
    for path, content in files.items():
        _write_file(fresh, path, content, group)
    old = os.readlink(current) if current.is_symlink() else None
    temporary = directory / _NEW
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(fresh.name)
    os.replace(temporary, current)
    _link_names(directory, files)
    if old is not None:
        shutil.rmtree(directory / old, ignore_errors=True)
    return True


def _check(path: str) -> None:
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or parts[0].startswith("..") or not path:
        raise ValueError(f"invalid path {path!r}: must be relative, without '..'")


def _same(directory: Path, files: Mapping[str, FileContent]) -> bool:
    if not directory.is_dir():
        return False
    have = {str(p.relative_to(directory)): p for p in directory.rglob("*") if not p.is_dir()}
    if set(have) != set(files):
        return False
    for path, content in files.items():
        state = have[path].stat()
        if state.st_mode & 0o7777 != content.mode or have[path].read_bytes() != content.data:
            return False
    return True


def _write_file(root: Path, path: str, content: FileContent, group: int | None) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.data)
        if content.uid is not None or group is not None:
            os.fchown(descriptor, -1 if content.uid is None else content.uid, -1 if group is None else group)
        os.fchmod(descriptor, content.mode)


def _link_names(directory: Path, files: Mapping[str, FileContent]) -> None:
    """One symlink per first path element; those of files that are gone go too."""
    wanted = {path.split("/")[0] for path in files}
    for entry in directory.iterdir():
        if not entry.name.startswith("..") and entry.name not in wanted:
            entry.unlink()
    for name in wanted:
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(f"{_DATA}/{name}")
