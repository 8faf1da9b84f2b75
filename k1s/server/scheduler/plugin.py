"""What a scheduling plugin is.

Owns: the protocol and the state of one scheduling cycle. Implemented by: plugins/. Called by: cycle.
Never does: decide. Names are upstream's, because they appear in events and metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from k1s.server.scheduler.snapshot import NodeInfo, PodInfo, Snapshot

Object = Mapping[str, Any]
MAX_SCORE = 100

# What may change so that a pod fits which did not. A pod change is of the pod itself or of one already placed.
EventKind = Literal["node-added", "node-updated", "pod-added", "pod-updated", "pod-removed", "storage-changed"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a node does not take the pod. `reasons` are upstream's words, one event counts nodes per reason.

    `unresolvable`: removing other pods from the node would not help.
    """

    reasons: tuple[str, ...]
    unresolvable: bool = False


@dataclass(slots=True)
class CycleState:
    """What plugins compute once per pod and use for every node."""

    snapshot: Snapshot
    values: dict[str, Any] = field(default_factory=dict)


class Plugin(Protocol):
    """All methods are pure. A plugin that does not filter or score inherits what says so from `BasePlugin`."""

    name: str
    weight: int
    wakes_on: frozenset[EventKind]

    def prepare(self, pod: PodInfo, state: CycleState) -> Refusal | None: ...
    def filter(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> Refusal | None: ...
    def score(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> int: ...
    def normalize(self, scores: dict[str, int], state: CycleState) -> None: ...


class BasePlugin:
    """Filters nothing, scores nothing (weight 0)."""

    name = ""
    weight = 0
    wakes_on: frozenset[EventKind] = frozenset()

    def prepare(self, pod: PodInfo, state: CycleState) -> Refusal | None:
        return None

    def filter(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> Refusal | None:
        return None

    def score(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> int:
        return 0

    def normalize(self, scores: dict[str, int], state: CycleState) -> None:
        return None


def scale_to_max(scores: dict[str, int], *, reverse: bool = False) -> None:
    """Stretch raw scores so that the largest is MAX_SCORE (helper.DefaultNormalizeScore)."""
    top = max(scores.values(), default=0)
    for name, score in scores.items():
        value = MAX_SCORE * score // top if top else 0
        scores[name] = MAX_SCORE - value if reverse else value
