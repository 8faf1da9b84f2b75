"""managedFields of a workload as those of its Scale, and back.

Owns: to_scale, to_parent. Called by: the scale subresource. Never does: own anything itself.
Upstream: apimachinery/pkg/util/managedfields/scalehandler.go. Who owns the replicas of the one owns those of the other;
`paths` maps each apiVersion of the workload to where its replicas stand (() where it has none).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k1s.api.field_set import FieldSet, Path, difference, field_element, has, insert, union
from k1s.api.managed_fields import Managers, Owned, decode, encode

Object = dict[str, Any]

SCALE_VERSION = "autoscaling/v1"
_REPLICAS: Path = ("f:spec", "f:replicas")


def path_of(dotted: str) -> Path:
    """`.spec.replicas` as a path of fields."""
    return tuple(field_element(part) for part in dotted.split(".") if part)


def _set_of(path: Path) -> FieldSet:
    out: FieldSet = {}
    insert(out, path)
    return out


def _decoded(entries: Any) -> Managers:
    try:
        return decode(entries)
    except (ValueError, AttributeError, TypeError):
        return Managers()


def to_scale(parent: Any, paths: Mapping[str, Path]) -> list[Object]:
    """The entries that own replicas, as entries of a Scale."""
    out = Managers()
    for manager, owned in _decoded(parent).entries.items():
        path = paths.get(owned.api_version)
        if path and has(owned.fields, path):
            # Updaters keep the version in their identity, whatever the Scale's is.
            out.entries[manager] = Owned(_set_of(_REPLICAS), SCALE_VERSION, owned.time)
    return encode(out)


def to_parent(parent: Any, scale: Any, paths: Mapping[str, Path], api_version: str) -> list[Object]:
    """The workload's entries after a write to its Scale, whose entries are `scale`."""
    before, after = _decoded(parent), _decoded(scale)
    by_name = {(m.name, m.operation, m.subresource): m for m in after.entries}
    out = Managers()
    for manager, owned in before.entries.items():
        path = paths.get(owned.api_version)
        if not path or not has(owned.fields, path):
            out.entries[manager] = owned
            continue
        kept = by_name.pop((manager.name, manager.operation, manager.subresource), None)
        if kept is not None:
            out.entries[manager] = owned
            del after.entries[kept]
            continue
        left = difference(owned.fields, _set_of(path))
        if left:
            out.entries[manager] = Owned(left, owned.api_version, owned.time)
    for manager, owned in after.entries.items():
        if has(owned.fields, _REPLICAS):
            here = manager._replace(api_version=api_version if manager.api_version else "")
            fields = _set_of(paths[api_version])
            there = out.entries.get(here)
            out.entries[here] = Owned(union(there.fields, fields) if there else fields, api_version, owned.time)
    return encode(out)
