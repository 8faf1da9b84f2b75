"""Image archives in the images directory: imported at start and when they appear. Those that came with k1s itself
($K1S_IMAGES_DIR, set by the one executable) are imported at start.

Owns: which archives were imported already (by name, size, mtime), and inotify on the directory. Called by: app.py as a part.
Never does: pull; delete images when an archive goes away. Bounds: one import at a time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from k1s.agent.context import AgentContext
from k1s.base.files import write_atomic
from k1s.base.inotify import CLOSE_WRITE, MOVED_TO, Inotify
from k1s.cri.errors import RuntimeFailure

log = logging.getLogger("k1s.agent.images")
_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")
# The node is Ready before larger archives are in: pods that need them wait, and are told.
_SMALL = 16 * 1024 * 1024


async def run(agent: AgentContext, ready: Callable[[], None]) -> None:
    directory = agent.config.images_dir
    if agent.pretend and not directory.is_dir():
        ready()
        await asyncio.get_running_loop().create_future()
    directory.mkdir(parents=True, exist_ok=True)
    importer = Importer(agent)
    with Inotify() as changes:
        changes.add(directory, CLOSE_WRITE | MOVED_TO)
        await importer.sweep(most=_SMALL)
        ready()
        await importer.sweep()
        while True:
            await changes.read()
            await importer.sweep()


class Importer:
    """Remembers in images.json beside the directory what it has imported into which runtime."""

    def __init__(self, agent: AgentContext) -> None:
        self._agent = agent
        self._record = agent.config.agent_dir / "images.json"

    async def sweep(self, most: int | None = None) -> None:
        """Import every archive that is new or has changed, of at most so many bytes if `most` is given.

        One that cannot be read is logged, and tried when it changes.
        """
        known = await self._known()
        appeared = False
        for path in self._archives():
            state = path.stat()
            if most is not None and state.st_size > most:
                continue
            mark = f"{state.st_size}:{state.st_mtime_ns}"
            if known.get(path.name, {}).get("mark") == mark:
                continue
            names = await self._import(path)
            if names is not None:
                known[path.name] = {"mark": mark, "images": names}
                appeared = True
        if appeared:
            write_atomic(self._record, json.dumps(known, indent=1, sort_keys=True).encode(), 0o644)
            self._agent.images.appeared()

    def _archives(self) -> Iterator[Path]:
        """Those of k1s, then the user's; a user's archive replaces ours of the same name."""
        found: dict[str, Path] = {}
        bundled = os.environ.get("K1S_IMAGES_DIR")
        for directory in (*([Path(bundled)] if bundled else []), self._agent.config.images_dir):
            for path in sorted(directory.iterdir()):
                if path.name.endswith(_SUFFIXES) and path.is_file():
                    found[path.name] = path
        yield from found.values()

    async def _import(self, path: Path) -> list[str] | None:
        try:
            names = await self._agent.runtime.import_images(str(path))
        except (RuntimeFailure, ValueError) as error:
            log.error("%s: %s", path, error)
            return None
        log.info("imported %s: %s", path.name, ", ".join(names) or "no named image")
        return names

    async def _known(self) -> dict[str, dict[str, object]]:
        """The record, without archives whose images the runtime has lost."""
        try:
            recorded = json.loads(self._record.read_bytes())
        except (OSError, ValueError):
            return {}  # never written, or damaged: importing again does no harm
        present = {tag for image in await self._agent.runtime.list_images() for tag in image.tags}
        out = {}
        for name, entry in recorded.items():
            if all(image in present for image in entry.get("images") or []):
                out[name] = entry
        return out
