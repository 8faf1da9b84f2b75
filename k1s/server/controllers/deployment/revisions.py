"""Which ReplicaSet is the Deployment's current one, and the numbered history of the others.

Owns: template hash and equality, revision and size annotations, the ReplicaSet to create, which old ones to forget (all pure).
Called by: deployment/plan. Never does: I/O.
Source: upstream pkg/controller/deployment/util.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.clone import clone
from k1s.client.interface import Object

DEPLOYMENT = builtin("Deployment")
REPLICA_SET = builtin("ReplicaSet")

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = frozenset(
    (
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        "deprecated.deployment.rollback.to",
    )
)
_MAX_HISTORY = 2000
# No vowels and none of 0, 1, 3: no words, no mistaken characters (upstream's SafeEncodeString).
_SAFE = "bcdfghjklmnpqrstvwxz2456789"


def template_hash(template: Object, collisions: int | None) -> str:
    """FNV-1a (32 bits) of the template's canonical JSON and the collision count, in safe characters."""
    digest = 0x811C9DC5
    data = orjson.dumps(_plain(template), option=orjson.OPT_SORT_KEYS)
    if collisions is not None:
        data += collisions.to_bytes(8, "little")
    for byte in data:
        digest = ((digest ^ byte) * 0x01000193) & 0xFFFFFFFF
    return "".join(_SAFE[ord(c) % len(_SAFE)] for c in str(digest))


def _plain(template: Object) -> Object:
    """The template without what the controller or the server adds to it."""
    metadata = {k: v for k, v in (template.get("metadata") or {}).items() if v and k != "creationTimestamp"}
    if HASH_LABEL in metadata.get("labels", {}):
        labels = {k: v for k, v in metadata["labels"].items() if k != HASH_LABEL}
        metadata = {**metadata, "labels": labels}
        if not labels:
            del metadata["labels"]
    return {"metadata": metadata, "spec": template.get("spec") or {}}


def oldest_first(sets: Iterable[Object]) -> list[Object]:
    return sorted(sets, key=lambda rs: (meta.metadata(rs).get("creationTimestamp") or "", meta.name(rs)))


def split(deployment: Object, sets: Sequence[Object]) -> tuple[Object | None, list[Object]]:
    """(the set with the Deployment's template, all others), oldest first."""
    wanted = _plain(deployment["spec"]["template"])
    ordered = oldest_first(sets)
    current = next((rs for rs in ordered if _plain(rs["spec"]["template"]) == wanted), None)
    return current, [rs for rs in ordered if rs is not current]


def revision(obj: Object) -> int:
    text = meta.annotations(obj).get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def next_revision(old: Iterable[Object]) -> int:
    return max((revision(rs) for rs in old), default=0) + 1


def annotations_for(deployment: Object, current: Object | None, new_revision: int) -> dict[str, str]:
    """The annotations the current set should have: the Deployment's, its revision, and the revisions it had before."""
    out = dict(meta.annotations(current)) if current is not None else {}
    for name, value in meta.annotations(deployment).items():
        if name not in _NOT_COPIED:
            out[name] = value
    had = revision(current) if current is not None else 0
    if had < new_revision:
        if had:
            history = [r for r in out.get(REVISION_HISTORY, "").split(",") if r]
            history.append(str(had))
            while history and len(",".join(history)) > _MAX_HISTORY:
                history.pop(0)
            out[REVISION_HISTORY] = ",".join(history)
        out[REVISION] = str(new_revision)
    return out


def new_replica_set(deployment: Object, replicas: int, annotations: dict[str, str]) -> Object:
    """The set to create for the Deployment's template."""
    spec = deployment["spec"]
    suffix = template_hash(spec["template"], (deployment.get("status") or {}).get("collisionCount"))
    template = clone(spec["template"])
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels[HASH_LABEL] = suffix
    selector = clone(spec["selector"])
    selector.setdefault("matchLabels", {})[HASH_LABEL] = suffix
    new: Object = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta.name(deployment)}-{suffix}",
            "namespace": meta.namespace(deployment),
            "labels": dict(labels),
            "annotations": annotations,
            "ownerReferences": [meta.owner_reference(deployment, DEPLOYMENT)],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    }
    if spec.get("minReadySeconds"):
        new["spec"]["minReadySeconds"] = spec["minReadySeconds"]
    return new


def to_forget(deployment: Object, old: Sequence[Object]) -> list[Object]:
    """Old sets beyond revisionHistoryLimit that hold nothing any more."""
    limit = deployment["spec"].get("revisionHistoryLimit")
    alive = [rs for rs in old if not meta.is_deleting(rs)]
    if limit is None or len(alive) <= limit:
        return []
    by_age = sorted(alive, key=lambda rs: (revision(rs), meta.metadata(rs).get("creationTimestamp") or ""))
    return [rs for rs in by_age[: len(alive) - limit] if _is_empty(rs)]


def _is_empty(rs: Object) -> bool:
    status = rs.get("status") or {}
    seen = status.get("observedGeneration", 0) >= meta.generation(rs)
    return seen and not status.get("replicas") and not rs["spec"].get("replicas", 1)
