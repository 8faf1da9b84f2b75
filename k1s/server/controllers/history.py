"""ControllerRevisions: the numbered templates of StatefulSets and DaemonSets.

Owns: `choose` (pure): which revision is the current template's, or the one to create, and which to forget; `Revisions`, which
carries it out. Called by: statefulset, daemonset. Never does: look at pods.
Source: upstream pkg/controller/history.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from k1s.api import meta
from k1s.api.catalog import Resource, builtin
from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.client.interface import Client, Object
from k1s.server.controllers.deployment.revisions import template_hash

CONTROLLER_REVISION = builtin("ControllerRevision")
HASH_LABEL = "controller-revision-hash"


@dataclass(slots=True)
class Choice:
    """`current` stands for the owner's template; it is to be created if `create`, or given `renumber` as its new number."""

    current: Object
    create: bool = False
    renumber: int = 0
    delete: list[Object] = field(default_factory=list)


def data_of(owner: Object) -> Object:
    """What a revision keeps: the pod template, as a patch that replaces it whole."""
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def template_of(revision: Object) -> Object:
    template: Object = clone(revision["data"]["spec"]["template"])
    template.pop("$patch", None)
    return template


def choose(owner: Object, resource: Resource, existing: Sequence[Object], in_use: Collection[str]) -> Choice:
    """`existing`: the owner's revisions; `in_use`: names that pods or the status still refer to."""
    ordered = sorted(existing, key=lambda r: (r.get("revision", 0), meta.name(r)))
    number = (ordered[-1].get("revision", 0) if ordered else 0) + 1
    wanted = data_of(owner)
    equal = [r for r in ordered if r.get("data") == wanted]
    if equal:
        choice = Choice(equal[-1], renumber=0 if equal[-1] is ordered[-1] else number)
    else:
        choice = Choice(_new(owner, resource, wanted, number), create=True)
    limit = owner["spec"].get("revisionHistoryLimit", 10)
    idle = [r for r in ordered if meta.name(r) not in in_use and r is not choice.current]
    choice.delete = idle[: max(len(idle) - limit, 0)]
    return choice


def _new(owner: Object, resource: Resource, data: Object, number: int) -> Object:
    suffix = template_hash(owner["spec"]["template"], (owner.get("status") or {}).get("collisionCount"))
    labels = {**meta.labels(owner["spec"]["template"]), HASH_LABEL: suffix}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{meta.name(owner)}-{suffix}",
            "namespace": meta.namespace(owner),
            "labels": labels,
            "annotations": {k: v for k, v in meta.annotations(owner).items() if not k.startswith("kubectl.kubernetes.io/last-")},
            "ownerReferences": [meta.owner_reference(owner, resource)],
        },
        "data": clone(data),
        "revision": number,
    }


def hash_of(revision: Object) -> str:
    return meta.labels(revision).get(HASH_LABEL, "")


class HashCollision(ApiError):
    """Another template has the same name: the owner's collisionCount must grow."""

    def __init__(self, name: str) -> None:
        super().__init__(409, "AlreadyExists", f"controllerrevisions.apps {name!r} holds another template")


async def apply_choice(client: Client, owner: Object, choice: Choice) -> Object:
    """Carry out; returns the revision as the server has it. Raises HashCollision."""
    current = choice.current
    namespace, name = meta.namespace(current), meta.name(current)
    if choice.create:
        try:
            current = await client.create(CONTROLLER_REVISION, current)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            found = await client.get(CONTROLLER_REVISION, name, namespace)
            if found.get("data") != current["data"] or not meta.controlled_by(found, owner):
                raise HashCollision(name) from error
            current = found  # made a moment ago: only the cache does not show it yet
    elif choice.renumber:
        patch = {"metadata": {"resourceVersion": meta.resource_version(current)}, "revision": choice.renumber}
        current = await client.patch(CONTROLLER_REVISION, name, namespace, patch)
    for old in choice.delete:
        try:
            await client.delete(CONTROLLER_REVISION, meta.name(old), namespace, uid=meta.uid(old))
        except ApiError as error:
            if error.code != 404:
                raise
    return current
