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
from k1s.api import meta, ownership
from k1s.api.clone import clone
from k1s.api.errors import ApiError, apply_conflict, bad_request
from k1s.api.field_set import FieldSet, difference, intersection, path_text, paths, union
from k1s.api.managed_fields import Manager, Managers
from k1s.api.patch.typed_merge import check_applied, merge, remove_items
from k1s.api.schema import Schema
from k1s.api.typed import ABSENT, compare, ensure_named, to_field_set

Object = dict[str, Any]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
# What all annotations of an object may add up to.
MAX_ANNOTATIONS = 256 * 1024
# The manager that kubectl's --server-side uses by default, and the only one the migration is for.
_KUBECTL = "kubectl"


class _Conflicts(Exception):
    def __init__(self, owners: dict[Manager, FieldSet]) -> None:
        super().__init__()
        self.owners = owners


def apply_steps(
    live: Object | None,
    applied: Object,
    *,
    manager: str,
    force: bool,
    schema: Schema,
    api_version: str,
    now: str,
    subresource: str = "",
    reset_fields: ownership.Reset | Sequence[str] | None = None,
    schemas: ownership.Schemas | None = None,
) -> ownership.Steps[Object]:
    """The new object with its managedFields. `live` must be in `api_version`; None: it does not exist yet.

    ApiError 400 if the configuration is no good, 409 on conflicts. If it changes nothing the result equals `live`.
    """
    applied = _checked(applied, schema, api_version)
    base = managed.without_managed_fields(live or {})
    try:
        managers = managed.decode(meta.metadata(live or {}).get("managedFields"))
    except (ValueError, AttributeError, TypeError):
        managers = Managers()
    known = schemas or (lambda version: schema)
    if not schema.builtin:
        ownership.reconciled(managers, known)
    actor = managed.manager_of(manager, managed.APPLY, api_version, subresource)
    reset = ownership.resetting(reset_fields, schema, subresource)
    if not managers.entries and base:
        first = managed.manager_of(managed.BEFORE_FIRST_APPLY, managed.UPDATE, api_version, subresource)
        ownership.update(
            managers, ownership.Change({}, base, schema, api_version, ownership.keep_all, known), first, api_version, now
        )
    former = managers.copy()
    run = _Apply(base, applied, schema, reset, actor, api_version, known)
    try:
        new = yield from run.merge(managers, force)
    except _Conflicts as conflicts:
        if not _only_client_side(conflicts, base, schema, manager):
            raise _conflict_error(_not_allowed(conflicts, base, schema, manager)) from None
        managers = former.copy()
        new = yield from run.merge(managers, True)
    if new != base or not managers.same_fields(former):
        if actor in managers.entries:
            managers.set_time(actor, now)
    out: Object = clone(new)
    if manager == _KUBECTL and meta.annotations(out).get(LAST_APPLIED):
        _set_last_applied(out, applied)
    managed.store(out, managers)
    return out


def apply(live: Object | None, applied: Object, **options: Any) -> Object:
    """apply_steps for a kind with one version."""
    return ownership.finish(apply_steps(live, applied, **options))


def _checked(applied: Object, schema: Schema, api_version: str) -> Object:
    """A copy of a good configuration. Raises ApiError 400."""
    version = applied.get("apiVersion")
    if version != api_version:
        text = f"Specified patch version: {version or ''}, expected: {api_version}"
        raise bad_request(f"Incorrect version specified in apply patch. {text}")
    given = applied.get("metadata")
    metadata = given if isinstance(given, dict) else {}
    if metadata.get("managedFields") is not None:
        raise bad_request("metadata.managedFields must be nil")
    faults = check_applied(applied, schema)
    if faults:
        group = version if "/" in version else f"/{version}"
        what = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}; {group}, Kind={applied.get('kind', '')}"
        text = faults[0] if len(faults) == 1 else "\n  ".join(["errors:", *faults])
        raise bad_request(f"failed to create typed patch object ({what}): {text}")
    out: Object = clone(applied)
    # `kubectl create --dry-run` writes null there; nobody may set it anyway.
    (out.get("metadata") or {}).pop("creationTimestamp", None)
    return out


