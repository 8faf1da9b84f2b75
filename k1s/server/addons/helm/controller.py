"""HelmChart objects: installed, upgraded and uninstalled by helm on the server's host.

Owns: HelmCharts: when helm has to run, the finalizer, conditions and events. Called by: app as a part.
Never does: build commands (plan), run them (runner).
Conditions: Deployed (helm has done what the spec says) and Failed (as k3s' helm-controller has it). status.configHash is what
helm ran with last: a restart of the server runs nothing.
Bounds: one helm at a time; a failed run is tried again after 10 s doubling to 5 min, at once when its spec, HelmChartConfig or
Secrets change; with failurePolicy abort only then.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from k1s.api import meta
from k1s.api.catalog import Resource, builtin
from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.base.backoff import Backoff, KeyedBackoff
from k1s.base.clock import rfc3339
from k1s.base.process import ProgramMissing
from k1s.client.controller import Controller
from k1s.client.interface import Object
from k1s.server.addons.context import AddonContext
from k1s.server.addons.helm.plan import BadChart, Plan, plan, secret_names
from k1s.server.addons.helm.runner import Helm, HelmFailed, Run

log = logging.getLogger("k1s.addons")

FINALIZER = "helm.cattle.io/k1s"
UNMANAGED = "helmcharts.helm.cattle.io/unmanaged"
DEPLOYED, FAILED = "Deployed", "Failed"
_RETRY = Backoff(10.0, 300.0)
_SECRET, _CONFIG_MAP = builtin("Secret"), builtin("ConfigMap")


class HelmCharts:
    def __init__(self, context: AddonContext, chart: Resource, config: Resource) -> None:
        self._context, self._resource = context, chart
        self._charts = context.informers.informer(chart)
        self._configs = context.informers.informer(config)
        self._secrets = context.informers.informer(_SECRET)
        self._helm = Helm(context.settings)
        # namespace/name of a Secret -> the charts that use it.
        self._users: dict[str, set[str]] = {}
        self._backoff = KeyedBackoff(_RETRY)
        # Charts that failed -> (what helm ran with, when it may run with that again).
        self._held: dict[str, tuple[str, float]] = {}
        self.controller = Controller("helm-charts", self.reconcile, clock=context.clock, workers=1)
        self.controller.watch(self._charts, _own_key)
        self.controller.watch(self._configs, _own_key)
        self.controller.watch(self._secrets, self._users_of)

    async def run(self, ready: Callable[[], None]) -> None:
        await asyncio.to_thread(self._helm.forget_old_runs)
        await self.controller.run(ready)

    def _users_of(self, old: Object | None, new: Object | None) -> Iterable[str]:
        obj = new if new is not None else old
        return self._users.get(meta.key(obj), ()) if obj is not None else ()

    async def reconcile(self, key: str) -> float | None:
        namespace, name = meta.split_key(key)
        chart = self._charts.get(name, namespace)
        if chart is None:
            self._forget(key)
            return None
        if UNMANAGED in meta.annotations(chart):
            return None
        if meta.is_deleting(chart):
            return await self._uninstall(key, chart)
        if FINALIZER not in meta.finalizers(chart):
            chart = clone(chart)
            chart["metadata"]["finalizers"] = [*meta.finalizers(chart), FINALIZER]
            chart = await self._context.client.update(self._resource, chart)
        return await self._deploy(key, chart)

    async def _deploy(self, key: str, chart: Object) -> float | None:
        try:
            wanted = await self._plan(key, chart)
            digest = wanted.digest() + await asyncio.to_thread(_content, wanted.local)
        except BadChart as error:
            await self._tell(chart, "", "ChartRefused", str(error))
            return None
        except OSError as error:
            # The file may come.
            await self._tell(chart, "", "ChartUnreadable", f"spec.chart: {error.filename}: {(error.strerror or '').lower()}")
            return self._backoff.next(key)
        if (chart.get("status") or {}).get("configHash") == digest:
            if meta.is_true(chart, DEPLOYED) or (meta.is_true(chart, FAILED) and not wanted.reinstall):
                return None
        held, due = self._held.get(key, ("", 0.0))
        if held == digest and (left := due - self._context.clock.monotonic()) > 0:
            return left
        try:
            async with self._helm.run(wanted) as run:
                await self._settle(run, chart, wanted)
                await self._install(run, wanted)
        except (HelmFailed, ProgramMissing, OSError) as error:
            return await self._failed(key, chart, wanted, digest, error)
        self._backoff.forget(key)
        self._held.pop(key, None)
        await self._tell(chart, digest, "Deployed", f"release {wanted.release} is deployed in {wanted.namespace}", good=True)
        return None

    async def _settle(self, run: Run, chart: Object, wanted: Plan) -> None:
        """A release does not move: where it was it is uninstalled. The place is noted before helm makes anything there."""
        place = (chart.get("status") or {}).get("releaseNamespace") or ""
        if place == wanted.namespace:
            return
        if place:
            await run.uninstall(place)
        patch = {"status": {"releaseNamespace": wanted.namespace}}
        await self._context.client.patch(self._resource, meta.name(chart), meta.namespace(chart), patch, subresource="status")

    async def _install(self, run: Run, wanted: Plan) -> None:
        """Helm refuses to touch a release that something left half done: what that was decides."""
        status = await run.status()
        if status in ("pending-upgrade", "pending-rollback"):
            await run.rollback()
        elif status in ("failed", "pending-install", "uninstalling") and wanted.reinstall:
            await run.uninstall()
        elif status in ("failed", "pending-install", "uninstalling") and status != "failed":
            raise HelmFailed(f"release {wanted.release} is {status}, and failurePolicy is abort: put it right by hand")
        await run.upgrade()

    async def _failed(self, key: str, chart: Object, wanted: Plan, digest: str, error: Exception) -> float | None:
        missing = isinstance(error, ProgramMissing)
        text = "helm is not on this server's host: install it, or use a k1s that brings it" if missing else str(error)
        await self._tell(chart, digest, "HelmMissing" if missing else "HelmFailed", text)
        if not wanted.reinstall and not missing:
            return None
        delay = self._backoff.next(key)
        self._held[key] = (digest, self._context.clock.monotonic() + delay)
        return delay

    async def _uninstall(self, key: str, chart: Object) -> float | None:
        if FINALIZER not in meta.finalizers(chart):
            return None
        place = (chart.get("status") or {}).get("releaseNamespace") or ""
        release = Plan(meta.name(chart), place, "", [])
        held, due = self._held.get(key, ("", 0.0))
        if held == "uninstall" and (left := due - self._context.clock.monotonic()) > 0:
            return left
        try:
            if place:  # else helm has never run for it
                async with self._helm.run(release) as run:
                    await run.uninstall()
                log.info("helm chart %s: release uninstalled from %s", key, place)
        except (HelmFailed, ProgramMissing, OSError) as error:
            missing = isinstance(error, ProgramMissing)
            text = "helm is not on this server's host, so the release cannot be uninstalled" if missing else str(error)
            await self._tell(chart, "", "HelmMissing" if missing else "UninstallFailed", text)
            delay = self._backoff.next(key)
            self._held[key] = ("uninstall", self._context.clock.monotonic() + delay)
            return delay
        rest = [f for f in meta.finalizers(chart) if f != FINALIZER]
        patch = {"metadata": {"finalizers": rest, "uid": meta.uid(chart)}}
        await self._context.client.patch(self._resource, meta.name(chart), meta.namespace(chart), patch)
        self._forget(key)
        return None

    async def _plan(self, key: str, chart: Object) -> Plan:
        namespace = meta.namespace(chart)
        config = self._configs.get(meta.name(chart), namespace)
        self._unlink(key)
        for name in secret_names(chart, config):
            self._users.setdefault(f"{namespace}/{name}", set()).add(key)
        spec, more = chart.get("spec") or {}, (config or {}).get("spec") or {}
        names = secret_names(chart, config)
        names |= {entry.get("name") or "" for source in (spec, more) for entry in source.get("valuesSecrets") or []}
        secrets = {name: self._secrets.get(name, namespace) for name in names}
        authority = await self._authority(spec, namespace)
        return plan(chart, config, secrets, self._context.settings.static_dir, authority)

    async def _authority(self, spec: Object, namespace: str) -> str:
        name = (spec.get("repoCAConfigMap") or {}).get("name")
        if not name:
            return ""
        try:
            found = await self._context.client.get(_CONFIG_MAP, name, namespace)
        except ApiError as error:
            if error.code == 404:
                raise BadChart(f"spec.repoCAConfigMap: there is no ConfigMap {name}") from None
            raise
        return "\n".join((found.get("data") or {}).values())

    async def _tell(self, chart: Object, digest: str, reason: str, text: str, *, good: bool = False) -> None:
        """Conditions, and an event and a line in the log when they say something new."""
        now = rfc3339(self._context.clock.now())
        status = clone(chart.get("status") or {})
        status.pop("releaseNamespace", None)  # may be newer than this copy; a patch leaves it
        conditions = status.setdefault("conditions", [])
        deployed = {"type": DEPLOYED, "status": "True" if good else "False", "reason": reason, "message": text}
        failed = {"type": FAILED, "status": "False" if good else "True", "reason": reason, "message": "" if good else text}
        before = meta.condition({"status": status}, DEPLOYED) or {}
        # The same failure may have other words each time (an address, a port).
        told = before.get("reason") == reason and status.get("configHash", "") == digest
        changed = meta.set_condition(conditions, deployed, now) | meta.set_condition(conditions, failed, now)
        if told and not changed:
            return
        status["configHash"] = digest
        # A patch: a conflict here would make helm run once more.
        await self._context.client.patch(
            self._resource, meta.name(chart), meta.namespace(chart), {"status": status}, subresource="status"
        )
        if not told:
            log.log(logging.INFO if good else logging.ERROR, "helm chart %s: %s", meta.key(chart), text)
            self._context.events.event(chart, "Normal" if good else "Warning", reason, text)

    def _forget(self, key: str) -> None:
        self._backoff.forget(key)
        self._held.pop(key, None)
        self._unlink(key)

    def _unlink(self, key: str) -> None:
        for name in [name for name, users in self._users.items() if key in users]:
            self._users[name].discard(key)
            if not self._users[name]:
                del self._users[name]


def _own_key(old: Object | None, new: Object | None) -> Iterable[str]:
    obj = new if new is not None else old
    # A change of the status is our own.
    if obj is None or (old is not None and new is not None and _substance(old) == _substance(new)):
        return ()
    return (meta.key(obj),)


def _substance(obj: Object) -> tuple[object, ...]:
    metadata = meta.metadata(obj)
    return (metadata.get("uid"), obj.get("spec"), metadata.get("deletionTimestamp"), metadata.get("annotations"))


def _content(path: Path | None) -> str:
    """What tells one chart file from another. Raises OSError."""
    if path is None or path.is_dir():
        return ""
    with path.open("rb") as file:
        return "-" + hashlib.file_digest(file, "sha256").hexdigest()[:16]
