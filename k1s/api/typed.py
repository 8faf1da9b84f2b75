"""How a value of a type falls into fields: what is a leaf, what a list item is known by, what differs between two values.

Owns: atomic/granular decisions, list item elements, to_field_set, compare. Called by: managed_fields, patch/apply.
Never does: change a value. Upstream: structured-merge-diff/typed, and the rules of kube-openapi's schema conversion:
lists without a list type are atomic, maps are granular; untyped content is granular in maps, atomic in lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from k1s.api.field_set import FieldSet, Path, field_element, insert, key_element, value_element
from k1s.api.schema import ANY, Schema

ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "ABSENT", "__bool__": lambda self: False})()

# Structs that Go holds by value: they are there (and empty) in any object whose parent is there. So giving them their first
# field is no change of the struct itself, and upstream records no "." for them. OpenAPI cannot tell them from pointers.
_ALWAYS_THERE = frozenset(
    ("metadata", "spec", "status", "template", "jobTemplate", "strategy", "updateStrategy", "loadBalancer", "scaleTargetRef")
) | frozenset(("nodeInfo", "daemonEndpoints", "kubeletEndpoint", "involvedObject", "regarding", "source", "names"))
_VALUE_RESOURCES = ("Container", "EphemeralContainer", "PersistentVolumeClaimSpec")


class TypeMismatch(ValueError):
    """A value that does not fit its type, with its path."""


def is_granular_map(value: Any, schema: Schema) -> bool:
    return isinstance(value, dict) and schema.map_type != "atomic"


def is_granular_list(value: Any, schema: Schema) -> bool:
    return isinstance(value, list) and schema.list_type in ("set", "map")


def is_leaf(value: Any, schema: Schema) -> bool:
    return not is_granular_map(value, schema) and not is_granular_list(value, schema)


def field_schema(schema: Schema, field: str) -> Schema:
    return schema.child(field) or ANY


def item_schema(schema: Schema) -> Schema:
    return schema.items or ANY


def item_element(item: Any, schema: Schema) -> str:
    """The path element of an item of a granular list. TypeMismatch if it has none."""
    if schema.list_type == "set":
        if isinstance(item, dict | list) or item is None:
            shown = "null" if item is None else "a map" if isinstance(item, dict) else "a list"
            raise TypeMismatch(f"associative list without keys has an element that's {shown} type")
        return value_element(item)
    if not isinstance(item, dict):
        raise TypeMismatch(
            "associative list with keys may not have null elements"
            if item is None
            else "associative list with keys may not have non-map elements"
        )
    keys: dict[str, Any] = {}
    for name in schema.list_map_keys:
        value = item.get(name)
        if value is None:
            known = item_schema(schema).properties.get(name)
            value = known.default if known is not None else None
        if value is not None:
            keys[name] = value
    if not keys:
        names = " ".join(f'"{name}"' for name in schema.list_map_keys)
        text = f"associative list with keys has an element that omits all key fields [{names}]"
        raise TypeMismatch(f"{text} (and doesn't have default values for any key fields)")
    return key_element(keys)


def index_items(items: list[Any], schema: Schema) -> tuple[list[str], dict[str, Any], set[str]]:
    """(the element of every item in order, element -> first item, elements that stand more than once)."""
    elements: list[str] = []
    first: dict[str, Any] = {}
    twice: set[str] = set()
    for index, item in enumerate(items):
        try:
            element = item_element(item, schema)
        except TypeMismatch:
            # Stored objects may be older than the rules; such an item is known by its place.
            element = f"i:{index}"
        elements.append(element)
        if element in first:
            twice.add(element)
        else:
            first[element] = item
    return elements, first, twice


def to_field_set(value: Any, schema: Schema) -> FieldSet:
    """The fields that a configuration sets."""
    out: FieldSet = {}
    _fields(value, schema, (), out)
    return out


def _fields(value: Any, schema: Schema, path: Path, out: FieldSet) -> None:
    if is_granular_map(value, schema):
        for field, child in value.items():
            here = (*path, field_element(field))
            _fields(child, field_schema(schema, field), here, out)
            # A declared field that is a struct is not a field of its own; a map's key is.
            if child is None or child == {} or field not in schema.properties:
                insert(out, here)
    elif is_granular_list(value, schema):
        elements, _, twice = index_items(value, schema)
        for element, item in zip(elements, value, strict=True):
            if element not in twice:
                _fields(item, item_schema(schema), (*path, element), out)
            insert(out, (*path, element))
    elif path:
        insert(out, path)


class Comparison:
    """What changed from one value to another, as three sets."""

    __slots__ = ("added", "modified", "removed")

    def __init__(self) -> None:
        self.added: FieldSet = {}
        self.modified: FieldSet = {}
        self.removed: FieldSet = {}

    @property
    def same(self) -> bool:
        return not (self.added or self.modified or self.removed)


def compare(old: Mapping[str, Any], new: Mapping[str, Any], schema: Schema) -> Comparison:
    out = Comparison()
    _compare(old, new, schema, (), out)
    return out


def _compare(old: Any, new: Any, schema: Schema, path: Path, out: Comparison) -> None:
    # Equal subtrees are the common case, and Python compares them fast.
    if old is not ABSENT and new is not ABSENT and old == new and type(old) is type(new):
        return
    if _as_map(old, new, schema):
        _compare_maps(old, new, schema, path, out)
    elif _as_list(old, new, schema):
        _compare_lists(old, new, schema, path, out)
    elif old is ABSENT or new is ABSENT or (is_leaf(old, schema) and is_leaf(new, schema)):
        _leaf(old, new, path, out)
        return
    else:
        # The value changed its shape: all of the old goes, all of the new comes.
        for gone in _walk(old, schema, path):
            insert(out.removed, gone)
        for come in _walk(new, schema, path):
            insert(out.modified if come == path else out.added, come)
        return
    if path and old is ABSENT:
        insert(out.added, path)
    elif path and new is ABSENT:
        insert(out.removed, path)


def _leaf(old: Any, new: Any, path: Path, out: Comparison) -> None:
    insert(out.added if old is ABSENT else out.removed if new is ABSENT else out.modified, path)


def _as_map(old: Any, new: Any, schema: Schema) -> bool:
    """Granular on both sides, where absent and null fit anything; two empty sides are a leaf."""
    return bool(old or new) and all(v is ABSENT or v is None or is_granular_map(v, schema) for v in (old, new))


def _as_list(old: Any, new: Any, schema: Schema) -> bool:
    return bool(old or new) and all(v is ABSENT or v is None or is_granular_list(v, schema) for v in (old, new))


def _implied(schema: Schema, field: str, child: Schema) -> Any:
    """What Go holds in a field that is not there: an empty struct, null in a required list or map, or nothing at all."""
    if not schema.builtin:
        return ABSENT
    if child.is_struct and (field in _ALWAYS_THERE or (field == "resources" and schema.short_name in _VALUE_RESOURCES)):
        return {}
    if field in schema.required and child.type in ("array", "object"):
        return None
    return ABSENT


def _compare_maps(old: Any, new: Any, schema: Schema, path: Path, out: Comparison) -> None:
    before, after = old or {}, new or {}
    for field in (*before, *(f for f in after if f not in before)):
        child = field_schema(schema, field)
        one, other = before.get(field, ABSENT), after.get(field, ABSENT)
        if one is ABSENT and old is not ABSENT:
            one = _implied(schema, field, child)
        elif other is ABSENT and new is not ABSENT:
            other = _implied(schema, field, child)
        _compare(one, other, child, (*path, field_element(field)), out)


def _compare_lists(old: Any, new: Any, schema: Schema, path: Path, out: Comparison) -> None:
    items = item_schema(schema)
    old_elements, before, old_twice = index_items(old or [], schema)
    new_elements, after, new_twice = index_items(new or [], schema)
    for element in dict.fromkeys((*old_elements, *new_elements)):
        here = (*path, element)
        if element in old_twice or element in new_twice:
            one = [item for e, item in zip(old_elements, old or [], strict=True) if e == element]
            other = [item for e, item in zip(new_elements, new or [], strict=True) if e == element]
            if one != other:
                _leaf(one or ABSENT, other or ABSENT, here, out)
            continue
        _compare(before.get(element, ABSENT), after.get(element, ABSENT), items, here, out)


def _walk(value: Any, schema: Schema, path: Path) -> Iterator[Path]:
    """Every path of a value, its own included."""
    if path:
        yield path
    if is_granular_map(value, schema):
        for field, child in value.items():
            yield from _walk(child, field_schema(schema, field), (*path, field_element(field)))
    elif is_granular_list(value, schema):
        elements, _, _ = index_items(value, schema)
        for element, item in zip(elements, value, strict=True):
            yield from _walk(item, item_schema(schema), (*path, element))


def ensure_named(fields: FieldSet, schema: Schema) -> FieldSet:
    """The set, with the declared fields on the way to its members made members themselves (not keys of maps)."""
    out: FieldSet = {}
    for element, node in fields.items():
        if element == "." or not node:
            out[element] = node
            continue
        child = ANY
        named = False
        if element.startswith("f:"):
            field = element[2:]
            child, named = field_schema(schema, field), field in schema.properties
        elif element.startswith("k:"):
            child = item_schema(schema)
        inner = ensure_named(node, child)
        out[element] = {".": {}, **inner} if named and "." not in inner else inner
    return out
