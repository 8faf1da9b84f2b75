"""The manifests directory: which add-ons its files make, and what changes there.

Owns: the names of add-ons, `.skip` files, reading files that are whole, waiting by inotify. Called by: manifests.
Never does: parse, apply. Bounds: a file of 8 MiB (documents.MAX_BYTES); a sweep at most every 0.2 s.
A file that is being written is not read before it is closed: half a file would look as if objects had left it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from k1s.base.clock import Clock
from k1s.base.files import read_if_exists, write_atomic
from k1s.base.inotify import (
    CLOSE_WRITE,
    CREATE,
    DELETE,
    DELETE_SELF,
    MODIFY,
    MOVE_SELF,
    MOVED_FROM,
    MOVED_TO,
    FileEvent,
    Inotify,
)
from k1s.server.addons.documents import MAX_BYTES

log = logging.getLogger("k1s.addons")

SUFFIXES = (".yaml", ".yml", ".json")
SKIP = ".skip"
_MASK = MODIFY | CLOSE_WRITE | MOVED_TO | MOVED_FROM | CREATE | DELETE | DELETE_SELF | MOVE_SELF
# Editors and `cp` touch a file several times: what comes within this time is taken together.
_SETTLE_SECONDS = 0.2
_ODD = re.compile(r"[^a-z0-9.-]+")


@dataclass(frozen=True, slots=True)
class Source:
    """One add-on's manifest: a file (`path`), or what k1s itself ships (`text`). `problem`: why it cannot be read.

    A file's content is not kept: most of them are read twice in a server's life.
    """

    name: str
    place: str
    checksum: str = ""
    path: Path | None = None
    text: bytes = b""
    problem: str = ""
    empty: bool = False

    @property
    def json(self) -> bool:
        return self.path is None or self.path.suffix == ".json"

    def read(self) -> bytes | None:
        """The content that was swept; None if it has changed since, which the next sweep sees."""
        if self.path is None:
            return self.text
        try:
            data = self.path.read_bytes()
        except OSError:
            return None
        return data if _checksum(data) == self.checksum else None


def shipped(name: str, text: bytes) -> Source:
    """An add-on that comes with k1s, as JSON."""
    return Source(name, f"(k1s) {name}", _checksum(text), text=text)


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def directory_id(root: Path) -> str:
    """Tells this manifests directory from those of other servers, and of a cluster whose database was put back elsewhere.

    It lies beside the directory, made at first use.
    """
    file = root.with_name(f"{root.name}.id")
    known = read_if_exists(file)
    if known is None:
        known = os.urandom(8).hex().encode()
        write_atomic(file, known)
    return known.decode().strip()


def addon_name(relative: Path) -> str:
    """The Addon's name for a file: `traefik` for traefik.yaml. Names that had to be changed get a hash, so that no two meet."""
    plain = str(relative.with_suffix("") if relative.suffix == ".yaml" else relative)
    name = _ODD.sub("-", plain.lower()).strip("-.")[:200]
    if name == plain:
        return name
    return f"{name or 'addon'}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


class ManifestDirectory:
    """`sweep()` for what is there, `changed()` to wait. The directory is made if it is missing."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root, self._clock = root, clock
        self._writing: set[Path] = set()
        # path -> (size and time, what was read then): an unchanged file is not read again.
        self._read: dict[Path, tuple[str, Source]] = {}

    def sweep(self, watch: Inotify | None) -> tuple[dict[str, Source], set[str]]:
        """The add-ons by name, and the names that a `.skip` file turns off. Raises OSError if the directory cannot be read."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        sources: dict[str, Source] = {}
        skipped: set[str] = set()
        seen: set[Path] = set()
        for path in self._files(self._root, watch):
            seen.add(path)
            if path.name.endswith(SKIP):
                skipped.add(addon_name(path.relative_to(self._root).with_suffix("")))
                continue
            source = self._source(path)
            if source is not None:
                sources[source.name] = source
        self._read = {path: entry for path, entry in self._read.items() if path in seen}
        self._writing &= seen
        return sources, skipped

    async def changed(self, watch: Inotify) -> None:
        """Return some time after something changed."""
        while not self._note(await watch.read()):
            pass
        await self._clock.sleep(_SETTLE_SECONDS)

    def _note(self, events: list[FileEvent]) -> bool:
        """Remember which files are being written; whether a sweep is due."""
        due = False
        for event in events:
            path = event.directory / event.name
            if event.mask & MODIFY:
                self._writing.add(path)
            else:
                if event.mask & (CLOSE_WRITE | MOVED_TO | MOVED_FROM | DELETE) or not event.mask:
                    self._writing.discard(path)
                due = True
        return due

    def _files(self, directory: Path, watch: Inotify | None) -> Iterator[Path]:
        # The watch comes first: what appears from now on wakes us, what is there already is listed.
        if watch is not None:
            watch.add(directory, _MASK)
        for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue  # what editors and copying programs keep for a moment
            if entry.is_dir(follow_symlinks=False):
                try:
                    yield from self._files(Path(entry.path), watch)
                except FileNotFoundError:
                    continue  # deleted meanwhile
            elif entry.name.removesuffix(SKIP).endswith(SUFFIXES) and not entry.is_dir():
                yield Path(entry.path)

    def _source(self, path: Path) -> Source | None:
        """What the file says; None for one that is new and not written yet."""
        known = self._read.get(path)
        if path in self._writing:
            return known[1] if known else None
        name, place = addon_name(path.relative_to(self._root)), str(path)
        try:
            state = path.stat()
            mark = f"{state.st_ino}:{state.st_size}:{state.st_mtime_ns}"
            if known is not None and known[0] == mark:
                return known[1]
            if state.st_size > MAX_BYTES:
                source = Source(name, place, problem=f"larger than {MAX_BYTES // 1024 // 1024} MiB")
            else:
                data = path.read_bytes()
                source = Source(name, place, _checksum(data), path)
                if not data.strip():
                    source = Source(name, place, problem="is empty; delete the file to remove what it made", empty=True)
        except OSError as error:
            # Not the same as a file that is gone: what it made stays.
            return Source(name, place, problem=f"cannot be read: {os.strerror(error.errno or 0).lower()}")
        self._read[path] = (mark, source)
        return source
