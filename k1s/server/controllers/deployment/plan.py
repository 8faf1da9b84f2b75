"""One step of a Deployment towards what it should be.

Owns: `plan` (pure): which ReplicaSet to create, size, annotate or delete, and the new status. Called by: deployment/controller.
Never does: I/O. Golden tests: tests/golden/controllers/deployment-*.
Source: upstream's syncDeployment: a change of spec.replicas is dealt with before a rollout goes on, growing before shrinking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from k1s.api import meta
from k1s.base.clock import rfc3339
from k1s.client.interface import Object
from k1s.server.controllers.deployment import progress, revisions, rolling
from k1s.server.controllers.deployment.revisions import DESIRED_REPLICAS, MAX_REPLICAS, REVISION


@dataclass(slots=True)
class Change:
    """Make the set `name` have this size and these annotations. `before` is its size now."""

    name: str
    before: int
    size: int
    annotations: dict[str, str]
    min_ready_seconds: int | None = None


@dataclass(slots=True)
class Plan:
    create: Object | None = None
    changes: list[Change] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    # The Deployment's own revision annotation, if it must change.
    revision: str = ""
    status: Object = field(default_factory=dict)
    again: float | None = None


def plan(deployment: Object, sets: Sequence[Object], *, old_pods_left: bool, now: float) -> Plan:
    """`sets`: the Deployment's ReplicaSets. `old_pods_left`: pods of old sets have not ended yet (for Recreate)."""
    new, old = revisions.split(deployment, sets)
    out = Plan()
    stamp = rfc3339(now)
    if meta.is_deleting(deployment):
        out.status = progress.counts(deployment, new, old, stamp)
        return out
    condition = progress.paused_condition(deployment, now)
    if deployment["spec"].get("paused") or rolling.is_scaling_event(deployment, sets):
        # The Deployment is not to roll now, but its size is still kept.
        _annotate_new(deployment, new, old, out)
        _resize(deployment, sets, rolling.rescale(deployment, new, old), out)
        if deployment["spec"].get("paused"):
            out.delete = [meta.name(rs) for rs in revisions.to_forget(deployment, old)]
        out.status = progress.counts(deployment, *_after(new, old, out), stamp)
    else:
        _roll(deployment, new, old, old_pods_left, out)
        created = out.create is not None
        new_after, old_after = _after(new if not created else out.create, old, out)
        out.status = progress.rollout_status(deployment, new_after, old_after, now, created=created)
        if progress.is_complete(deployment, out.status):
            out.delete = [meta.name(rs) for rs in revisions.to_forget(deployment, old)]
        out.again = progress.next_check(deployment, out.status, now)
    if condition is not None:
        out.status = progress.with_condition(out.status, condition)
    return out


def _roll(deployment: Object, new: Object | None, old: Sequence[Object], old_pods_left: bool, out: Plan) -> None:
    active = [rs for rs in old if rolling.size(rs)]
    if not rolling.is_rolling(deployment):
        if active:
            _annotate_new(deployment, new, old, out)
            _resize(deployment, active, {meta.name(rs): 0 for rs in active}, out)
            return
        if old_pods_left:
            _annotate_new(deployment, new, old, out)
            return
    if new is None:
        _create(deployment, old, out)
        return
    _annotate_new(deployment, new, old, out)
    total, current = rolling.wanted(deployment), rolling.size(new)
    target = total if current > total else rolling.new_size(deployment, [*old, new], current)
    _resize(deployment, [new], {meta.name(new): target}, out)
    if target == current and rolling.is_rolling(deployment):
        _resize(deployment, active, rolling.shrink_old(deployment, new, active), out)


def _create(deployment: Object, old: Sequence[Object], out: Plan) -> None:
    number = revisions.next_revision(old)
    annotations = {**revisions.annotations_for(deployment, None, number), **_size_annotations(deployment)}
    out.create = revisions.new_replica_set(deployment, rolling.new_size(deployment, old, 0), annotations)
    out.revision = _new_revision(deployment, annotations)


def _new_revision(deployment: Object, annotations: dict[str, str]) -> str:
    number = annotations.get(REVISION, "")
    return number if number != meta.annotations(deployment).get(REVISION) else ""


def _annotate_new(deployment: Object, new: Object | None, old: Sequence[Object], out: Plan) -> None:
    """The current set carries the newest revision (also after a roll back), the Deployment's annotations and minReadySeconds."""
    if new is None:
        return
    annotations = revisions.annotations_for(deployment, new, revisions.next_revision(old))
    out.revision = _new_revision(deployment, annotations)
    minimum = deployment["spec"].get("minReadySeconds", 0)
    differs = minimum != new["spec"].get("minReadySeconds", 0)
    if annotations != meta.annotations(new) or differs:
        size = rolling.size(new)
        out.changes.append(Change(meta.name(new), size, size, annotations, minimum if differs else None))


def _size_annotations(deployment: Object) -> dict[str, str]:
    total = rolling.wanted(deployment)
    surge, _ = rolling.bounds(deployment)
    return {DESIRED_REPLICAS: str(total), MAX_REPLICAS: str(total + surge)}


def _resize(deployment: Object, sets: Sequence[Object], sizes: rolling.Sizes, out: Plan) -> None:
    """Note new sizes; a set that keeps its size still learns what size the Deployment has."""
    extra = _size_annotations(deployment)
    for rs in sets:
        target = sizes.get(meta.name(rs))
        if target is None:
            continue
        change = next((c for c in out.changes if c.name == meta.name(rs)), None)
        annotations = {**(change.annotations if change else meta.annotations(rs)), **extra}
        if change is not None:
            change.size, change.annotations = target, annotations
        elif target != rolling.size(rs) or annotations != meta.annotations(rs):
            out.changes.append(Change(meta.name(rs), rolling.size(rs), target, annotations))


def _after(new: Object | None, old: Sequence[Object], out: Plan) -> tuple[Object | None, list[Object]]:
    """The sets as they will be once the plan is carried out; the status counts with that."""
    sizes = {change.name: change.size for change in out.changes}

    def grown(rs: Object) -> Object:
        return {**rs, "spec": {**rs["spec"], "replicas": sizes.get(meta.name(rs), rolling.size(rs))}}

    return (grown(new) if new is not None else None), [grown(rs) for rs in old]
