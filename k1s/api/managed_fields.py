"""metadata.managedFields: who owns which field.

Owns: reading and writing the entries, ownership after an update (track), the rules both kinds of writers share.
Called by: the apiserver after every create, update and patch (track), patch/apply (the rest). Never does: merge objects.
Upstream: apimachinery/pkg/util/managedfields, structured-merge-diff/merge. An entry in another version of the kind is compared
as it stands: the built-in conversions hardly move fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from k1s.api import meta
from k1s.api.field_set import (
    FieldSet,
    canonical,
    difference,
    field_element,
    insert,
    intersection,
    ordered,
    recursive_difference,
    union,
)
from k1s.api.schema import Schema
from k1s.api.typed import Comparison, compare

Object = dict[str, Any]

UPDATE, APPLY = "Update", "Apply"
MAX_UPDATE_MANAGERS = 10
_ANCIENT = "ancient-changes"
BEFORE_FIRST_APPLY = "before-first-apply"


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


class Manager(NamedTuple):
    """Whom an entry belongs to. Appliers are the same in every version, so `api_version` is empty for them."""

    name: str
    operation: str
    api_version: str
    subresource: str

    def shown(self) -> str:
        """As conflict messages name it."""
        text = _quoted(self.name)
        if self.subresource:
            text += f" with subresource {_quoted(self.subresource)}"
        return f"{text} using {self.api_version}" if self.operation == UPDATE else text


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@dataclass(slots=True)
class Owned:
    """One entry: the fields, in which version, since when. Replaced, never changed."""

    fields: FieldSet
    api_version: str
    time: str = ""
    # The entry as it was read, for as long as it says the same.
    entry: Object | None = None


@dataclass(slots=True)
class Managers:
    """All entries of an object. Field sets are never changed in place."""

    entries: dict[Manager, Owned] = field(default_factory=dict)

    def copy(self) -> Managers:
        return Managers(dict(self.entries))

    def same_fields(self, other: Managers) -> bool:
        return {m: (o.fields, o.api_version) for m, o in self.entries.items()} == {
            m: (o.fields, o.api_version) for m, o in other.entries.items()
        }

    def set_time(self, manager: Manager, time: str) -> None:
        owned = self.entries[manager]
        if owned.time != time:
            self.entries[manager] = Owned(owned.fields, owned.api_version, time)

    def set_fields(self, manager: Manager, fields: FieldSet, api_version: str, time: str = "") -> None:
        """No fields, no entry."""
        old = self.entries.get(manager)
        if not fields:
            self.entries.pop(manager, None)
        elif old is None:
            self.entries[manager] = Owned(fields, api_version, time)
        else:
            self.entries[manager] = Owned(fields, api_version, time or old.time)


def manager_of(name: str, operation: str, api_version: str, subresource: str) -> Manager:
    return Manager(name or "unknown", operation, api_version if operation == UPDATE else "", subresource)


def decode(entries: Iterable[Any] | None) -> Managers:
    """ValueError if an entry is none."""
    out = Managers()
    for entry in entries or ():
        operation = entry.get("operation")
        if operation not in (UPDATE, APPLY):
            raise ValueError(f"operation must be `Apply` or `Update`: {operation!r}")
        api_version = entry.get("apiVersion") or ""
        manager = manager_of(entry.get("manager") or "", operation, api_version, entry.get("subresource") or "")
        fields = canonical(entry.get("fieldsV1") or {})
        out.entries[manager] = Owned(fields, api_version, entry.get("time") or "", entry)
    return out


def encode(managers: Managers) -> list[Object]:
    """The entries in upstream's order: appliers first, then by age and name."""

    def order(item: tuple[Manager, Owned]) -> tuple[str, str, str, str, str]:
        manager, owned = item
        return manager.operation, owned.time, manager.name, owned.api_version, manager.subresource

    out: list[Object] = []
    for manager, owned in sorted(managers.entries.items(), key=order):
        if owned.entry is not None:
            out.append(owned.entry)
            continue
        entry: Object = {"manager": manager.name, "operation": manager.operation, "apiVersion": owned.api_version}
        if owned.time:
            entry["time"] = owned.time
        entry["fieldsType"] = "FieldsV1"
        entry["fieldsV1"] = ordered(owned.fields)
        if manager.subresource:
            entry["subresource"] = manager.subresource
        out.append(entry)
    return out


def store(obj: Object, managers: Managers) -> None:
    """Write the entries into the object."""
    metadata = meta.ensure_metadata(obj)
    if managers.entries:
        metadata["managedFields"] = encode(managers)
    else:
        metadata.pop("managedFields", None)


def without_managed_fields(obj: Object) -> Object:
    """The object without its record: what is compared and merged. Shares everything else."""
    metadata = obj.get("metadata")
    if not metadata or "managedFields" not in metadata:
        return obj
    return {**obj, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}


def ignored_fields(reset: Sequence[str] | None, schema: Schema, subresource: str) -> FieldSet:
    """Fields that this endpoint resets, so that a request owns none of them.

    The default: the main endpoint of a built-in kind resets status, the status endpoint spec.
    """
    if reset is None:
        reset = ("spec",) if subresource == "status" else ("status",) if schema.builtin and not subresource else ()
    return field_paths(*reset)


