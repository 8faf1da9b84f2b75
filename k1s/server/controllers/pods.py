"""What controllers need to know about pods.

Owns: readiness, availability, activity of a pod; a pod made from a template; creating many with a slow start.
Called by: the workload controllers. Never does: decide how many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from k1s.api import meta
from k1s.api.catalog import Resource
from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.client.interface import Object
from k1s.server.controllers.reconciler import seconds_of

# As upstream's SlowStartInitialBatchSize and BurstReplicas.
FIRST_BATCH = 1
BURST = 500


def phase(pod: Object) -> str:
    return (pod.get("status") or {}).get("phase") or ""


def is_terminal(pod: Object) -> bool:
    return phase(pod) in ("Succeeded", "Failed")


def is_active(pod: Object) -> bool:
    return not is_terminal(pod) and not meta.is_deleting(pod)


def is_ready(pod: Object) -> bool:
    return meta.is_true(pod, "Ready")


def ready_since(pod: Object) -> float:
    """When the pod became ready; 0 if it is not."""
    found = meta.condition(pod, "Ready")
    if found is None or found.get("status") != "True":
        return 0.0
    return seconds_of(found.get("lastTransitionTime"))


def available_in(pod: Object, min_ready_seconds: int, now: float) -> float | None:
    """0 if the pod is available, the seconds until it will be, None while it is not ready."""
    if not is_ready(pod):
        return None
    return max(ready_since(pod) + min_ready_seconds - now, 0.0) if min_ready_seconds else 0.0


def from_template(template: Object, owner: Object, resource: Resource) -> Object:
    """A pod of `owner`, named by the server after it."""
    source = template.get("metadata") or {}
    metadata: Object = {"generateName": f"{meta.name(owner)}-", "namespace": meta.namespace(owner)}
    for field in ("labels", "annotations", "finalizers"):
        if source.get(field):
            metadata[field] = clone(source[field])
    metadata["ownerReferences"] = [meta.owner_reference(owner, resource)]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": clone(template.get("spec") or {})}


def namespace_is_terminating(error: ApiError) -> bool:
    """The refusal to create something in a namespace that is going away: nothing to report, nothing to try again."""
    causes: Sequence[dict[str, Any]] = (error.details or {}).get("causes") or ()
    return error.code == 403 and any(c.get("reason") == "NamespaceTerminating" for c in causes)


async def slow_start(count: int, create: Callable[[int], Awaitable[None]]) -> tuple[int, ApiError | None]:
    """Call create(0..count-1) in batches of 1, 2, 4, ... and stop after a batch with a failure.

    Returns how many succeeded and the first error: a quota that refuses one pod is asked once, not `count` times.
    """
    done, size = 0, FIRST_BATCH
    started = 0
    while started < count:
        batch = range(started, min(started + size, count))
        results = await asyncio.gather(*(create(number) for number in batch), return_exceptions=True)
        started = batch.stop
        errors = [r for r in results if isinstance(r, BaseException)]
        done += len(results) - len(errors)
        for error in errors:
            if not isinstance(error, ApiError):
                raise error
        if errors:
            return done, next(e for e in errors if isinstance(e, ApiError))
        size *= 2
    return done, None
