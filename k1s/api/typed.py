"""How a value of a type falls into fields: what is a leaf, what a list item is known by, what differs between two values.

Owns: atomic/granular decisions, list item elements, to_field_set, compare. Called by: managed_fields, patch/apply.
Never does: change a value. Upstream: structured-merge-diff/typed, and the rules of kube-openapi's schema conversion:
lists without a list type are atomic, maps are granular; untyped content is granular in maps, atomic in lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from k1s.api.field_set import SELF, FieldSet, field_element, key_element, value_element
from k1s.api.schema import ANY, Schema

ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "ABSENT", "__bool__": lambda self: False})()

# Structs that Go holds by value: they are there (and empty) in any object whose parent is there. So giving them their first
# field is no change of the struct itself, and upstream records no "." for them. OpenAPI cannot tell them from pointers.
_ALWAYS_THERE = frozenset(
    {
        "metadata",
        "spec",
        "status",
        "template",
        "jobTemplate",
        "strategy",
        "updateStrategy",
        "loadBalancer",
        "scaleTargetRef",
        "nodeInfo",
        "daemonEndpoints",
        "kubeletEndpoint",
        "involvedObject",
        "regarding",
        "source",
        "deprecatedSource",
        "names",
        "acceptedNames",
        "devices",
        "limitResponse",
    }
)
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
        if isinstance(item, dict):
            raise TypeMismatch("associative list without keys has an element that's a map type")
        if isinstance(item, list):
            raise TypeMismatch("not supported: associative list with lists as elements")
        if item is None:
            raise TypeMismatch("associative list without keys has an element that's an explicit null")
        return value_element(item)
    if item is None:
        raise TypeMismatch("associative list with keys may not have a null element")
    if not isinstance(item, dict):
        raise TypeMismatch("associative list with keys may not have non-map elements")
    keys: dict[str, Any] = {}
    for name in schema.list_map_keys:
        if name in item:
            keys[name] = item[name]
            continue
        known = item_schema(schema).properties.get(name)
        if known is not None and known.default is not None:
            keys[name] = known.default
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
    return _fields(value, schema)


def _fields(value: Any, schema: Schema) -> FieldSet:
    """What stands below a value in the set of its fields."""
    out: FieldSet = {}
    if is_granular_map(value, schema):
        properties = schema.properties
        for field, child in value.items():
            known = properties.get(field)
            child_schema = known or schema.values or ANY
            if is_leaf(child, child_schema):
                out[field_element(field)] = {}
                continue
            inner = _fields(child, child_schema)
            # A declared field that is a struct or a list is no field of its own; a map's key is, and an empty map.
            if known is None or (not child and isinstance(child, dict)):
                out[field_element(field)] = {SELF: {}, **inner} if inner else {}
            elif inner:
                out[field_element(field)] = inner
    elif is_granular_list(value, schema):
        items = item_schema(schema)
        elements, _, twice = index_items(value, schema)
        for element, item in zip(elements, value, strict=True):
            inner = _fields(item, items) if element not in twice else {}
            out[element] = {SELF: {}, **inner} if inner else {}
    return out


def _whole(value: Any, schema: Schema) -> FieldSet:
    """A node with every path of a value, its own included."""
    if is_granular_map(value, schema) and value:
        node: FieldSet = {SELF: {}}
        for field, child in value.items():
            node[field_element(field)] = _whole(child, field_schema(schema, field))
        return node
    if is_granular_list(value, schema) and value:
        node = {SELF: {}}
        items = item_schema(schema)
        elements, _, twice = index_items(value, schema)
        for element, item in zip(elements, value, strict=True):
            node[element] = {} if element in twice else _whole(item, items)
        return node
    return {}


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
    if old != new:
        _compare_maps(old, new, schema, out)
    return out


def _compare(old: Any, new: Any, schema: Schema, element: str, out: Comparison) -> None:
    """Enter what changed below `element` into the sets of its parent."""
    # Equal subtrees are the common case, and Python compares them fast.
    if old is ABSENT:
        out.added[element] = _whole(new, schema)
        return
    if new is ABSENT:
        out.removed[element] = _whole(old, schema)
        return
    if old == new and type(old) is type(new):
        return
    below = Comparison()
    if _both(is_granular_map, old, new, schema):
        _compare_maps(old or {}, new or {}, schema, below)
    elif _both(is_granular_list, old, new, schema):
        _compare_lists(old or [], new or [], schema, below)
    elif is_leaf(old, schema) and is_leaf(new, schema):
        out.modified[element] = {}
        return
    else:
        # The value changed its shape: all of the old goes, all of the new comes.
        below.removed = {key: node for key, node in _whole(old, schema).items() if key != SELF}
        below.added = {key: node for key, node in _whole(new, schema).items() if key != SELF}
        out.modified[element] = {}
    for target, node in ((out.added, below.added), (out.modified, below.modified), (out.removed, below.removed)):
        if node:
            target[element] = node


def _both(kind: Callable[[Any, Schema], bool], old: Any, new: Any, schema: Schema) -> bool:
    """Granular on both sides, where null fits anything; two empty sides are a leaf."""
    return bool(old or new) and (old is None or kind(old, schema)) and (new is None or kind(new, schema))


def _held_by_value(schema: Schema, field: str) -> bool:
    if field == "resources":
        return schema.short_name in _VALUE_RESOURCES
    if field == "template" and schema.short_name == "ReplicationControllerSpec":
        return False
    return field in _ALWAYS_THERE or field in schema.required


def _implied(schema: Schema, field: str, child: Schema) -> Any:
    """What Go holds in a field that is not there: an empty struct, null in a required list or map, or nothing at all."""
    if not schema.builtin:
        return ABSENT
    if child.is_struct and _held_by_value(schema, field):
        return {}
    if field in schema.required and child.type in ("array", "object"):
        return None
    return ABSENT


def _compare_maps(before: Mapping[str, Any], after: Mapping[str, Any], schema: Schema, out: Comparison) -> None:
    for field in (*before, *(f for f in after if f not in before)):
        child = field_schema(schema, field)
        one, other = before.get(field, ABSENT), after.get(field, ABSENT)
        if one is ABSENT:
            one = _implied(schema, field, child)
        elif other is ABSENT:
            other = _implied(schema, field, child)
        _compare(one, other, child, field_element(field), out)


def _compare_lists(old: list[Any], new: list[Any], schema: Schema, out: Comparison) -> None:
    items = item_schema(schema)
    old_elements, before, old_twice = index_items(old, schema)
    new_elements, after, new_twice = index_items(new, schema)
    for element in dict.fromkeys((*old_elements, *new_elements)):
        if element in old_twice or element in new_twice:
            _compare_twins(element, (old_elements, old), (new_elements, new), items, out)
        else:
            _compare(before.get(element, ABSENT), after.get(element, ABSENT), items, element, out)


def _compare_twins(
    element: str, old: tuple[list[str], list[Any]], new: tuple[list[str], list[Any]], items: Schema, out: Comparison
) -> None:
    """Items that stand twice on one side at least: those count as one, whole; a single one on the other side comes or goes."""
    before, after = ([item for e, item in zip(*side, strict=True) if e == element] for side in (old, new))
    if len(before) > 1 and len(after) > 1:
        if before != after:
            out.modified[element] = {}
    elif len(before) > 1:
        out.removed[element] = {}
        if after:
            out.added[element] = _whole(after[0], items)
    else:
        out.added[element] = {}
        if before:
            out.removed[element] = _whole(before[0], items)


def reconcile(fields: FieldSet, schema: Schema) -> FieldSet:
    """The set after a definition made something atomic that was not: who owned a part owns the whole."""
    out: FieldSet = {}
    changed = False
    for element, node in fields.items():
        if element == SELF or not node:
            out[element] = node
            continue
        child = schema.child(element[2:]) if element.startswith("f:") else schema.items
        if child is None or child.type == "any":
            new = node
        elif child.map_type == "atomic" or (child.type == "array" and child.list_type not in ("set", "map")):
            new = {}
        else:
            new = reconcile(node, child)
        out[element] = new
        changed |= new is not node
    return out if changed else fields


def ensure_named(fields: FieldSet, schema: Schema) -> FieldSet:
    """The set, with the declared fields on the way to its members made members themselves (not keys of maps)."""
    out: FieldSet = {}
    for element, node in fields.items():
        if element == SELF or not node:
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
        out[element] = {SELF: {}, **inner} if named and SELF not in inner else inner
    return out