def settle(managers: Managers, change: Comparison, ignored: FieldSet, actor: Manager) -> dict[Manager, FieldSet]:
    """Fields of others that the change touches: who had what. The entries stay as they are."""
    touched = recursive_difference(union(change.modified, change.added), ignored)
    conflicts: dict[Manager, FieldSet] = {}
    for manager, owned in managers.entries.items():
        if manager != actor:
            common = intersection(owned.fields, touched)
            if common:
                conflicts[manager] = common
    return conflicts


def take_over(
    managers: Managers, conflicts: dict[Manager, FieldSet], change: Comparison, ignored: FieldSet, actor: Manager
) -> None:
    """Others lose what was changed or removed."""
    removed = recursive_difference(change.removed, ignored)
    for manager in list(managers.entries):
        owned = managers.entries[manager]
        left = owned.fields
        if manager in conflicts:
            left = difference(left, conflicts[manager])
        if removed and manager != actor:
            left = difference(left, removed)
        if left is not owned.fields:
            managers.set_fields(manager, left, owned.api_version)


def strip(fields: FieldSet) -> FieldSet:
    """Without what nobody owns."""
    return difference(fields, _NEVER_OWNED)


def update(
    managers: Managers, old: Object, new: Object, actor: Manager, schema: Schema, ignored: FieldSet, api_version: str, now: str
) -> None:
    """Ownership after `actor` changed `old` to `new`; both without managedFields."""
    change = compare(old, new, schema)
    if change.same:
        return
    take_over(managers, settle(managers, change, ignored, actor), change, ignored, actor)
    mine = managers.entries.get(actor)
    before = mine.fields if mine is not None else {}
    taken = strip(recursive_difference(union(change.modified, change.added), ignored))
    kept = difference(before, recursive_difference(change.removed, ignored))
    fields = union(kept, taken)
    # Its time moves when it wrote one of its fields, also the same one again, or removed one.
    moved = bool(taken) or fields != before
    managers.set_fields(actor, fields, api_version, now if moved else "")


def cap(managers: Managers) -> None:
    """At most MAX_UPDATE_MANAGERS updaters: the oldest share one entry per version, "ancient-changes"."""
    updaters = sorted((m for m in managers.entries if m.operation == UPDATE), key=lambda m: (managers.entries[m].time, *m))
    excess = len(updaters) - MAX_UPDATE_MANAGERS
    first_of: dict[str, Manager] = {}
    for manager in updaters:
        if excess <= 0:
            return
        owned = managers.entries[manager]
        bucket = manager_of(_ANCIENT, UPDATE, owned.api_version, "")
        first = first_of.setdefault(owned.api_version, manager)
        if first == manager:
            continue
        if bucket not in managers.entries:
            managers.entries[bucket] = managers.entries.pop(first)
        old = managers.entries[bucket]
        managers.entries[bucket] = Owned(union(owned.fields, old.fields), owned.api_version, owned.time)
        if manager != bucket:
            del managers.entries[manager]
        excess -= 1


def _given_or_live(old: Object | None, new: Object, subresource: str) -> Managers | None:
    """The record the request starts from: its own if it brings a good one, else the live one. None: it wants it reset."""
    live = meta.metadata(old or {}).get("managedFields")
    given = meta.metadata(new).get("managedFields")
    if not subresource and given:
        if len(given) == 1 and not given[0]:
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


def track(
    old: Object | None,
    new: Object,
    *,
    manager: str,
    operation: str = UPDATE,
    schema: Schema,
    api_version: str,
    now: str,
    subresource: str = "",
    reset_fields: Sequence[str] | None = None,
) -> None:
    """Set new.metadata.managedFields in place, after a create (`old` is None), update or patch by `manager`.

    An object whose record was dropped (managedFields: [{}]) stays without one until someone applies it, as upstream.
    """
    managers = _given_or_live(old, new, subresource)
    if managers is None or (not managers.entries and old is not None and meta.uid(old)):
        store(new, Managers())
        return
    actor = manager_of(manager, operation, api_version, subresource)
    ignored = ignored_fields(reset_fields, schema, subresource)
    update(managers, without_managed_fields(old or {}), without_managed_fields(new), actor, schema, ignored, api_version, now)
    cap(managers)
    store(new, managers)


def keep_times(old: Object, new: Object) -> None:
    """Where nothing but times of managedFields differs, take the old record: a write that changes nothing stays none."""
    before, after = meta.metadata(old).get("managedFields"), meta.metadata(new).get("managedFields")
    if not before or not after or before == after or len(before) != len(after):
        return
    if _timeless(before) == _timeless(after) and without_managed_fields(old) == without_managed_fields(new):
        new["metadata"]["managedFields"] = before


def _timeless(entries: list[Object]) -> list[Object]:
    plain = [{key: value for key, value in entry.items() if key != "time"} for entry in entries]
    return sorted(plain, key=lambda e: [str(e.get(k)) for k in ("operation", "manager", "apiVersion", "subresource")])


def manager_from_user_agent(user_agent: str) -> str:
    """The default manager's name: what stands before the first slash, at most 128 printable characters."""
    name = user_agent.partition("/")[0]
    return "".join(c for c in name if c.isprintable())[:128]
