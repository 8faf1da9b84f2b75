"""metadata.managedFields as it is stored: who owns which field, one entry per manager, operation, version and subresource.

Owns: reading and writing the entries, their order and number, managers' names. Called by: ownership, patch/apply, apiserver.
Never does: decide who owns what (ownership does). Upstream: apimachinery/pkg/util/managedfields.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from k1s.api import meta
from k1s.api.field_set import FieldSet, canonical, ordered, union

Object = dict[str, Any]

UPDATE, APPLY = "Update", "Apply"
MAX_UPDATE_MANAGERS = 10
# Bytes that a manager's name may have.
MANAGER_LENGTH = 128
_ANCIENT = "ancient-changes"
BEFORE_FIRST_APPLY = "before-first-apply"


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
    for index, entry in enumerate(entries or ()):
        operation = entry.get("operation")
        if operation not in (UPDATE, APPLY):
            raise ValueError("operation must be `Apply` or `Update`")
        api_version = entry.get("apiVersion") or ""
        if not api_version:
            raise ValueError("apiVersion must not be empty")
        kind = entry.get("fieldsType") or ""
        if kind != "FieldsV1":
            raise ValueError(
                f"invalid fieldsType {_quoted(kind)} in managed fields entry {index}"
                if kind
                else f"missing fieldsType in managed fields entry {index}"
            )
        manager = manager_of(entry.get("manager") or "", operation, api_version, entry.get("subresource") or "")
        fields = canonical(entry.get("fieldsV1") or {})
        out.entries[manager] = Owned(fields, api_version, entry.get("time") or "", entry)
    return out


def fault_of(entries: Any) -> str:
    """What is wrong with a record; "" if it is good."""
    try:
        decode(entries)
    except (ValueError, AttributeError, TypeError) as error:
        return str(error)
    return ""


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


def manager_from_user_agent(user_agent: str) -> str:
    """The default manager's name: what stands before the first slash, its printable characters, at most 128 bytes."""
    name = user_agent.partition("/")[0]
    if not name.isprintable():
        name = "".join(c for c in name if c.isprintable())
    if len(name) > MANAGER_LENGTH // 4:
        name = name.encode("utf-8", "ignore")[:MANAGER_LENGTH].decode("utf-8", "ignore")
    return name or "unknown"
