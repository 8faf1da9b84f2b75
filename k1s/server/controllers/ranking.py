"""Which pods go first when there are too many.

Owns: `deletion_order` (pure). Called by: replicaset, replicationcontroller, job. Never does: I/O.
Source: upstream's ActivePodsWithRanks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from k1s.api import meta
from k1s.client.interface import Object
from k1s.server.controllers import pods as podlib
from k1s.server.controllers.reconciler import seconds_of

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def deletion_order(pods: Sequence[Object], related: Iterable[Object], now: float) -> list[Object]:
    """`pods`, those to delete first in front. `related`: the active pods that share nodes with them (of one Deployment)."""
    crowd = Counter(node for p in related if podlib.is_active(p) and (node := _node(p)))
    return sorted(pods, key=lambda pod: _rank(pod, crowd, now))


def _rank(pod: Object, crowd: Counter[str], now: float) -> tuple[object, ...]:
    ready = podlib.is_ready(pod)
    regular, sidecar = _restarts(pod)
    return (
        bool(_node(pod)),  # unassigned first
        _PHASES.get(podlib.phase(pod), 0),  # pending before unknown before running
        ready,  # not ready first
        _cost(pod),  # cheaper first
        -crowd[_node(pod)],  # from the fullest node first
        # Younger first, but only by orders of magnitude: nearly equal ages are decided by UID, which spreads the loss.
        _age_bucket(podlib.ready_since(pod), now) if ready else 0,
        -regular,  # more restarts first
        -sidecar,
        _age_bucket(seconds_of(meta.metadata(pod).get("creationTimestamp")), now),
        meta.uid(pod),
    )


def _age_bucket(since: float, now: float) -> int:
    if since <= 0:
        return -1  # unknown counts as newest
    return int(math.log2(max(now - since, 1.0)))


def _node(pod: Object) -> str:
    return (pod.get("spec") or {}).get("nodeName") or ""


def _cost(pod: Object) -> int:
    text = meta.annotations(pod).get(DELETION_COST, "0")
    # An unreadable cost counts as none, as upstream.
    return int(text) if text.lstrip("-").isdigit() else 0


def _restarts(pod: Object) -> tuple[int, int]:
    """The most restarts of any container, and of any sidecar (restartable init container)."""
    status = pod.get("status") or {}
    sidecars = {c["name"] for c in (pod.get("spec") or {}).get("initContainers") or () if c.get("restartPolicy") == "Always"}
    regular = max((c.get("restartCount", 0) for c in status.get("containerStatuses") or ()), default=0)
    restartable = (c.get("restartCount", 0) for c in status.get("initContainerStatuses") or () if c.get("name") in sidecars)
    return regular, max(restartable, default=0)
