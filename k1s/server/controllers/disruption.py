"""PodDisruptionBudget: how many of its pods may be evicted now.

Watches: PodDisruptionBudgets (own key), Pods (the budgets that select them). Owns: `plan` (pure). Never does: evict.
The eviction subresource counts disruptionsAllowed down and notes the pod in disruptedPods; here both are made true again.
Source: upstream pkg/controller/disruption.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.clone import clone
from k1s.api.selectors import labels_from
from k1s.base.clock import rfc3339
from k1s.client.interface import Object
from k1s.server.controllers import keys, pods
from k1s.server.controllers.deployment.rolling import scaled
from k1s.server.controllers.reconciler import Context, Reconciler, Watch, same, seconds_of

PDB, POD = builtin("PodDisruptionBudget"), builtin("Pod")
# An evicted pod that is still not deleted after so long was not evicted after all.
DELETION_SECONDS = 120.0
_SCALABLE = {r.kind: r for r in map(builtin, ("ReplicaSet", "Deployment", "StatefulSet", "ReplicationController"))}


def plan(budget: Object, mine: Sequence[Object], expected: int | None, now: float) -> Object:
    """The budget's status. `mine`: its pods; `expected`: how many its controllers want, None if that cannot be told."""
    spec, before = budget.get("spec") or {}, budget.get("status") or {}
    maximum, minimum = spec.get("maxUnavailable"), spec.get("minAvailable")
    relative = maximum is not None or (isinstance(minimum, str) and minimum.endswith("%"))
    conditions: list[Object] = clone(before.get("conditions") or [])
    status: Object = {"observedGeneration": meta.generation(budget), "conditions": conditions}
    if relative and expected is None:
        text = "the controllers of the selected pods do not tell how many pods they want"
        _set(conditions, budget, "False", "SyncFailed", text, now)
        counts = ("expectedPods", "desiredHealthy", "currentHealthy")
        return {**{k: before.get(k, 0) for k in counts}, **status, "disruptionsAllowed": 0}
    total = expected if relative and expected is not None else len(mine)
    if maximum is not None:
        desired = max(total - scaled(maximum, total, round_up=True), 0)
    else:
        desired = scaled(minimum if minimum is not None else 1, total, round_up=True)
    disrupted = _still_going(before.get("disruptedPods") or {}, mine, now)
    healthy = sum(not meta.is_deleting(p) and meta.name(p) not in disrupted and pods.is_ready(p) for p in mine)
    allowed = max(healthy - desired, 0) if total > 0 else 0
    if allowed:
        _set(conditions, budget, "True", "SufficientPods", "", now)
    else:
        _set(conditions, budget, "False", "InsufficientPods", "", now)
    status.update(disruptionsAllowed=allowed, currentHealthy=healthy, desiredHealthy=desired, expectedPods=total)
    if disrupted:
        status["disruptedPods"] = disrupted
    return status


def _still_going(disrupted: Object, mine: Sequence[Object], now: float) -> Object:
    living = {meta.name(p) for p in mine if not meta.is_deleting(p)}
    return {n: t for n, t in disrupted.items() if n in living and seconds_of(t, now) + DELETION_SECONDS > now}


def _set(conditions: list[Object], budget: Object, status: str, reason: str, message: str, now: float) -> None:
    new = {"type": "DisruptionAllowed", "status": status, "reason": reason, "message": message}
    meta.set_condition(conditions, {**new, "observedGeneration": meta.generation(budget)}, rfc3339(now))


class DisruptionController(Reconciler):
    name = "disruption"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.budgets, self.pods = self.cache(PDB), self.cache(POD)
        self.scalable = {kind: self.cache(resource) for kind, resource in _SCALABLE.items()}

    def watches(self) -> Iterable[Watch]:
        return (
            (PDB, keys.own_key_unless_deleted),
            (POD, self._pod_changed),
            *((resource, self._size_changed) for resource in _SCALABLE.values()),
        )

    def _pod_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        present = [pod for pod in (old, new) if pod is not None]
        if len(present) == 2 and _relevant(present[0]) == _relevant(present[1]):
            return ()
        return {
            meta.key(budget)
            for budget in self.budgets.list(meta.namespace(present[0]))
            if any(_selects(budget, pod) for pod in present)
        }

    def _size_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        if old is None or new is None or old["spec"].get("replicas") == new["spec"].get("replicas"):
            return ()
        return [meta.key(budget) for budget in self.budgets.list(meta.namespace(new))]

    async def reconcile(self, key: str) -> float | None:
        namespace, name = meta.split_key(key)
        budget = self.budgets.get(name, namespace)
        if budget is None:
            return None
        mine = [pod for pod in self.pods.list(namespace) if _selects(budget, pod) and not pods.is_terminal(pod)]
        now = self.clock.now()
        status = plan(budget, mine, self._expected(mine), now)
        if not same(status, budget.get("status")):
            # The version keeps an eviction that was just counted from being lost.
            await self.client.update(PDB, {**budget, "status": status}, subresource="status")
        due = [seconds_of(t) + DELETION_SECONDS - now for t in (status.get("disruptedPods") or {}).values()]
        return max(min(due), 0.0) + 1.0 if due else None

    def _expected(self, mine: Sequence[Object]) -> int | None:
        """The sizes of all controllers of the pods together; None if a pod has none, or one without a size."""
        sizes: dict[str, int] = {}
        for pod in mine:
            owner = self._controller_of(pod)
            if owner is None:
                return None
            sizes[meta.uid(owner)] = int(owner["spec"].get("replicas", 1))
        return sum(sizes.values())

    def _controller_of(self, pod: Object) -> Object | None:
        """The outermost controller with a size: a Deployment rather than its ReplicaSet."""
        found: Object | None = None
        obj = pod
        while (reference := meta.controller_of(obj)) is not None:
            cache = self.scalable.get(reference["kind"])
            owner = cache.get(reference["name"], meta.namespace(pod)) if cache is not None else None
            if owner is None or meta.uid(owner) != reference["uid"]:
                return found
            found = obj = owner
        return found


def _selects(budget: Object, pod: Object) -> bool:
    return labels_from((budget.get("spec") or {}).get("selector")).matches(meta.labels(pod))


def _relevant(pod: Object) -> tuple[object, ...]:
    return (meta.labels(pod), pods.is_ready(pod), meta.is_deleting(pod), pods.is_terminal(pod))
