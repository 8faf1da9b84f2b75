"""Who owns which field after a write: the rules that updates and server-side apply share.

Owns: Change (what a write does to the object in every version somebody owns something of it in), taking over, track.
Called by: the apiserver after every create, update and patch (track_steps), patch/apply (the rest). Never does: merge objects.
Upstream: structured-merge-diff/merge/update.go, apimachinery/pkg/util/managedfields.
What has entries in other versions of the kind is compared in those, too: the generators (`Steps`) ask for the objects they need
converted, by (object, apiVersion), as only their caller knows how; `finish` drives one where nothing has to be converted.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from k1s.api import meta
from k1s.api.field_set import SELF, FieldSet, difference, field_element, insert, intersection, recursive_difference, union
from k1s.api.managed_fields import (
    UPDATE,
    Manager,
    Managers,
    Owned,
    cap,
    decode,
    manager_of,
    store,
    without_managed_fields,
)
from k1s.api.schema import Schema
from k1s.api.typed import Comparison, compare, reconcile

Object = dict[str, Any]
T = TypeVar("T")
# Yields what it wants converted and into which version, is sent the converted object, returns T.
Steps = Generator[tuple[Object, str], Object, T]
# The type of the kind in a version; None: there is no such version (any more).
Schemas = Callable[[str], Schema | None]
# Leaves of a set what a request to some endpoint can set.
Reset = Callable[[FieldSet], FieldSet]


def field_paths(*texts: str) -> FieldSet:
    """A set of dotted paths of fields: `metadata.labels`."""
    out: FieldSet = {}
    for text in texts:
        insert(out, tuple(field_element(name) for name in text.split(".")))
    return out


# What nobody owns: the system sets it.
_NEVER_OWNED = field_paths(
    "apiVersion",
    "kind",
    "metadata",
    "metadata.name",
    "metadata.namespace",
    "metadata.creationTimestamp",
    "metadata.selfLink",
    "metadata.uid",
    "metadata.clusterName",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
)


def keep_all(fields: FieldSet) -> FieldSet:
    """The Reset of an endpoint that takes everything."""
    return fields


def resetting(reset: Reset | Sequence[str] | None, schema: Schema, subresource: str) -> Reset:
    """Fields that this endpoint resets, so that a request owns none of them, by their paths or as what is left.

    The default: the main endpoint of a built-in kind resets status, the status endpoint spec.
    """
    if reset is None:
        reset = ("spec",) if subresource == "status" else ("status",) if schema.builtin and not subresource else ()
    if callable(reset):
        return reset
    if not reset:
        return keep_all
    gone = field_paths(*reset)
    return lambda fields: recursive_difference(fields, gone)


def included(pattern: Object) -> Reset:
    """Keeps what lies on or below the paths of the pattern: a trie in which "*" is any element and None everything below."""
    return lambda fields: _included(fields, pattern)


def _included(fields: FieldSet, pattern: Object) -> FieldSet:
    out: FieldSet = {}
    for element, node in fields.items():
        if element == SELF or (element not in pattern and "*" not in pattern):
            continue
        below = pattern[element] if element in pattern else pattern["*"]
        if below is None or not node:
            out[element] = node
            continue
        left = _included(node, below)
        if SELF in node:
            out[element] = {SELF: {}, **left} if left else {}
        elif left:
            out[element] = left
    return out


class Change:
    """What a write does to the object, in each version in which somebody owns something of it."""

    def __init__(self, old: Object, new: Object, schema: Schema, api_version: str, reset: Reset, schemas: Schemas) -> None:
        self._old, self._new, self._schemas, self.reset = old, new, schemas, reset
        self.main = compare(old, new, schema)
        self._by_version: dict[str, Comparison | None] = {api_version: self.main}

    def load(self, managers: Managers) -> Steps[None]:
        """Compare in the versions of all entries."""
        for owned in list(managers.entries.values()):
            version = owned.api_version
            if version in self._by_version:
                continue
            schema = self._schemas(version)
            if schema is None:
                self._by_version[version] = None
                continue
            old = (yield self._old, version) if self._old else self._old
            new = yield self._new, version
            self._by_version[version] = compare(old, new, schema)

    def known(self, owned: Owned) -> bool:
        """Whether the entry's version still exists."""
        return self._by_version[owned.api_version] is not None

    def touched(self, owned: Owned) -> FieldSet:
        found = self._by_version[owned.api_version]
        return self.reset(union(found.modified, found.added)) if found is not None else {}

    def removed(self, owned: Owned) -> FieldSet:
        found = self._by_version[owned.api_version]
        return self.reset(found.removed) if found is not None else {}


