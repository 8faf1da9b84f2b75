"""One decision: which node for this pod, or why none.

Owns: filtering, scoring and the wording of "does not fit". Called by: app. Never does: I/O; it is a pure function of pod and
snapshot. Source: scheduler/schedule_one.go and framework.FitError.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from k1s.server.scheduler.plugin import CycleState, Plugin, Refusal
from k1s.server.scheduler.snapshot import NodeInfo, PodInfo, Snapshot

NO_NODES = "no nodes available to schedule pods"


@dataclass(frozen=True, slots=True)
class Placed:
    """The node that was chosen."""

    node: str


@dataclass(frozen=True, slots=True)
class Unfit:
    """No node takes the pod. `failed_by`: which plugins said no. `gated`: it was not looked at, by its own wish.

    `message` says that preemption does not help, `reasons` does not. `hopeful`: nodes where the end of other pods may help.
    """

    message: str
    failed_by: frozenset[str]
    gated: bool = False
    reasons: str = ""
    hopeful: tuple[str, ...] = ()


def schedule(pod: PodInfo, snapshot: Snapshot, plugins: Sequence[Plugin]) -> Placed | Unfit:
    """Filter, then score; the highest sum wins, the first by name among equals."""
    state = CycleState(snapshot)
    for plugin in plugins:
        refusal = plugin.prepare(pod, state)
        if refusal is not None:
            if plugin.name == "SchedulingGates":
                return Unfit(", ".join(refusal.reasons), frozenset({plugin.name}), gated=True)
            return _nowhere(len(snapshot), plugin.name, refusal)
    if not len(snapshot):
        return Unfit(NO_NODES, frozenset(plugin.name for plugin in plugins))
    fitting: list[NodeInfo] = []
    refusals: list[tuple[str, Refusal]] = []
    hopeful: list[str] = []
    for node in snapshot.nodes():
        refused = first_refusal(pod, snapshot.seen_by(pod, node), state, plugins)
        if refused is None:
            fitting.append(node)
        else:
            refusals.append(refused)
            if not refused[1].unresolvable:
                hopeful.append(node.name)
    if not fitting:
        reasons = _reasons(len(snapshot), refusals)
        failed_by = frozenset(name for name, _ in refusals)
        return Unfit(_message(len(snapshot), refusals, reasons), failed_by, reasons=reasons, hopeful=tuple(hopeful))
    nominated = snapshot.nomination(pod.uid)
    if any(node.name == nominated for node in fitting):
        return Placed(nominated or "")
    if len(fitting) == 1:
        return Placed(fitting[0].name)
    return Placed(_best(pod, fitting, state, plugins))


def _nowhere(nodes: int, plugin: str, refusal: Refusal) -> Unfit:
    """What holds for every node alike."""
    reasons = f"0/{nodes} nodes are available: {', '.join(refusal.reasons)}."
    message = f"{reasons} preemption: 0/{nodes} nodes are available: {nodes} Preemption is not helpful for scheduling."
    return Unfit(message, frozenset({plugin}), reasons=reasons)


def first_refusal(pod: PodInfo, node: NodeInfo, state: CycleState, plugins: Sequence[Plugin]) -> tuple[str, Refusal] | None:
    """The first plugin that does not let the pod onto the node."""
    for plugin in plugins:
        refusal = plugin.filter(pod, node, state)
        if refusal is not None:
            return plugin.name, refusal
    return None


def _best(pod: PodInfo, nodes: list[NodeInfo], state: CycleState, plugins: Sequence[Plugin]) -> str:
    totals = dict.fromkeys((node.name for node in nodes), 0)
    for plugin in plugins:
        if plugin.weight:
            scores = {node.name: plugin.score(pod, node, state) for node in nodes}
            plugin.normalize(scores, state)
            for name, score in scores.items():
                totals[name] += plugin.weight * score
    return max(totals, key=lambda name: totals[name])


def _reasons(nodes: int, refusals: list[tuple[str, Refusal]]) -> str:
    """`0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`"""
    counts = Counter(reason for _, refusal in refusals for reason in refusal.reasons)
    reasons = ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))
    return f"0/{nodes} nodes are available: {reasons}."


def _message(nodes: int, refusals: list[tuple[str, Refusal]], reasons: str) -> str:
    """The reasons, and why other pods were left alone."""
    hopeless = sum(refusal.unresolvable for _, refusal in refusals)
    preemption = []
    if nodes - hopeless:
        preemption.append(f"{nodes - hopeless} No preemption victims found for incoming pod")
    if hopeless:
        preemption.append(f"{hopeless} Preemption is not helpful for scheduling")
    return f"{reasons} preemption: 0/{nodes} nodes are available: {', '.join(preemption)}."
