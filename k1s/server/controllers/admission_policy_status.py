"""The status of ValidatingAdmissionPolicies: which generation of one has been looked at.

Watches: ValidatingAdmissionPolicies (own key). Never does: type checks; `typeChecking` is there, without warnings, because
clients wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.client.interface import Object
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

POLICY = builtin("ValidatingAdmissionPolicy")


class AdmissionPolicyStatusController(Reconciler):
    name = "validatingadmissionpolicy-status"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.policies = self.cache(POLICY)

    def watches(self) -> Iterable[Watch]:
        return ((POLICY, self._changed),)

    def _changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        return [meta.name(new)] if new is not None else []

    async def reconcile(self, key: str) -> float | None:
        policy = self.policies.get(key)
        if policy is None:
            return None
        generation = policy["metadata"].get("generation") or 1
        status = policy.get("status") or {}
        if status.get("observedGeneration") != generation or "typeChecking" not in status:
            change: Object = {"status": {"observedGeneration": generation, "typeChecking": {}}}
            await self.client.patch(POLICY, key, "", change, subresource="status")
        return None
