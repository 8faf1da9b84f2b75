"""How many pods each ReplicaSet of a Deployment should have next.

Owns: surge and unavailability, the size of the new set, the shrinking of old ones, proportional scaling (all pure; sizes in,
sizes out). Called by: deployment/plan. Never does: I/O, look at pods.
Source: upstream pkg/controller/deployment/{rolling,sync}.go and util.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from k1s.api import meta
from k1s.client.interface import Object
from k1s.server.controllers.deployment.revisions import DESIRED_REPLICAS, MAX_REPLICAS, oldest_first

Sizes = dict[str, int]


def size(rs: Object) -> int:
    return int(rs["spec"].get("replicas", 1))


def available(rs: Object) -> int:
    return int((rs.get("status") or {}).get("availableReplicas", 0))


def wanted(deployment: Object) -> int:
    return int(deployment["spec"].get("replicas", 1))


def is_rolling(deployment: Object) -> bool:
    return str((deployment["spec"].get("strategy") or {}).get("type", "RollingUpdate")) == "RollingUpdate"


def scaled(value: Any, total: int, *, round_up: bool) -> int:
    """An IntOrString: a number, or a percentage of `total`."""
    if isinstance(value, str) and value.endswith("%"):
        share = int(value[:-1]) * total
        return -(-share // 100) if round_up else share // 100
    return int(value)


def bounds(deployment: Object) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods; surge rounds up, unavailability down, and they are never both 0."""
    if not is_rolling(deployment):
        return 0, 0
    rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    total = wanted(deployment)
    surge = scaled(rolling.get("maxSurge", "25%"), total, round_up=True)
    unavailable = scaled(rolling.get("maxUnavailable", "25%"), total, round_up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, total)


def new_size(deployment: Object, sets: Sequence[Object], current: int) -> int:
    """What the new set (now `current`) may grow to, given all `sets`."""
    total = wanted(deployment)
    if not is_rolling(deployment):
        return total
    surge, _ = bounds(deployment)
    room = total + surge - sum(size(rs) for rs in sets)
    if room <= 0:
        return current
    return current + min(room, total - current)


def shrink_old(deployment: Object, new: Object, old: Sequence[Object]) -> Sizes:
    """The sizes of the old sets after one step: first what is broken anyway, then as much as availability allows."""
    total = wanted(deployment)
    _, unavailable = bounds(deployment)
    sizes = {meta.name(rs): size(rs) for rs in old}
    pods = sum(sizes.values())
    if pods == 0:
        return {}
    minimum = total - unavailable
    broken_new = size(new) - available(new)
    room = pods + size(new) - minimum - broken_new
    if room <= 0:
        return {}
    changed: Sizes = {}
    for rs in oldest_first(old):
        name = meta.name(rs)
        broken = sizes[name] - available(rs)
        cut = min(room, broken)
        if cut > 0:
            changed[name] = sizes[name] = sizes[name] - cut
            room -= cut
    spare = available(new) + sum(available(rs) for rs in old) - minimum
    for rs in oldest_first(old):
        name = meta.name(rs)
        cut = min(sizes[name], spare)
        if cut > 0:
            changed[name] = sizes[name] = sizes[name] - cut
            spare -= cut
    return changed


def rescale(deployment: Object, new: Object | None, old: Sequence[Object]) -> Sizes:
    """The sizes after spec.replicas changed in the middle of a rollout (or while paused)."""
    total = wanted(deployment)
    only = _active_or_latest(new, old)
    if only is not None:
        return {meta.name(only): total}
    if new is not None and _is_saturated(deployment, new):
        return {meta.name(rs): 0 for rs in old if size(rs)}
    if not is_rolling(deployment):
        return {}
    return _in_proportion(deployment, [rs for rs in (*old, *([new] if new is not None else [])) if size(rs)])


def _in_proportion(deployment: Object, active: list[Object]) -> Sizes:
    total = wanted(deployment)
    surge, _ = bounds(deployment)
    allowed = total + surge if total > 0 else 0
    to_add = allowed - sum(size(rs) for rs in active)
    created = {meta.name(rs): meta.metadata(rs).get("creationTimestamp") or "" for rs in active}
    # Biggest first; of equals the newer grows first and the older shrinks first.
    active.sort(key=lambda rs: created[meta.name(rs)], reverse=to_add > 0)
    active.sort(key=size, reverse=True)
    sizes: Sizes = {}
    added = 0
    for rs in active:
        share = _share(deployment, rs, to_add, added, total + surge) if to_add else 0
        sizes[meta.name(rs)] = size(rs) + share
        added += share
    if active and to_add:
        first = meta.name(active[0])
        sizes[first] = max(sizes[first] + to_add - added, 0)
    return sizes


def _share(deployment: Object, rs: Object, to_add: int, added: int, maximum: int) -> int:
    if to_add == added:
        return 0
    fraction = _fraction(deployment, rs, maximum)
    return min(fraction, to_add - added) if to_add > 0 else max(fraction, to_add - added)


def _fraction(deployment: Object, rs: Object, maximum: int) -> int:
    if wanted(deployment) == 0:
        return -size(rs)
    text = meta.annotations(rs).get(MAX_REPLICAS, "")
    before = int(text) if text.isdigit() and int(text) else int((deployment.get("status") or {}).get("replicas", 0))
    if before == 0:
        return 0
    # Go rounds halves away from zero; sizes are never negative.
    return math.floor(size(rs) * maximum / before + 0.5) - size(rs)


def _active_or_latest(new: Object | None, old: Sequence[Object]) -> Object | None:
    """The one set that has pods; if none has, the new one or the newest old one. None while several have."""
    active = [rs for rs in (*old, *([new] if new is not None else [])) if size(rs)]
    if len(active) == 1:
        return active[0]
    if active:
        return None
    if new is not None:
        return new
    return oldest_first(old)[-1] if old else None


def _is_saturated(deployment: Object, rs: Object) -> bool:
    total = wanted(deployment)
    desired = meta.annotations(rs).get(DESIRED_REPLICAS, "")
    return desired == str(total) and size(rs) == total and available(rs) == total


def is_scaling_event(deployment: Object, sets: Sequence[Object]) -> bool:
    """spec.replicas is not what the active sets were last sized for."""
    total = str(wanted(deployment))
    desired = (meta.annotations(rs).get(DESIRED_REPLICAS, "") for rs in sets if size(rs))
    return any(text and text != total for text in desired)
