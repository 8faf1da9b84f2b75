"""The add-ons, in the order in which they start.

definitions (the kinds) > shipped add-ons > manifests > helm

Owns: that order and `run`. Called by: server/app, which does not wait for it. Never does: the parts' work.
Nothing here ends the server: what is wrong with an add-on is told in its events and in the log.
"""

from __future__ import annotations

from k1s.api.catalog import Catalog
from k1s.base.clock import Clock
from k1s.base.tasks import Supervisor
from k1s.client.events import EventRecorder
from k1s.client.interface import InformerFactory
from k1s.client.rest import RestClient
from k1s.server.addons import definitions
from k1s.server.addons.context import AddonContext, AddonSettings
from k1s.server.addons.helm.controller import HelmCharts
from k1s.server.addons.manifests import Manifests
from k1s.server.addons.traefik.part import Traefik


async def run(
    client: RestClient,
    informers: InformerFactory,
    catalog: Catalog,
    clock: Clock,
    settings: AddonSettings,
) -> None:
    """Until cancelled. `catalog`: the server's own, so that kinds are seen as they come."""
    recorder = EventRecorder(client, "k1s-addons", clock=clock)
    context = AddonContext(client, informers, catalog, clock, recorder, settings)
    async with Supervisor() as tasks:
        tasks.spawn("addon-events", recorder.run())
        kinds = await definitions.install(context)
        manifests = Manifests(context, kinds["Addon"])
        tasks.spawn("traefik", Traefik(context, manifests, kinds["HelmChartConfig"]).run())
        await tasks.start("manifests", manifests.run)
        await tasks.start("helm", HelmCharts(context, kinds["HelmChart"], kinds["HelmChartConfig"]).run)
