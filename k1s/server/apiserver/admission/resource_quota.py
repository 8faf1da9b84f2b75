"""A namespace does not get more than its quotas allow.

Owns: ResourceQuota, the reservations of writes under way. Called by: admission/chain, last.
Never does: write quota status (the resource quota controller shows usage there).
Source of rules and wording: upstream apiserver/pkg/admission/plugin/resourcequota.

Upstream charges each write to the quota's status first, one more write to disk per pod. Here the live objects are counted
when they matter, and writes that are under way are reserved in memory until they show up among them (or after 10 s: they
failed). Exact within one server, which is what k1s has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal

from k1s.api import quantity
from k1s.api.catalog import Resource, builtin
from k1s.api.quota import Usage, charged_kinds, matches, usage
from k1s.base.clock import REAL_CLOCK, Clock
from k1s.client.interface import InformerFactory, Object
from k1s.server.apiserver.admission.step import Step, refuse, subresource
from k1s.server.apiserver.attributes import AdmissionRequest

_RESERVED_SECONDS = 10.0


class ResourceQuota(Step):
    operations = frozenset({"CREATE", "UPDATE"})

    def __init__(self, informers: InformerFactory, clock: Clock = REAL_CLOCK) -> None:
        self._informers, self._clock = informers, clock
        self._quotas = informers.informer(builtin("ResourceQuota"))
        # namespace -> (uid, until, resource, object): bounded by the creates of the last ten seconds.
        self._reserved: dict[str, list[tuple[str, float, Resource, Object]]] = {}

    async def validate(self, request: AdmissionRequest) -> None:
        obj = request.obj
        if obj is None or not request.resource.namespaced or subresource(request) not in ("", "resize"):
            return
        resource = request.resource
        if not resource.persisted:
            return
        quotas = list(self._quotas.list(request.namespace))
        if not quotas:
            return
        concerned = False
        for quota in quotas:
            names = [name for name in (quota["spec"].get("hard") or {}) if resource.qualified in charged_kinds([name])]
            if names and matches(quota, resource, obj):
                self._check(request, quota, names, obj)
                concerned = True
        if concerned and request.operation == "CREATE" and not request.dry_run:
            until = self._clock.monotonic() + _RESERVED_SECONDS
            self._reserved.setdefault(request.namespace, []).append((obj["metadata"].get("uid") or "", until, resource, obj))

    def _check(self, request: AdmissionRequest, quota: Object, names: list[str], obj: Object) -> None:
        resource, name = request.resource, quota["metadata"]["name"]
        if resource.plural == "pods" and request.operation == "CREATE":
            missing = _unspecified(obj, names)
            if missing:
                parts = [f"{what} for: {','.join(containers)}" for what, containers in sorted(missing.items())]
                raise refuse(request, f"failed quota: {name}: must specify {'; '.join(parts)}")
        wanted = self._delta(request, names, obj)
        if not wanted:
            return
        hard = {key: quantity.parse(quota["spec"]["hard"][key]) for key in wanted}
        used = _total(quota, wanted, self._objects(request.namespace, resource))
        over = sorted(key for key in wanted if used[key] + wanted[key] > hard[key])
        if over:
            limits = quota["spec"]["hard"]
            amounts = (("requested", wanted), ("used", used), ("limited", hard))
            text = ", ".join(f"{word}: {_shown(over, each, limits)}" for word, each in amounts)
            raise refuse(request, f"exceeded quota: {name}, {text}")

    def _delta(self, request: AdmissionRequest, names: list[str], obj: Object) -> Usage:
        """What the write adds, only the limits that it makes worse."""
        after = usage(request.resource, obj)
        before = usage(request.resource, request.old) if request.old is not None else {}
        zero = Decimal(0)
        deltas = {name: after.get(name, zero) - before.get(name, zero) for name in names}
        return {name: delta for name, delta in deltas.items() if delta > 0}

    def _objects(self, namespace: str, resource: Resource) -> Iterator[tuple[Resource, Object]]:
        """The namespace's objects of this resource, and those that are being written."""
        seen = set()
        for obj in self._informers.informer(_stored(resource)).list(namespace):
            seen.add(obj["metadata"].get("uid"))
            yield resource, obj
        now = self._clock.monotonic()
        reserved = [r for r in self._reserved.get(namespace, ()) if r[1] > now and not (r[2] == resource and r[0] in seen)]
        if reserved:
            self._reserved[namespace] = reserved
        else:
            self._reserved.pop(namespace, None)
        yield from ((kind, obj) for _, _, kind, obj in reserved if kind == resource)


def _total(quota: Object, names: Iterable[str], objects: Iterable[tuple[Resource, Object]]) -> Usage:
    """What these objects use of the named limits."""
    out: Usage = {name: Decimal(0) for name in names}
    for resource, obj in objects:
        if matches(quota, resource, obj):
            for name, amount in usage(resource, obj).items():
                if name in out:
                    out[name] += amount
    return out


def _unspecified(pod: Object, names: Iterable[str]) -> dict[str, list[str]]:
    """Quota name -> containers that do not say what they need of it: a quota on compute makes that mandatory."""
    spec = pod["spec"]
    out: dict[str, list[str]] = {}
    for name in names:
        kind, _, resource = name.partition(".") if name.startswith(("requests.", "limits.")) else ("requests", "", name)
        if resource not in ("cpu", "memory"):
            continue
        for container in [spec, *(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
            given = resource in ((container.get("resources") or {}).get(kind) or {})
            if container is spec and given:
                break  # pod-level resources speak for all containers
            if container is not spec and not given:
                out.setdefault(name, []).append(str(container.get("name")))
    return out


def _stored(resource: Resource) -> Resource:
    if resource.custom:
        return resource
    return builtin(resource.kind, resource.storage_group if resource.storage_version else resource.group)


def _shown(names: list[str], amounts: Usage, limits: dict[str, str]) -> str:
    return ",".join(f"{name}={quantity.format_quantity(amounts[name], _notation(limits[name]))}" for name in names)


def _notation(limit: str) -> str:
    """Amounts are printed as their limit is written, as in the quota's status: Mi where that says Mi."""
    return "BinarySI" if str(limit).endswith("i") else "DecimalSI"
