"""Deployments, daemon sets, replication controllers: generations and old habits.

Owns: Deployment, DaemonSet, ReplicationController. Called by: strategies/table. Never does: roll anything out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.server.apiserver.strategies.base import Strategy

if TYPE_CHECKING:
    from k1s.server.apiserver.call import Call

Object = dict[str, Any]

_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


class Deployment(Strategy):
    """Changed annotations count as a new generation too: the controller copies them to replica sets."""

    generation_fields = ("spec",)

    def prepare_update(self, call: Call, obj: Object, old: Object) -> None:
        super().prepare_update(call, obj, old)
        meta, before = obj["metadata"], old["metadata"]
        if meta.get("generation") == before.get("generation") and (meta.get("annotations") or {}) != (
            before.get("annotations") or {}
        ):
            meta["generation"] = (before.get("generation") or 0) + 1

    def reset_status(self, obj: Object, old: Object) -> None:
        super().reset_status(obj, old)
        if "labels" in old["metadata"]:
            obj["metadata"]["labels"] = old["metadata"]["labels"]
        else:
            obj["metadata"].pop("labels", None)


class DaemonSet(Strategy):
    """Counts changes of its template in an annotation, for clients of the time before controller revisions."""

    generation_fields = ("spec",)

    def prepare_create(self, call: Call, obj: Object) -> None:
        super().prepare_create(call, obj)
        _annotate(obj, "1")

    def prepare_update(self, call: Call, obj: Object, old: Object) -> None:
        super().prepare_update(call, obj, old)
        count = (old["metadata"].get("annotations") or {}).get(_TEMPLATE_GENERATION, "1")
        changed = (obj.get("spec") or {}).get("template") != (old.get("spec") or {}).get("template")
        _annotate(obj, str(int(count) + 1) if changed and count.isdigit() else count)


def _annotate(obj: Object, count: str) -> None:
    meta = obj["metadata"]
    meta["annotations"] = {**(meta.get("annotations") or {}), _TEMPLATE_GENERATION: count}


class ReplicationController(Strategy):
    """Deleting one leaves its pods unless the client says otherwise: so it was in v1, so it stays."""

    generation_fields = ("spec",)
    orphans_by_default = True
