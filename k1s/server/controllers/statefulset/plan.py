"""One step of a StatefulSet.

Owns: `plan` (pure): which ordinals to create from which revision, which pods to delete, the new status.
Called by: statefulset/controller. Never does: I/O.
Order: missing pods come up from the lowest ordinal, each only when those before it are available; surplus ones go from the
highest; a rolling update replaces from the highest, after everything else. `Parallel` lifts the order of coming up and going.
Source: upstream pkg/controller/statefulset/stateful_set_control.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from k1s.api import meta
from k1s.client.interface import Object
from k1s.server.controllers import pods as podlib
from k1s.server.controllers.deployment.rolling import scaled
from k1s.server.controllers.statefulset.pods import (
    has_identity,
    ordinal_of,
    pod_name,
    replicas_of,
    revision_of,
    start_of,
)


@dataclass(slots=True)
class Plan:
    # Ordinal -> name of the revision to make its pod from.
    create: dict[int, str] = field(default_factory=dict)
    delete: list[Object] = field(default_factory=list)
    # Pods whose identity labels are to be put right.
    repair: list[Object] = field(default_factory=list)
    status: Object = field(default_factory=dict)
    again: float | None = None


@dataclass(slots=True)
class _View:
    owner: Object
    now: float
    current: str
    update: str

    def healthy(self, pod: Object) -> bool:
        return podlib.phase(pod) == "Running" and podlib.is_ready(pod) and not meta.is_deleting(pod)

    def available(self, pod: Object) -> bool:
        minimum = self.owner["spec"].get("minReadySeconds", 0)
        return self.healthy(pod) and podlib.available_in(pod, minimum, self.now) == 0

    @property
    def in_order(self) -> bool:
        return bool(self.owner["spec"].get("podManagementPolicy", "OrderedReady") == "OrderedReady")

    @property
    def rolling(self) -> bool:
        return bool((self.owner["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate")

    def strategy(self) -> Object:
        return (self.owner["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}

    def revision_for(self, ordinal: int) -> str:
        """Ordinals below the partition stay on the current revision."""
        if self.rolling and ordinal < start_of(self.owner) + int(self.strategy().get("partition", 0)):
            return self.current
        return self.update


def plan(owner: Object, mine: Sequence[Object], *, current: str, update: str, now: float) -> Plan:
    """`current`, `update`: names of the revisions in use and aimed at."""
    view = _View(owner, now, current, update)
    out = Plan()
    by_ordinal = {ordinal_of(owner, pod): pod for pod in mine if ordinal_of(owner, pod) >= 0}
    wanted = range(start_of(owner), start_of(owner) + replicas_of(owner))
    condemned = sorted((o for o in by_ordinal if o not in wanted), reverse=True)
    if not meta.is_deleting(owner):
        settled = _bring_up(view, by_ordinal, wanted, out) and _take_down(view, by_ordinal, wanted, condemned, out)
        if settled and view.rolling:
            _roll(view, by_ordinal, wanted, out)
    out.status = _status(view, list(by_ordinal.values()), out)
    minimum = owner["spec"].get("minReadySeconds", 0)
    out.again = min((w for p in by_ordinal.values() if (w := podlib.available_in(p, minimum, now))), default=None)
    return out


def _bring_up(view: _View, by_ordinal: dict[int, Object], wanted: range, out: Plan) -> bool:
    """True when nothing stands in the way of the next stage."""
    for ordinal in wanted:
        pod = by_ordinal.get(ordinal)
        if pod is None:
            out.create[ordinal] = view.revision_for(ordinal)
            if view.in_order:
                return False
            continue
        if podlib.is_terminal(pod) and not meta.is_deleting(pod):
            out.delete.append(pod)
            if view.in_order:
                return False
            continue
        if not has_identity(view.owner, pod) and not meta.is_deleting(pod):
            out.repair.append(pod)
        if view.in_order and not view.available(pod):
            return False
    return True


def _take_down(view: _View, by_ordinal: dict[int, Object], wanted: range, condemned: list[int], out: Plan) -> bool:
    """Delete what is too many, from the highest ordinal."""
    if not view.in_order:
        out.delete += [by_ordinal[o] for o in condemned if not meta.is_deleting(by_ordinal[o])]
        return True
    sick = [o for o in (*wanted, *reversed(condemned)) if o in by_ordinal and not view.healthy(by_ordinal[o])]
    for ordinal in condemned:
        pod = by_ordinal[ordinal]
        if meta.is_deleting(pod):
            return False
        # While a lower one is sick only a healthy pod may go: losing two at once could lose a quorum.
        if sick and not view.healthy(pod) and ordinal != sick[0]:
            return False
        out.delete.append(pod)
        return False
    return True


def _roll(view: _View, by_ordinal: dict[int, Object], wanted: range, out: Plan) -> None:
    """Replace pods of other revisions from the highest ordinal, within maxUnavailable."""
    first = start_of(view.owner) + int(view.strategy().get("partition", 0))
    limit = max(scaled(view.strategy().get("maxUnavailable") or 1, len(wanted), round_up=True), 1)
    going = {meta.uid(pod) for pod in out.delete}
    down = sum(o not in by_ordinal or not view.available(by_ordinal[o]) or meta.uid(by_ordinal[o]) in going for o in wanted)
    for ordinal in reversed(wanted):
        pod = by_ordinal.get(ordinal)
        if ordinal < first:
            return
        if pod is None or meta.is_deleting(pod) or meta.uid(pod) in going:
            continue
        if revision_of(pod) != view.update:
            sick = not view.available(pod)
            if not sick and down >= limit:
                return
            out.delete.append(pod)
            down += not sick
            if down >= limit:
                return
        elif not view.available(pod) and down >= limit:
            return


def _status(view: _View, mine: list[Object], out: Plan) -> Object:
    owner = view.owner
    before = owner.get("status") or {}
    alive = [pod for pod in mine if not meta.is_deleting(pod)]
    status: Object = {
        "observedGeneration": meta.generation(owner),
        "replicas": len(mine),
        "readyReplicas": sum(view.healthy(pod) for pod in mine),
        "availableReplicas": sum(view.available(pod) for pod in mine),
        "currentReplicas": sum(revision_of(pod) == view.current for pod in alive),
        "updatedReplicas": sum(revision_of(pod) == view.update for pod in alive),
        "currentRevision": view.current,
        "updateRevision": view.update,
        "collisionCount": before.get("collisionCount", 0),
    }
    if before.get("conditions"):
        status["conditions"] = before["conditions"]
    total = replicas_of(owner)
    done = all(status[field] == total for field in ("replicas", "readyReplicas", "updatedReplicas"))
    if view.rolling and done and not out.create and not out.delete:
        status["currentRevision"], status["currentReplicas"] = view.update, status["updatedReplicas"]
    return {k: v for k, v in status.items() if v or k in ("replicas", "availableReplicas", "collisionCount")}


def names(owner: Object) -> set[str]:
    """The names of the pods that should be."""
    return {pod_name(owner, o) for o in range(start_of(owner), start_of(owner) + replicas_of(owner))}
