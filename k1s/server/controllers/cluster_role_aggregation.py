"""ClusterRole aggregation: a role that is made of other roles' rules.

Watches: ClusterRoles (own key; a change of any role wakes those that aggregate). Never does: know what a union of rules is
(api/rules does).
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.rules import aggregated_rules
from k1s.client.interface import Object
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

CLUSTER_ROLE = builtin("ClusterRole")


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
        rules = aggregated_rules(role, self.roles.list())
        if rules != (role.get("rules") or []):
            change = {"metadata": {"resourceVersion": meta.resource_version(role)}, "rules": rules}
            await self.client.patch(CLUSTER_ROLE, key, "", change)
        return None
