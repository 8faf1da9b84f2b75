"""ClusterRole aggregation: a role that is made of other roles' rules.

Watches: ClusterRoles (own key; a change of any role wakes those that aggregate). Owns: `rules_of` (pure).
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.selectors import labels_from
from k1s.client.interface import Object
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

CLUSTER_ROLE = builtin("ClusterRole")


def rules_of(role: Object, everything: Iterable[Object]) -> list[Object]:
    """The rules of all roles that the aggregation rule selects, by name, each once."""
    selectors = [labels_from(s) for s in role["aggregationRule"].get("clusterRoleSelectors") or ()]
    chosen = [
        other
        for other in everything
        if meta.name(other) != meta.name(role) and any(s.matches(meta.labels(other)) for s in selectors)
    ]
    rules: dict[bytes, Object] = {}
    for other in sorted(chosen, key=meta.name):
        for rule in other.get("rules") or ():
            rules.setdefault(orjson.dumps(rule, option=orjson.OPT_SORT_KEYS), rule)
    return list(rules.values())


class ClusterRoleAggregationController(Reconciler):
    name = "clusterrole-aggregation"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.roles = self.cache(CLUSTER_ROLE)

    def watches(self) -> Iterable[Watch]:
        return ((CLUSTER_ROLE, self._changed),)

    def _changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        return [meta.name(role) for role in self.roles.list() if role.get("aggregationRule")]

    async def reconcile(self, key: str) -> float | None:
        role = self.roles.get(key)
        if role is None or not role.get("aggregationRule"):
            return None
        rules = rules_of(role, self.roles.list())
        if rules != (role.get("rules") or []):
            change = {"metadata": {"resourceVersion": meta.resource_version(role)}, "rules": rules}
            await self.client.patch(CLUSTER_ROLE, key, "", change)
        return None
