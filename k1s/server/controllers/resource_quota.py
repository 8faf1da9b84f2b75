"""ResourceQuota: what a namespace uses of its quotas.

Watches: ResourceQuotas (own key), every namespaced resource but events (the quotas of the namespace, when use can have changed).
Owns: `plan` (pure).
Admission does not rely on this status: it counts the live objects and what is under way.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from k1s.api import meta, quantity, quota
from k1s.api.catalog import Resource, builtin
from k1s.client.controller import KeysOf
from k1s.client.interface import Object
from k1s.server.controllers.everything import EveryResource, stored
from k1s.server.controllers.reconciler import Context

QUOTA = builtin("ResourceQuota")


def plan(found: Object, content: Iterable[tuple[Resource, Object]]) -> Object:
    """The quota's status. `content`: the objects of its namespace that it could charge for."""
    hard: dict[str, str] = (found.get("spec") or {}).get("hard") or {}
    used = dict.fromkeys(hard, Decimal(0))
    for resource, obj in content:
        if quota.matches(found, resource, obj):
            for name, amount in quota.usage(resource, obj).items():
                if name in used:
                    used[name] += amount
    return {"hard": dict(hard), "used": {name: _text(amount, hard[name]) for name, amount in used.items()}}


def _text(amount: Decimal, like: str) -> str:
    """Printed in the notation of the hard limit: Mi where that says Mi."""
    binary = str(like).endswith("i")
    return quantity.format_quantity(amount, "BinarySI" if binary else "DecimalSI")


class ResourceQuotaController(EveryResource):
    name = "resourcequota"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.quotas = self.cache(QUOTA)

    def wants(self, resource: Resource) -> bool:
        return resource.namespaced and resource.kind != "Event"

    def keys_for(self, resource: Resource) -> KeysOf:
        def changed(old: Object | None, new: Object | None) -> Iterable[str]:
            woken: list[str] = []
            if resource == QUOTA and new is not None and _differs(old, new):
                woken.append(meta.key(new))
            obj = new if new is not None else old
            quotas = self.quotas.list(meta.namespace(obj)) if obj is not None else ()
            for found in quotas:
                if self._concerns(found, resource, old, new):
                    woken.append(meta.key(found))
            return woken

        return changed

    def _concerns(self, found: Object, resource: Resource, old: Object | None, new: Object | None) -> bool:
        if resource.qualified not in _charged(found):
            return False
        return self._charge(found, resource, old) != self._charge(found, resource, new)

    @staticmethod
    def _charge(found: Object, resource: Resource, obj: Object | None) -> quota.Usage:
        return quota.usage(resource, obj) if obj is not None and quota.matches(found, resource, obj) else {}

    async def work(self, key: str) -> float | None:
        namespace, name = meta.split_key(key)
        found = self.quotas.get(name, namespace)
        if found is None:
            return None
        kinds = [r for r in stored(self.catalog) if r.namespaced and r.qualified in _charged(found)]
        status = plan(found, ((r, obj) for r in kinds for obj in self.cache(r).list(namespace)))
        if status != {k: v for k, v in (found.get("status") or {}).items() if k in status}:
            await self.client.update(QUOTA, {**found, "status": status}, subresource="status")
        return None


def _differs(old: Object | None, new: Object) -> bool:
    return old is None or old.get("spec") != new.get("spec") or old.get("status") != new.get("status")


def _charged(found: Object) -> set[str]:
    return quota.charged_kinds((found.get("spec") or {}).get("hard") or {})
