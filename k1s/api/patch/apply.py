"""Server-side apply: merge what a manager wants, keep what is others', remove what it wanted before and no longer does.

Owns: apply(), conflicts and their wording, the migration from client-side apply.
Called by: the patch handler. Never does: defaults, pruning, validation of values.
Upstream: structured-merge-diff/merge/update.go, managedfields/internal/{lastappliedmanager,lastappliedupdater}.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from k1s.api import managed_fields as managed
from k1s.api import meta
from k1s.api.clone import clone
from k1s.api.errors import ApiError, apply_conflict, bad_request
from k1s.api.field_set import FieldSet, difference, intersection, path_text, paths, recursive_difference, union
from k1s.api.managed_fields import Manager, Managers
from k1s.api.patch.typed_merge import check_applied, merge, remove_items
from k1s.api.schema import Schema
from k1s.api.typed import ABSENT, TypeMismatch, compare, ensure_named, to_field_set

Object = dict[str, Any]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
# The manager that kubectl's --server-side uses by default, and the only one the migration is for.
_KUBECTL = "kubectl"


class _Conflicts(Exception):
    def __init__(self, owners: dict[Manager, FieldSet]) -> None:
        super().__init__()
        self.owners = owners


def apply(
    live: Object | None,
    applied: Object,
    *,
    manager: str,
    force: bool,
    schema: Schema,
    api_version: str,
    now: str,
    subresource: str = "",
    reset_fields: Sequence[str] | None = None,
) -> Object:
    """The new object with its managedFields. `live` must be in `api_version`; None: it does not exist yet.

    ApiError 400 if the configuration is no good, 409 on conflicts. If it changes nothing the result equals `live`.
    """
    _check(applied, schema, api_version)
    applied = clone(applied)
    if "creationTimestamp" in (applied.get("metadata") or {}):
        # `kubectl create --dry-run` writes null there; nobody may set it anyway.
        del applied["metadata"]["creationTimestamp"]
    base = managed.without_managed_fields(live or {})
    try:
        managers = managed.decode(meta.metadata(live or {}).get("managedFields"))
    except (ValueError, AttributeError, TypeError):
        managers = Managers()
    actor = managed.manager_of(manager, managed.APPLY, api_version, subresource)
    ignored = managed.ignored_fields(reset_fields, schema, subresource)
    if not managers.entries and base:
        first = managed.manager_of(managed.BEFORE_FIRST_APPLY, managed.UPDATE, api_version, subresource)
        managed.update(managers, {}, base, first, schema, {}, api_version, now)
    former = managers.copy()
    run = _Apply(base, applied, schema, ignored, actor, api_version)
    try:
        new = run.merge(managers, force)
    except _Conflicts as conflicts:
        if not _only_client_side(conflicts, base, schema, manager):
            raise _conflict_error(_not_allowed(conflicts, base, schema, manager)) from None
        managers = former.copy()
        new = run.merge(managers, True)
    if new != base or not managers.same_fields(former):
        if actor in managers.entries:
            managers.set_time(actor, now)
    out: Object = clone(new)
    if manager == _KUBECTL and LAST_APPLIED in meta.annotations(out):
        out["metadata"]["annotations"][LAST_APPLIED] = _last_applied_text(applied)
    managed.store(out, managers)
    return out


def _check(applied: Object, schema: Schema, api_version: str) -> None:
    version = applied.get("apiVersion")
    if version != api_version:
        text = f"Specified patch version: {version or ''}, expected: {api_version}"
        raise bad_request(f"Incorrect version specified in apply patch. {text}")
    if meta.metadata(applied).get("managedFields") is not None:
        raise bad_request("metadata.managedFields must be nil")
    try:
        check_applied(applied, schema)
    except TypeMismatch as fault:
        group = f"{meta.namespace(applied)}/{meta.name(applied)}; {api_version}, Kind={applied.get('kind', '')}"
        raise bad_request(f"failed to create typed patch object ({group}): {fault}") from None


class _Apply:
    """One configuration laid over one object; may run twice, without and with force."""

    def __init__(
        self, live: Object, applied: Object, schema: Schema, ignored: FieldSet, actor: Manager, api_version: str
    ) -> None:
        self._live, self._applied, self._schema = live, applied, schema
        self._ignored, self._actor, self._api_version = ignored, actor, api_version

    def merge(self, managers: Managers, force: bool) -> Object:
        """The new object; `managers` is brought up to date. Raises _Conflicts."""
        actor, schema = self._actor, self._schema
        previous = managers.entries.get(actor)
        last = previous.fields if previous is not None else {}
        mine = recursive_difference(to_field_set(self._applied, schema), self._ignored)
        merged: Object = merge(self._live, self._applied, schema)
        managers.entries[actor] = managed.Owned(mine, self._api_version, previous.time if previous is not None else "")
        # Where nothing was dropped from the configuration there is nothing to take away.
        new = self._prune(merged, managers, last) if difference(last, mine) else merged
        change = compare(self._live, new, schema)
        if not change.same:
            conflicts = managed.settle(managers, change, self._ignored, actor)
            if conflicts and not force:
                raise _Conflicts(conflicts)
            managed.take_over(managers, conflicts, change, self._ignored, actor)
        managers.set_fields(actor, managed.strip(mine), self._api_version)
        return new

    def _prune(self, merged: Object, managers: Managers, last: FieldSet) -> Object:
        """Without what this manager applied last time, does not apply now, and nobody else owns."""
        schema = self._schema
        named_last = ensure_named(last, schema)
        pruned = _object(remove_items(merged, named_last, schema))
        owned: FieldSet = {}
        for entry in managers.entries.values():
            owned = union(owned, entry.fields)
        all_fields = ensure_named(to_field_set(merged, schema), schema)
        left = ensure_named(to_field_set(pruned, schema), schema)
        # Give back what others, or the new configuration, own.
        unowned = difference(all_fields, union(left, ensure_named(owned, schema)))
        pruned = _object(remove_items(merged, unowned, schema))
        # And what the manager never owned: removing an item must not take along what others put beside it.
        left = ensure_named(to_field_set(pruned, schema), schema)
        gone = intersection(difference(all_fields, left), named_last)
        return _object(remove_items(merged, gone, schema))


def _object(value: Any) -> Object:
    return {} if value is ABSENT else value


def _conflict_error(owners: dict[Manager, FieldSet]) -> ApiError:
    found = [(manager.shown(), path_text(path)) for manager in sorted(owners) for path in paths(owners[manager])]
    causes = [{"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": path} for manager, path in found]
    if len(found) == 1:
        return apply_conflict(f"Apply failed with 1 conflict: conflict with {found[0][0]}: {found[0][1]}", causes)
    lines: list[str] = []
    for name in dict.fromkeys(manager for manager, _ in found):
        lines.append(f"conflicts with {name}:")
        lines += [f"- {path}" for manager, path in found if manager == name]
    return apply_conflict(f"Apply failed with {len(found)} conflicts: " + "\n".join(lines), causes)


def _not_allowed(conflicts: _Conflicts, live: Object, schema: Schema, manager: str) -> dict[Manager, FieldSet]:
    """The conflicts that remain when those with client-side apply are let pass."""
    allowed = _client_side_fields(live, schema) if manager == _KUBECTL else {}
    left = {owner: difference(fields, allowed) for owner, fields in conflicts.owners.items()}
    return {owner: fields for owner, fields in left.items() if fields}


def _only_client_side(conflicts: _Conflicts, live: Object, schema: Schema, manager: str) -> bool:
    return manager == _KUBECTL and not _not_allowed(conflicts, live, schema, manager)


def _client_side_fields(live: Object, schema: Schema) -> FieldSet:
    """What kubectl's client-side apply set and nobody changed since: it may become its server-side apply's."""
    text = meta.annotations(live).get(LAST_APPLIED)
    if not text:
        return {}
    try:
        last = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(last, dict) or last.get("apiVersion") != live.get("apiVersion"):
        return {}
    change = compare(live, last, schema)
    changed = union(union(change.modified, change.added), change.removed)
    return difference(to_field_set(last, schema), changed)


def _last_applied_text(applied: Object) -> str:
    """The annotation that client-side apply would have written, so that one can go back to it."""
    config = managed.without_managed_fields(applied)
    metadata = dict(config.get("metadata") or {})
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != LAST_APPLIED}
    metadata["annotations"] = annotations
    return orjson.dumps({**config, "metadata": metadata}, option=orjson.OPT_SORT_KEYS).decode() + "\n"
