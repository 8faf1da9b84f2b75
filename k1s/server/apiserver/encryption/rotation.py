"""Encryption turned on and off, keys exchanged, stored values rewritten: each step safe against the server's sudden end.

Owns: Rotation: the two files (configuration and stage, 0600), the order of steps, the rewriting. Called by: encryption/app.
Never does: HTTP.

A key is on disk before anything is written with it. Old keys stay until every value has been rewritten and the history that holds
older values is compacted; a rewriting that was cut off goes on at the next start.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from k1s.base.clock import Clock, rfc3339
from k1s.base.files import read_if_exists, write_atomic
from k1s.server.apiserver.encryption.config import (
    AESGCM,
    IDENTITY,
    Configuration,
    EncryptionError,
    Key,
    Provider,
    new_key,
    parse,
)
from k1s.server.apiserver.encryption.ring import Ring
from k1s.storage.errors import KeyNotFound, RevisionConflict, StoreError
from k1s.storage.interface import KeyValue, Origin, Store

# Stages, named as in k3s.
START, PREPARE, ROTATE, ACTIVE, FINISHED = "start", "prepare", "rotate", "reencrypt_active", "reencrypt_finished"
_PAGE = 500
_PARALLEL = 32
_ORIGIN = Origin("system:apiserver", "reencrypt")


@dataclass(slots=True)
class Progress:
    """`done` of `total` values are kept as they are to be; `failed` says why it stopped."""

    done: int = 0
    total: int = 0
    finished: bool = False
    failed: str = ""


class Rotation:
    """`store` is the one below the encryption. `static`: a configuration that a person keeps; it is never changed."""

    def __init__(self, store: Store, directory: Path, clock: Clock, static: Configuration | None = None) -> None:
        self.store, self._clock = store, clock
        self._file, self._stage_file = directory / "encryption-config.json", directory / "encryption-state.json"
        self.static = static is not None
        self.ring = Ring(static)
        self.stage = START
        self.progress = Progress(finished=True)
        self._task: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()

    def load(self, *, wanted: bool = False) -> None:
        """Read the files; with `wanted` and without files, begin to encrypt. Raises EncryptionError, OSError."""
        if self.static:
            return
        data = read_if_exists(self._file)
        if data is not None:
            try:
                self.ring.load(parse(json.loads(data), str(self._file)))
                self.stage = str(json.loads(read_if_exists(self._stage_file) or b"{}").get("stage") or START)
            except (ValueError, AttributeError) as error:
                raise EncryptionError(f"{self._file} cannot be read: {error}") from None
        elif wanted:
            self._save(self._enabled(new_key(self._now())), ACTIVE)

    async def check(self) -> None:
        """Open one value of every key that is in use, before anything relies on it. Raises EncryptionError."""
        seen: set[bytes] = set()
        for prefix in self.ring.prefixes or ("/registry/secrets/",):
            async for item in self._values(prefix):
                head = item.value[:80].split(b":", 5)
                name = head[4] if len(head) == 6 else b""
                if item.value.startswith(b"k8s:enc:") and name not in seen:
                    self.ring.open(item.key, item.value)
                    seen.add(name)

    def resume(self) -> None:
        """Go on with what the server's end cut off."""
        if self.stage == ACTIVE and not self.static:
            self._begin()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def enabled(self) -> bool:
        return any(rule.writer is not None for rule in self.ring.configuration.rules)

    @property
    def keys(self) -> tuple[Key, ...]:
        return tuple(key for rule in self.ring.configuration.rules for p in rule.providers for key in p.keys)

    # The verbs. Each raises EncryptionError when it cannot be done now.

    def enable(self) -> None:
        self._free()
        if not self.enabled:
            keys = self.keys or (new_key(self._now()),)
            self._save(self._enabled(*keys), ACTIVE)
        self.reencrypt()

    def disable(self) -> None:
        self._free()
        if self.keys:
            self._save(self.ring.configuration.with_providers(Provider(IDENTITY), Provider(AESGCM, self.keys)), ACTIVE)
            self.reencrypt()

    def prepare(self) -> None:
        """A new key that everything can be read with, before it is written with."""
        self._needs_on()
        if self.stage == PREPARE:
            raise EncryptionError("a key is prepared already: rotate is the next step")
        self._save(self._enabled(*self.keys, new_key(self._now())), PREPARE)

    def rotate(self) -> None:
        """The newest key is written with from now on."""
        self._needs_on()
        if self.stage != PREPARE:
            self.prepare()
        *older, newest = self.keys
        self._save(self._enabled(newest, *older), ROTATE)

    def reencrypt(self) -> None:
        """Rewrite every value that is not kept as it would be written now, then drop what is not needed any more."""
        self._free()
        if self.stage == PREPARE:
            raise EncryptionError("a key is prepared, but not in use yet: rotate is the next step")
        self._stage(ACTIVE)
        self._begin()

    def rotate_keys(self) -> None:
        """prepare, rotate and reencrypt."""
        self.rotate()
        self.reencrypt()

    async def moved(self) -> Progress:
        """The progress once it has changed."""
        await self._moved.wait()
        return self.progress

    # How

    def _begin(self) -> None:
        self.progress = Progress()
        self._task = asyncio.create_task(self._run(), name="reencrypt")

    async def _run(self) -> None:
        failed = "it broke off; the server's log says why"
        try:
            await self._rewrite()
            # Older rows hold older values, in plain or under older keys.
            await self.store.compact(self.store.revision)
            self._retire()
            failed = ""
        except (StoreError, OSError) as error:
            failed = str(error)
        finally:
            # Whoever asked waits for this, whatever has happened.
            self.progress.failed, self.progress.finished = failed, True
            self._tell()

    async def _rewrite(self) -> None:
        progress, ring = self.progress, self.ring
        # A write that is under way under the old key would come after our look at its place.
        await ring.settled()
        for prefix in ring.prefixes:
            async for item in self._values(prefix):
                progress.total += 1
                progress.done += ring.current(item.key, item.value)
        for prefix in ring.prefixes:
            page: list[KeyValue] = []
            async for item in self._values(prefix):
                if not ring.current(item.key, item.value):
                    page.append(item)
                if len(page) >= _PARALLEL:
                    await self._write(page)
                    page.clear()
            await self._write(page)

    async def _write(self, items: list[KeyValue]) -> None:
        await asyncio.gather(*map(self._one, items))
        self.progress.done += len(items)
        self._tell()

    async def _one(self, item: KeyValue) -> None:
        found: KeyValue | None = item
        while found is not None and not self.ring.current(found.key, found.value):
            value = self.ring.seal(found.key, self.ring.open(found.key, found.value))
            try:
                await self.store.update(found.key, value, expected=found.revision, origin=_ORIGIN)
                return
            except RevisionConflict as lost:
                found = lost.current  # somebody wrote it meanwhile, so it is most likely right now
            except KeyNotFound:
                return

    def _retire(self) -> None:
        """Only the key that is written with is left; without encryption the keys stay, for backups."""
        if self.enabled:
            self._save(self._enabled(self.keys[0]), FINISHED)
        else:
            self._stage(FINISHED)

    async def _values(self, prefix: str) -> AsyncIterator[KeyValue]:
        after = ""
        while True:
            page = await self.store.list(prefix, after=after, limit=_PAGE)
            for item in page.items:
                yield item
            if not page.remaining or not page.items:
                return
            after = page.items[-1].key

    def _enabled(self, *keys: Key) -> Configuration:
        return self.ring.configuration.with_providers(Provider(AESGCM, keys), Provider(IDENTITY))

    def _save(self, configuration: Configuration, stage: str) -> None:
        # Cut off between the two files, the step has not happened, or is repeated without harm.
        if stage != PREPARE:
            self._stage(stage)
        write_atomic(self._file, configuration.render())
        self.ring.load(configuration)
        if stage == PREPARE:
            self._stage(stage)

    def _stage(self, stage: str) -> None:
        write_atomic(self._stage_file, json.dumps({"stage": stage}).encode())
        self.stage = stage

    def _tell(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _free(self) -> None:
        if self.static:
            raise EncryptionError("the keys are in the file named by --encryption-provider-config: change that file and restart")
        if self._task is not None and not self._task.done():
            raise EncryptionError("values are being rewritten right now: wait until that is done (see status)")

    def _needs_on(self) -> None:
        self._free()
        if not self.enabled:
            raise EncryptionError("encryption is disabled: enable it first")

    def _now(self) -> str:
        return rfc3339(self._clock.now())
