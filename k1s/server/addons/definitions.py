"""The kinds that add-ons are written in: Addon, HelmChart, HelmChartConfig.

Owns: making their definitions what definitions.json says, and waiting until they are served. Called by: app, before the rest.
Never does: remove them. JSON: reading YAML costs a megabyte, and not every cluster needs it.
"""

from __future__ import annotations

import asyncio
import logging
from importlib import resources

from k1s.api import meta
from k1s.api.catalog import Resource, builtin
from k1s.base.backoff import Backoff
from k1s.client.interface import Object
from k1s.server.addons.context import AddonContext
from k1s.server.addons.documents import parse
from k1s.server.addons.objects import Objects, Refused

log = logging.getLogger("k1s.addons")

_RETRY = Backoff(1.0, 60.0)


async def install(context: AddonContext) -> dict[str, Resource]:
    """The resources by kind. A definition that is right already is not written."""
    text = (resources.files("k1s.server.addons") / "definitions.json").read_bytes()
    objects = Objects(context.client, context.catalog)
    documents = [document.content for document in parse(text, json=True)]
    for definition in documents:
        await _apply(context, objects, definition)
    await _established(context, {meta.name(definition) for definition in documents})
    out: dict[str, Resource] = {}
    for definition in documents:
        spec = definition["spec"]
        found = context.catalog.by_kind(spec["group"], spec["versions"][0]["name"], spec["names"]["kind"])
        if found is None:
            raise RuntimeError(f"{meta.name(definition)} is established but not served")
        out[found.kind] = found
    return out


async def _apply(context: AddonContext, objects: Objects, definition: Object) -> None:
    """Until it succeeds: without its kinds no add-on can be kept, but the server can serve."""
    failures = 0
    while True:
        try:
            await objects.apply(objects.identity(definition), definition)
            return
        except Refused as error:
            failures += 1
            log.log(logging.ERROR if failures == 1 else logging.DEBUG, "%s: %s (trying again)", meta.name(definition), error)
            await context.clock.sleep(_RETRY.delay(failures))


async def _established(context: AddonContext, names: set[str]) -> None:
    """Return once all of them are served."""
    missing = set(names)
    done = asyncio.Event()

    def changed(old: Object | None, new: Object | None) -> None:
        if missing and new is not None and meta.is_true(new, "Established"):
            missing.discard(meta.name(new))
            if not missing:
                done.set()

    context.informers.informer(builtin("CustomResourceDefinition")).add_handler(changed)
    await done.wait()