class _Apply:
    """One configuration laid over one object; may run twice, without and with force."""

    def __init__(
        self,
        live: Object,
        applied: Object,
        schema: Schema,
        reset: ownership.Reset,
        actor: Manager,
        api_version: str,
        schemas: ownership.Schemas,
    ) -> None:
        self._live, self._applied, self._schema = live, applied, schema
        self._reset, self._actor, self._api_version, self._schemas = reset, actor, api_version, schemas

    def merge(self, managers: Managers, force: bool) -> ownership.Steps[Object]:
        """The new object; `managers` is brought up to date. Raises _Conflicts."""
        actor, schema = self._actor, self._schema
        previous = managers.entries.get(actor)
        mine = self._reset(to_field_set(self._applied, schema))
        new: Object = merge(self._live, self._applied, schema)
        managers.entries[actor] = managed.Owned(mine, self._api_version, previous.time if previous is not None else "")
        # Where nothing was dropped from the configuration there is nothing to take away.
        if previous is not None and (previous.api_version != self._api_version or difference(previous.fields, mine)):
            new = yield from self._prune(new, managers, previous)
            # Lists and maps that are applied empty went with what they held.
            new = merge(new, self._applied, schema)
        change = ownership.Change(self._live, new, schema, self._api_version, self._reset, self._schemas)
        if not change.main.same:
            yield from change.load(managers)
            conflicts = ownership.settle(managers, change, actor)
            if conflicts and not force:
                raise _Conflicts(conflicts)
            ownership.take_over(managers, conflicts, change, actor)
        managers.set_fields(actor, ownership.strip(mine), self._api_version)
        return new

    def _prune(self, merged: Object, managers: Managers, last: managed.Owned) -> ownership.Steps[Object]:
        """Without what this manager applied last time, does not apply now, and nobody else owns."""
        version = last.api_version
        schema = self._schemas(version)
        if schema is None:
            return merged
        then = yield from self._in(merged, self._api_version, version)
        named_last = ensure_named(last.fields, schema)
        pruned = _object(remove_items(then, named_last, schema))
        # Give back what others, or the new configuration, own; what stands in the version of old first.
        owned: dict[str, FieldSet] = {version: {}}
        for entry in managers.entries.values():
            owned[entry.api_version] = union(owned.get(entry.api_version, {}), entry.fields)
        whole, at = then, version
        for other, fields in owned.items():
            types = self._schemas(other)
            if types is None:
                continue
            whole = yield from self._in(whole, at, other)
            pruned = yield from self._in(pruned, at, other)
            at = other
            left = ensure_named(to_field_set(pruned, types), types)
            unowned = difference(ensure_named(to_field_set(whole, types), types), union(left, ensure_named(fields, types)))
            pruned = _object(remove_items(whole, unowned, types))
        # And what the manager never owned: removing an item must not take along what others put beside it.
        pruned = yield from self._in(pruned, at, version)
        left = ensure_named(to_field_set(pruned, schema), schema)
        gone = intersection(difference(ensure_named(to_field_set(then, schema), schema), left), named_last)
        gone = difference(gone, ensure_named(owned[version], schema))
        return (yield from self._in(_object(remove_items(then, gone, schema)), version, self._api_version))

    def _in(self, obj: Object, version: str, wanted: str) -> ownership.Steps[Object]:
        if version == wanted:
            return obj
        return (yield obj, wanted)


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


def _set_last_applied(obj: Object, applied: Object) -> None:
    """Write the annotation that client-side apply would have written, so that one can go back to it."""
    config = managed.without_managed_fields(applied)
    metadata = dict(config.get("metadata") or {})
    if metadata.get("annotations") is not None:
        metadata["annotations"] = {key: value for key, value in metadata["annotations"].items() if key != LAST_APPLIED}
    annotations = obj["metadata"]["annotations"]
    annotations[LAST_APPLIED] = orjson.dumps({**config, "metadata": metadata}, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    if sum(len(key.encode()) + len(str(value).encode()) for key, value in annotations.items()) > MAX_ANNOTATIONS:
        del annotations[LAST_APPLIED]
