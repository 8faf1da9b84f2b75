"""Which objects belong to an owner: adoption and release by selector.

Owns: `claim` (the decision, pure) and `Claimer` (carries it out). Called by: controllers whose objects are chosen by a selector.
Never does: delete.
Source: upstream's controller_ref_manager: an orphan that matches is adopted unless it or the owner is being deleted; an owned
object that no longer matches is released.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from k1s.api import meta
from k1s.api.catalog import Resource
from k1s.api.errors import ApiError
from k1s.api.selectors import LabelSelector
from k1s.client.interface import Client, Object


@dataclass(slots=True)
class Claims:
    keep: list[Object] = field(default_factory=list)
    adopt: list[Object] = field(default_factory=list)
    release: list[Object] = field(default_factory=list)


def claim(owner: Object, selector: LabelSelector, owned: Iterable[Object], orphans: Iterable[Object]) -> Claims:
    out = Claims()
    going = meta.is_deleting(owner)
    for obj in owned:
        if selector.matches(meta.labels(obj)):
            out.keep.append(obj)
        elif not going:
            out.release.append(obj)
    if not going:
        out.adopt = [o for o in orphans if not meta.is_deleting(o) and selector.matches(meta.labels(o))]
    return out


async def apply_claims(
    client: Client, claims: Claims, owner: Object, owner_resource: Resource, resource: Resource
) -> list[Object]:
    """Adopt and release; returns what the owner has now. Objects that vanished meanwhile are passed over."""
    mine = list(claims.keep)
    if claims.adopt and await _may_adopt(client, owner, owner_resource):
        reference = meta.owner_reference(owner, owner_resource)
        for obj in claims.adopt:
            adopted = await _set_owners(client, resource, obj, [*meta.owner_references(obj), reference])
            if adopted is not None:
                mine.append(adopted)
    for obj in claims.release:
        others = [r for r in meta.owner_references(obj) if r["uid"] != meta.uid(owner)]
        await _set_owners(client, resource, obj, others)
    return mine


async def _may_adopt(client: Client, owner: Object, resource: Resource) -> bool:
    """Ask the server, not the cache: an owner that is going away or was replaced must not adopt."""
    live = await client.get(resource, meta.name(owner), meta.namespace(owner))
    return meta.uid(live) == meta.uid(owner) and not meta.is_deleting(live)


async def _set_owners(client: Client, resource: Resource, obj: Object, owners: list[Object]) -> Object | None:
    change = {"uid": meta.uid(obj), "resourceVersion": meta.resource_version(obj), "ownerReferences": owners}
    try:
        return await client.patch(resource, meta.name(obj), meta.namespace(obj), {"metadata": change})
    except ApiError as error:
        if error.code == 404:
            return None
        raise
