"""Add-ons from manifests: applied at start and when they change, removed when their file goes.

Owns: Manifests: which add-on has to be looked at when, one add-on's way from text to objects, what is told of it.
Called by: app as a part, traefik (`offer`). Never does: parse (documents), write objects (objects) or records (records).

An add-on is a file of the manifests directory, or one that k1s ships; a file of the same name replaces ours. Unlike k3s, what
leaves a file is deleted, and everything when the file goes. `NAME.yaml.skip` (k3s) stops applying and leaves what is there.
Bounds: one add-on at a time; a refusal that may pass is tried again after 1 s doubling to 60 s, a missing kind when definitions
appear, and anything else when the file changes.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace

from k1s.api import meta
from k1s.api.catalog import Resource, builtin
from k1s.base.backoff import Backoff, KeyedBackoff
from k1s.base.inotify import Inotify
from k1s.base.tasks import Supervisor
from k1s.client.controller import Controller
from k1s.client.interface import Object
from k1s.server.addons.context import SYSTEM_NAMESPACE, AddonContext
from k1s.server.addons.directory import ManifestDirectory, Source, directory_id, shipped
from k1s.server.addons.documents import BrokenManifest, Document, Identity, parse
from k1s.server.addons.objects import Objects, Refused, Removal
from k1s.server.addons.records import Record, Records

log = logging.getLogger("k1s.addons")

_RETRY = Backoff(1.0, 60.0)
# Of so many faults of one add-on each is told by itself.
_MAX_FAULTS = 10


class Manifests:
    def __init__(self, context: AddonContext, addon: Resource) -> None:
        self._context = context
        self._events, self._clock = context.events, context.clock
        self._directory = ManifestDirectory(context.settings.manifests_dir, context.clock)
        self._objects = Objects(context.client, context.catalog)
        self._records = Records(context, addon)
        self._files: dict[str, Source] = {}
        self._shipped: dict[str, Source] = {}
        # Shipped add-ons that can be neither applied nor removed now.
        self._held: set[str] = set()
        # Shipped add-ons that are to go.
        self._unwanted: set[str] = set()
        self._skipped: set[str] = set()
        # Add-ons with objects whose kind is not served.
        self._waiting: set[str] = set()
        self._told: dict[str, tuple[str, ...]] = {}
        self._backoff = KeyedBackoff(_RETRY)
        self._swept = False
        self.controller = Controller("addons", self.reconcile, clock=context.clock, workers=1)
        self.controller.watch(self._records.informer, self._record_changed)
        self.controller.watch(context.informers.informer(builtin("CustomResourceDefinition")), self._definition_changed)

    def offer(self, name: str, text: bytes | None) -> None:
        """An add-on that k1s ships, as JSON; None: it is not wanted, what it made goes."""
        self._held.discard(name)
        if text is None:
            self._shipped.pop(name, None)
            self._unwanted.add(name)
        else:
            self._shipped[name] = shipped(name, text)
        self.controller.add(name)

    def hold(self, name: str) -> None:
        """A shipped add-on that cannot be applied here: what it made in earlier runs stays."""
        self._shipped.pop(name, None)
        self._held.add(name)

    async def run(self, ready: Callable[[], None]) -> None:
        with ExitStack() as stack:
            watch: Inotify | None = None
            try:
                watch = stack.enter_context(Inotify())
            except OSError as error:
                log.error("%s: changes will not be seen before the next start: %s", self._context.settings.manifests_dir, error)
            self._records.directory = await asyncio.to_thread(directory_id, self._context.settings.manifests_dir)
            self._sweep(watch)
            async with Supervisor() as tasks:
                if watch is not None:
                    tasks.spawn("manifests-directory", self._follow(watch))
                await tasks.start("manifests", self.controller.run)
                ready()

    async def _follow(self, watch: Inotify) -> None:
        while True:
            await self._directory.changed(watch)
            self._sweep(watch)

    def _sweep(self, watch: Inotify | None) -> None:
        try:
            files, skipped = self._directory.sweep(watch)
        except OSError as error:
            # Not seeing the files is not the same as their being gone.
            place = error.filename or self._context.settings.manifests_dir
            reason = os.strerror(error.errno or 0).lower()
            if error.errno == errno.ENOSPC:
                reason = "the kernel has no watch left (sysctl fs.inotify.max_user_watches)"
            log.error("%s: cannot be read: %s; nothing is changed", place, reason)
            return
        old, was_skipped, first = self._files, self._skipped, not self._swept
        self._files, self._skipped, self._swept = files, skipped, True
        for name in {*old, *files, *was_skipped, *skipped, *(self._records.names() if first else ())}:
            if first or old.get(name) != files.get(name) or (name in skipped) != (name in was_skipped):
                self._backoff.forget(name)
                self.controller.add(name)

    def _record_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        # Whoever deletes a record makes us write it again.
        if new is None and old is not None and meta.namespace(old) == SYSTEM_NAMESPACE:
            yield meta.name(old)

    def _definition_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        if new is not None and meta.is_true(new, "Established") and not (old is not None and meta.is_true(old, "Established")):
            yield from sorted(self._waiting)

    async def reconcile(self, name: str) -> float | None:
        self._waiting.discard(name)
        if name in self._skipped or not (self._swept or name in self._shipped):
            return None
        source = self._files.get(name) or self._shipped.get(name)
        record = self._records.read(name)
        if record is not None:
            # A kind may have come to be served, and so got a scope, since the record was written.
            record.objects = list(dict.fromkeys(map(self._objects.scoped, record.objects)))
            record.kept = set(map(self._objects.scoped, record.kept))
            record.uids = {self._objects.scoped(identity): uid for identity, uid in record.uids.items()}
        if source is None:
            # Another directory's add-on is not ours to remove: another server's, or that of the host the database came from.
            ours = record is not None and (record.directory == self._records.directory or name in self._unwanted)
            if record is not None and ours and name not in self._held:
                await self._remove(name, record)
            return None
        if source.empty and record is None:
            return None  # just made, not written yet
        return await self._apply(source, record)

    async def _apply(self, source: Source, record: Record | None) -> float | None:
        name, before = source.name, record or Record(source.place, "")
        try:
            if source.problem:
                raise BrokenManifest(source.problem)
            text = await asyncio.to_thread(source.read)
            if text is None:
                return None
            documents = await asyncio.to_thread(parse, text, json=source.json)
            wanted = self._identities(documents)
            if not wanted:
                raise BrokenManifest("holds no object; delete the file to remove what it made")
        except BrokenManifest as error:
            # Nothing of it is applied, nothing of what it made is removed: what was meant is not known.
            await self._conclude(source, before, replace(before, fault=str(error)), (str(error),))
            return None
        kept = await self._foreign(wanted, before)
        union = [*before.objects, *(identity for identity in wanted if identity not in before.objects)]
        if union != before.objects or record is None:
            # First the record: what is made from now on is remembered, whatever happens.
            await self._records.write(name, replace(before, objects=union, kept=kept), done=False)
        # Before the first of them: a definition that appears while we are at it wakes us again.
        self._waiting.add(name)
        faults, retry, missing, uids = await self._apply_all(wanted)
        if not missing:
            self._waiting.discard(name)
        # A definition of this file may have given the others a scope.
        present, kept = list(map(self._objects.scoped, wanted)), set(map(self._objects.scoped, kept))
        await self._prune(name, before, [identity for identity in before.objects if identity not in present])
        after = Record(source.place, source.checksum, present, kept & set(present), {**before.uids, **uids})
        after.uids = {identity: uid for identity, uid in after.uids.items() if identity in present}
        after.fault = "; ".join(faults)[:1024]
        if missing and not self._backoff.failures(name):
            # A definition of the same file takes a moment to be served: the first miss is not told.
            return self._backoff.next(name)
        await self._conclude(source, before, after, tuple(faults))
        if retry:
            return self._backoff.next(name)
        if not missing:
            self._backoff.forget(name)
        return None

    def _identities(self, documents: list[Document]) -> dict[Identity, Document]:
        out: dict[Identity, Document] = {}
        for document in documents:
            identity = self._objects.identity(document.content)
            if identity in out:
                raise BrokenManifest(f"{document.place}: {identity} is there already, in {out[identity].place}")
            out[identity] = document
        return out

    async def _foreign(self, wanted: Iterable[Identity], before: Record) -> set[Identity]:
        """Objects that were there before we first applied them: they are changed, but never deleted."""
        kept = {identity for identity in before.kept if identity in before.objects}
        for identity in wanted:
            if identity not in before.objects and await self._objects.is_foreign(identity):
                kept.add(identity)
        return kept

    async def _apply_all(self, wanted: dict[Identity, Document]) -> tuple[list[str], bool, bool, dict[Identity, str]]:
        """(faults, whether time may mend one, whether a kind is missing, the uids of what was applied)."""
        faults: list[str] = []
        uids: dict[Identity, str] = {}
        retry = missing = False
        for unscoped, document in wanted.items():
            identity = self._objects.scoped(unscoped)
            try:
                uids[identity] = meta.uid(await self._objects.apply(identity, document.content))
            except Refused as error:
                faults.append(f"{document.place}, {identity}: {error}")
                retry, missing = retry or not (error.final or error.missing), missing or error.missing
        return faults, retry, missing, uids

    async def _prune(self, name: str, record: Record, leftover: list[Identity]) -> None:
        """Remove what left the file, last made first. Raises ApiError: the record still lists it, the next try goes on."""
        claimed = self._records.claimed(but=name) if leftover else set()
        for identity in reversed(leftover):
            if identity in record.kept or identity in claimed:
                continue
            if await self._objects.remove(identity, record.uids.get(identity, "")) is Removal.IN_USE:
                self._tell_kept(name, identity)
            else:
                log.info("add-on %s: removed %s", name, identity)

    async def _remove(self, name: str, record: Record) -> None:
        await self._prune(name, record, record.objects)
        await self._records.remove(name)
        self._told.pop(name, None)
        self._backoff.forget(name)
        log.info("add-on %s: removed (%s is gone)", name, record.source)

    def _tell_kept(self, name: str, identity: Identity) -> None:
        text = f"{identity} is kept: there are objects of its kind that the add-on did not make; delete it by hand"
        log.warning("add-on %s: %s", name, text)
        self._events.event(self._reference(name), "Warning", "DefinitionInUse", text)

    async def _conclude(self, source: Source, before: Record, after: Record, faults: tuple[str, ...]) -> None:
        """Write down and tell how it ended."""
        await self._records.write(source.name, after)
        if faults != self._told.get(source.name, ()):
            self._tell(source, faults)
        elif not faults and source.checksum != before.checksum:
            count = len(after.objects)
            log.info("add-on %s: applied %s (%d objects)", source.name, source.place, count)
            self._events.event(self._reference(source.name), "Normal", "Applied", f"applied {source.place}: {count} objects")

    def _tell(self, source: Source, faults: tuple[str, ...]) -> None:
        self._told[source.name] = faults
        reference = self._reference(source.name)
        if not faults:
            self._told.pop(source.name)
            log.info("add-on %s: applied %s, which had faults before", source.name, source.place)
            self._events.event(reference, "Normal", "Applied", f"applied {source.place}")
        for fault in faults[:_MAX_FAULTS]:
            log.error("add-on %s: %s: %s", source.name, source.place, fault)
            self._events.event(reference, "Warning", "ApplyFailed", f"{source.place}: {fault}")
        if len(faults) > _MAX_FAULTS:
            log.error("add-on %s: %s: %d more faults", source.name, source.place, len(faults) - _MAX_FAULTS)

    def _reference(self, name: str) -> Object:
        found = self._records.get(name)
        reference: Object = {"apiVersion": "k3s.cattle.io/v1", "kind": "Addon", "name": name, "namespace": SYSTEM_NAMESPACE}
        return found if found is not None else reference