def settle(managers: Managers, change: Change, actor: Manager) -> dict[Manager, FieldSet]:
    """Fields of others that the change touches: who had what. Entries in versions that are gone go, the others stay."""
    conflicts: dict[Manager, FieldSet] = {}
    for manager, owned in list(managers.entries.items()):
        if manager == actor:
            continue
        if not change.known(owned):
            del managers.entries[manager]
            continue
        common = intersection(owned.fields, change.touched(owned))
        if common:
            conflicts[manager] = common
    return conflicts


def take_over(managers: Managers, conflicts: dict[Manager, FieldSet], change: Change, actor: Manager) -> None:
    """Others lose what was changed or removed."""
    for manager in list(managers.entries):
        owned = managers.entries[manager]
        left = owned.fields
        if manager in conflicts:
            left = difference(left, conflicts[manager])
        if manager != actor:
            removed = change.removed(owned)
            if removed:
                left = difference(left, removed)
        if left is not owned.fields:
            managers.set_fields(manager, left, owned.api_version)


def strip(fields: FieldSet) -> FieldSet:
    """Without what nobody owns."""
    return difference(fields, _NEVER_OWNED)


def update(managers: Managers, change: Change, actor: Manager, api_version: str, now: str) -> None:
    """Ownership after `actor` made the change, which is loaded."""
    main = change.main
    if main.same:
        return
    take_over(managers, settle(managers, change, actor), change, actor)
    mine = managers.entries.get(actor)
    before = mine.fields if mine is not None else {}
    taken = strip(change.reset(union(main.modified, main.added)))
    kept = difference(before, change.reset(main.removed))
    # Its time moves when it wrote one of its fields, also the same one again.
    managers.set_fields(actor, union(kept, taken), api_version, now if taken else "")


def _given_or_live(old: Object | None, new: Object, subresource: str) -> Managers | None:
    """The record the request starts from: its own if it brings a good one, else the live one. None: it wants it reset."""
    live = meta.metadata(old or {}).get("managedFields")
    given = meta.metadata(new).get("managedFields")
    if not subresource and given is not None:
        if not given or (len(given) == 1 and not given[0]):
            return None
        try:
            found = decode(given)
        except (ValueError, AttributeError, TypeError):
            found = Managers()
        if found.entries:
            return found
    try:
        return decode(live)
    except (ValueError, AttributeError, TypeError):
        # A broken record must not make an object unwritable; it starts afresh, as upstream does.
        return Managers()


def reconciled(managers: Managers, schemas: Schemas) -> None:
    """Bring the sets in line with definitions that made something atomic since; built-in types do not change."""
    for manager, owned in list(managers.entries.items()):
        schema = schemas(owned.api_version)
        if schema is not None:
            fields = reconcile(owned.fields, schema)
            if fields is not owned.fields:
                managers.set_fields(manager, fields, owned.api_version)


def track_steps(
    old: Object | None,
    new: Object,
    *,
    manager: str,
    schema: Schema,
    api_version: str,
    now: str,
    subresource: str = "",
    reset_fields: Reset | Sequence[str] | None = None,
    schemas: Schemas | None = None,
) -> Steps[None]:
    """Set new.metadata.managedFields in place, after a create (`old` is None), update or patch by `manager`.

    An object whose record was dropped (managedFields: [{}]) stays without one until someone applies it, as upstream.
    """
    managers = _given_or_live(old, new, subresource)
    if managers is None and (old is None or not meta.uid(old)):
        managers = Managers()
    if managers is None or (not managers.entries and old is not None and meta.uid(old)):
        store(new, Managers())
        return
    known = schemas or (lambda version: schema)
    if not schema.builtin:
        reconciled(managers, known)
    actor = manager_of(manager, UPDATE, api_version, subresource)
    reset = resetting(reset_fields, schema, subresource)
    change = Change(without_managed_fields(old or {}), without_managed_fields(new), schema, api_version, reset, known)
    if not change.main.same:
        yield from change.load(managers)
    update(managers, change, actor, api_version, now)
    cap(managers)
    store(new, managers)


def finish(steps: Steps[T], convert: Callable[[Object, str], Object] | None = None) -> T:
    """Drive steps to their end. Without `convert` objects count as the same in every version."""
    try:
        obj, version = next(steps)
        while True:
            obj, version = steps.send(obj if convert is None else convert(obj, version))
    except StopIteration as end:
        result: T = end.value
        return result


def track(old: Object | None, new: Object, **options: Any) -> None:
    """track_steps for a kind with one version."""
    finish(track_steps(old, new, **options))
