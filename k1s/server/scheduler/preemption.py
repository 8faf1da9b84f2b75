"""Room for a pod at the cost of less important ones: on which node, and which pods have to go.

Owns: eligible, choose. Called by: app, after a cycle found no node. Never does: I/O, and it never counts on a pod that is not
of lower priority. Source: scheduler/framework/preemption and plugins/defaultpreemption.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k1s.api import meta
from k1s.api.selectors import labels_from
from k1s.server.scheduler.cycle import first_refusal
from k1s.server.scheduler.plugin import CycleState, Plugin
from k1s.server.scheduler.snapshot import NodeInfo, PodInfo, Snapshot

Object = Mapping[str, Any]

# Sums of priorities must not go negative, or fewer victims would look worse (upstream's MaxInt32 + 1).
_SHIFT = 2**31


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node and the pods to end on it, the most important first. `violations`: how many of them a budget protects."""

    node: str
    victims: tuple[PodInfo, ...]
    violations: int = 0


def eligible(pod: PodInfo, snapshot: Snapshot) -> bool:
    """Whether the pod may have others ended: not if it says no, and not while earlier victims are still ending."""
    if pod.pod["spec"].get("preemptionPolicy") == "Never":
        return False
    node = snapshot.get(snapshot.nomination(pod.uid) or "")
    return node is None or not any(
        other.priority < pod.priority and meta.is_deleting(dict(other.pod)) for other in node.pods.values()
    )


def choose(
    pod: PodInfo, hopeful: Iterable[str], snapshot: Snapshot, plugins: Sequence[Plugin], budgets: Sequence[Object]
) -> Candidate | None:
    """The cheapest of the nodes that would take the pod if others ended; `hopeful`: those where ending pods may help."""
    found = []
    for name in hopeful:
        node = snapshot.get(name)
        if node is not None:
            candidate = _on(pod, snapshot.seen_by(pod, node), snapshot, plugins, budgets)
            if candidate is not None:
                found.append(candidate)
    return min(found, key=_cost, default=None)


def _cost(candidate: Candidate) -> tuple[Any, ...]:
    victims = candidate.victims
    highest = max((v.priority for v in victims), default=-_SHIFT)
    # Of equals, the node whose most important victim has run the shortest time.
    oldest = min((v.started for v in victims if v.priority == highest), default="")
    total = sum(v.priority + _SHIFT for v in victims)
    return candidate.violations, highest, total, len(victims), _Reversed(oldest), candidate.node


class _Reversed:
    """Sorts strings backwards."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __lt__(self, other: _Reversed) -> bool:
        return self.text > other.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reversed) and self.text == other.text

    __hash__ = None  # type: ignore[assignment]


def _on(
    pod: PodInfo, node: NodeInfo, snapshot: Snapshot, plugins: Sequence[Plugin], budgets: Sequence[Object]
) -> Candidate | None:
    lower = [other for other in node.pods.values() if other.priority < pod.priority]
    if not lower:
        return None
    tried = node.copy()
    for other in lower:
        tried.remove(other.uid)
    if not _fits(pod, tried, snapshot, plugins):
        return None
    # The most important first, so that these are spared first.
    lower.sort(key=lambda p: (-p.priority, p.started))
    protected = _protected(lower, budgets)
    victims = []
    for other in sorted(lower, key=lambda p: p.uid not in protected):
        tried.add(other)
        if not _fits(pod, tried, snapshot, plugins):
            tried.remove(other.uid)
            victims.append(other)
    victims.sort(key=lambda p: (-p.priority, p.started))
    return Candidate(node.name, tuple(victims), sum(v.uid in protected for v in victims))


def _fits(pod: PodInfo, node: NodeInfo, snapshot: Snapshot, plugins: Sequence[Plugin]) -> bool:
    state = CycleState(snapshot.with_node(node))
    if any(plugin.prepare(pod, state) is not None for plugin in plugins):
        return False
    return first_refusal(pod, node, state, plugins) is None


def _protected(pods: Iterable[PodInfo], budgets: Sequence[Object]) -> set[str]:
    """The pods whose end would break a disruption budget."""
    left = [int((b.get("status") or {}).get("disruptionsAllowed") or 0) for b in budgets]
    out: set[str] = set()
    for info in pods:
        pod = info.pod
        for index, budget in enumerate(budgets):
            selector = budget["spec"].get("selector")
            if not selector or budget["metadata"].get("namespace") != pod["metadata"].get("namespace"):
                continue
            if pod["metadata"]["name"] in ((budget.get("status") or {}).get("disruptedPods") or {}):
                continue
            if labels_from(selector).matches(pod["metadata"].get("labels") or {}):
                left[index] -= 1
                if left[index] < 0:
                    out.add(info.uid)
    return out
