"""The add-on "traefik": whether it is wanted, possible, and what it is made of.

Owns: offering it to the manifests, again when the HelmChartConfig traefik in kube-system changes. Called by: app, before the
manifests start. Never does: apply.
`--disable traefik` removes it. Without its image nothing is offered: a pod that cannot start helps nobody.
"""

from __future__ import annotations

import asyncio
import json
import logging
from importlib import resources

from k1s.api import meta
from k1s.api.catalog import Resource, builtin
from k1s.client.interface import Object
from k1s.server.addons.chart_values import BadValues, Tree, merged, parse_values
from k1s.server.addons.context import SYSTEM_NAMESPACE, AddonContext
from k1s.server.addons.documents import parse
from k1s.server.addons.manifests import Manifests
from k1s.server.addons.traefik.image import find_image
from k1s.server.addons.traefik.render import render

log = logging.getLogger("k1s.addons")

NAME = "traefik"


class Traefik:
    def __init__(self, context: AddonContext, manifests: Manifests, chart_config: Resource) -> None:
        self._context, self._manifests = context, manifests
        self._configs = context.informers.informer(chart_config)
        self._wake = asyncio.Event()
        # Until it is decided what is to be, what is there stays.
        manifests.hold(NAME)

    async def run(self) -> None:
        """Until cancelled."""
        if NAME in self._context.settings.disabled:
            self._manifests.offer(NAME, None)
            await asyncio.get_running_loop().create_future()
        nodes = self._context.informers.informer(builtin("Node"))
        image = await asyncio.to_thread(find_image, self._context.settings.image_dirs, list(nodes.list()))
        if image is None:
            # What an earlier start made stays held: it may be running.
            log.warning(
                "add-on traefik is left out: no image archive traefik.tar in %s (packaging/prepare.sh makes it; "
                "--disable traefik says that it is not wanted)",
                self._context.settings.image_dirs[0],
            )
            await asyncio.get_running_loop().create_future()
        assert image is not None
        await self._follow(image)

    async def _follow(self, image: str) -> None:
        package = resources.files("k1s.server.addons.traefik")
        definitions, base = (parse((package / name).read_bytes(), json=True) for name in ("definitions.json", "manifest.json"))
        await self._configs.synced()
        self._configs.add_handler(self._changed)
        kinds = [document.content for document in definitions]
        while True:
            self._wake.clear()
            config = self._configs.get(NAME, SYSTEM_NAMESPACE)
            objects = self._render([document.content for document in base], image, config)
            if objects is not None:
                self._manifests.offer(NAME, json.dumps({"kind": "List", "items": [*kinds, *objects]}).encode())
            await self._wake.wait()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        same = old is not None and new is not None and old.get("spec") == new.get("spec")
        if obj is not None and meta.name(obj) == NAME and meta.namespace(obj) == SYSTEM_NAMESPACE and not same:
            self._wake.set()

    def _render(self, base: list[Object], image: str, config: Object | None) -> list[Object] | None:
        """None: the configuration cannot be understood, so what runs goes on running."""
        try:
            objects, unused = render(base, _values(config), image)
        except BadValues as error:
            self._tell(config, "ConfigurationRefused", f"{error}; traefik stays as it is")
            return None
        if unused:
            self._tell(config, "ValuesNotHonoured", f"not honoured by k1s' traefik: {', '.join(unused)}")
        return objects

    def _tell(self, config: Object | None, reason: str, text: str) -> None:
        log.warning("HelmChartConfig kube-system/traefik: %s", text)
        if config is not None:
            self._context.events.event(config, "Warning", reason, text)


def _values(config: Object | None) -> Tree:
    spec = (config or {}).get("spec") or {}
    values = parse_values(spec.get("valuesContent") or "", "valuesContent")
    values = merged(values, spec.get("values") or {})
    if spec.get("valuesSecrets"):
        raise BadValues("valuesSecrets: not supported for traefik")
    return values
