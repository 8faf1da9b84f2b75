"""Strategic merge patch: merges lists by the merge key their type declares, obeys the directives.

$patch: replace | delete (maps and list items), $retainKeys, $deleteFromPrimitiveList/<field>, $setElementOrder/<field>
Owns: apply_strategic_patch. Called by: the patch handler, for built-in kinds only. Never does: prune or check types.
Upstream: apimachinery/pkg/util/strategicpatch; the order of merged lists follows it exactly (see element_order.py).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from k1s.api.clone import clone
from k1s.api.errors import bad_request
from k1s.api.patch.element_order import element_key, merge_orders, partition
from k1s.api.patch.json import rejected
from k1s.api.patch.merge import without_nulls
from k1s.api.schema import ANY, Schema

Object = dict[str, Any]

DIRECTIVE = "$patch"
RETAIN_KEYS = "$retainKeys"
DELETE_FROM = "$deleteFromPrimitiveList/"
ELEMENT_ORDER = "$setElementOrder/"


def apply_strategic_patch(doc: Object, patch: Any, schema: Schema) -> Object:
    """A new document. ApiError 400 if the patch is malformed, 422 if it cannot be merged."""
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}")
    return _merge_map(clone(doc), clone(patch), schema)


def _strategies(schema: Schema) -> list[str]:
    return [s for s in schema.patch_strategy.split(",") if s and s != "retainKeys"]


def _child(schema: Schema, field: str) -> Schema:
    return schema.child(field) or ANY


def _merge_map(original: Object, patch: Object, schema: Schema) -> Object:
    if DIRECTIVE in patch:
        directive = patch.pop(DIRECTIVE)
        if directive == "replace":
            replaced: Object = without_nulls(_without_directives(patch))
            return replaced
        if directive == "delete":
            return {}
        raise rejected(f"unknown patch type: {directive} in map: {patch}")
    _retain_keys(original, patch)
    _merge_ordered_lists(original, patch, schema)
    for key in [k for k in patch if k.startswith(DELETE_FROM)]:
        _delete_from_list(original, key, patch.pop(key))
    for key, value in patch.items():
        old = original.get(key)
        if value is None:
            original.pop(key, None)
        elif isinstance(value, dict) and isinstance(old, dict):
            child = _child(schema, key)
            if "replace" in _strategies(child):
                original[key] = without_nulls(_without_directives(value))
            else:
                original[key] = _merge_map(old, value, child)
        elif isinstance(value, list) and isinstance(old, list):
            original[key] = _merge_list(old, value, _child(schema, key))
        elif not _is_deletion(value):
            original[key] = without_nulls(_without_directives(value))
    return original


def _retain_keys(original: Object, patch: Object) -> None:
    if RETAIN_KEYS not in patch:
        return
    kept = patch.pop(RETAIN_KEYS)
    if not isinstance(kept, list):
        raise bad_request("invalid patch format of retainKeys")
    for key, value in patch.items():
        if value is not None and not key.startswith((DELETE_FROM, ELEMENT_ORDER)) and key not in kept:
            raise bad_request("invalid patch format of retainKeys")
    for key in [k for k in original if k not in kept]:
        del original[key]


def _delete_from_list(original: Object, directive: str, values: Any) -> None:
    if not isinstance(values, list) or any(isinstance(v, dict | list) for v in values):
        raise bad_request("invalid patch format of primitive list")
    key = directive[len(DELETE_FROM) :]
    if isinstance(original.get(key), list):
        original[key] = [item for item in original[key] if item not in values]


def _merge_ordered_lists(original: Object, patch: Object, schema: Schema) -> None:
    """The fields that come with a $setElementOrder: merged here, in that order, and taken out of the patch."""
    for directive in [k for k in patch if k.startswith(ELEMENT_ORDER)]:
        order = patch.pop(directive)
        key = directive[len(ELEMENT_ORDER) :]
        if not isinstance(order, list):
            raise bad_request("invalid patch format of setElementOrder list")
        old, new = original.get(key), patch.get(key)
        if (key in patch and new is not None and not isinstance(new, list)) or (old is not None and not isinstance(old, list)):
            raise bad_request("invalid patch format of setElementOrder list")
        if key in patch and new is None:
            continue
        child = _child(schema, key)
        merge_key = child.patch_merge_key
        if new is not None:
            _check_order(new, order, merge_key)
        if old is None and new is None:
            continue
        if new is None:
            merged = list(old or [])
        elif old is None:
            merged = without_nulls(_without_directives(new))
        else:
            merged = _merge_list(old, new, child)
        patch.pop(key, None)
        listed, others = partition(merged, order, merge_key)
        original[key] = merge_orders(listed, others, order, _server_order(old or [], new or [], merge_key), merge_key)


def _server_order(old: list[Any], new: list[Any], merge_key: str) -> list[Any]:
    """The order in which elements that the patch does not list find their places.

    Upstream deletes and appends in place, in the very list it takes the order from: so new elements stand in it where deleted
    ones made room.
    """
    gone = {element_key(item, merge_key) for item in new if isinstance(item, dict) and item.get(DIRECTIVE) == "delete"}
    kept = [item for item in old if element_key(item, merge_key) not in gone]
    if len(kept) == len(old):
        return old
    known = {element_key(item, merge_key) for item in kept}
    added = [i for i in new if not (isinstance(i, dict) and DIRECTIVE in i) and element_key(i, merge_key) not in known]
    return (kept + added)[: len(old)]


def _check_order(items: list[Any], order: list[Any], merge_key: str) -> None:
    """What the patch lists must stand in $setElementOrder, in the same sequence."""
    plain = [i for i in items if not (isinstance(i, dict) and DIRECTIVE in i)]
    at = 0
    for wanted in order:
        if at < len(plain) and element_key(plain[at], merge_key) == element_key(wanted, merge_key):
            at += 1
    if at < len(plain):
        raise bad_request(f"The order in patch list:\n{items}\n doesn't match $setElementOrder list:\n{order}\n")


def _merge_list(old: list[Any], new: list[Any], schema: Schema) -> list[Any]:
    if "merge" not in _strategies(schema):
        replaced: list[Any] = without_nulls(_without_directives(new))
        return replaced
    if not old and not new:
        return old
    if not any(isinstance(item, dict) for item in (*old, *new)):
        return _merge_primitives(old, new)
    if not all(isinstance(item, dict) for item in (*old, *new)):
        raise rejected("list element types are not identical")
    merge_key = schema.patch_merge_key
    if not merge_key:
        raise rejected(f"cannot merge lists without merge key for {schema.short_name}")
    old, new, replace = _special_elements(old, new, merge_key)
    if replace:
        return new
    merged = list(old)
    items = schema.items or ANY
    places: dict[Hashable, int] = {}
    for at, item in enumerate(merged):
        places.setdefault(element_key(item, merge_key), at)
    for item in new:
        key = element_key(item, merge_key)
        if key is None:
            raise rejected(f"map: {item} does not contain declared merge key: {merge_key}")
        if key in places:
            merged[places[key]] = _merge_map(merged[places[key]], clone(item), items)
        else:
            places[key] = len(merged)
            merged.append(without_nulls(_without_directives(item)))
    listed, others = partition(merged, new, merge_key)
    return merge_orders(listed, others, new, old, merge_key)


def _merge_primitives(old: list[Any], new: list[Any]) -> list[Any]:
    if any(isinstance(item, list) for item in (*old, *new)):
        raise rejected("lists of lists are not supported")
    merged = list({element_key(item, ""): item for item in (*old, *new)}.values())
    listed, others = partition(merged, new, "")
    return merge_orders(listed, others, new, old, "")


def _special_elements(old: list[Any], new: list[Any], merge_key: str) -> tuple[list[Any], list[Any], bool]:
    """Obey the list items that are directives. (what is left of old, plain items of new, replace the whole list?)"""
    plain: list[Any] = []
    replace = False
    for item in new:
        if DIRECTIVE not in item:
            plain.append(item)
        elif item[DIRECTIVE] == "delete":
            if merge_key not in item:
                raise rejected(f"map: {item} does not contain declared merge key: {merge_key}")
            gone = element_key(item, merge_key)
            old = [o for o in old if element_key(o, merge_key) != gone]
        elif item[DIRECTIVE] == "replace":
            # A mark for the whole list, whatever else stands in the item.
            replace = True
        elif item[DIRECTIVE] == "merge":
            raise rejected("merging lists cannot yet be specified in the patch")
        else:
            raise rejected(f"unknown patch type: {item[DIRECTIVE]} in map: {item}")
    return old, (without_nulls(_without_directives(plain)) if replace else plain), replace


def _without_directives(value: Any) -> Any:
    """New content for the object: nothing in it may still be an instruction.

    (Upstream keeps them in new list items, and forgets a new map that says "$patch: replace" together with its content.)
    """
    if isinstance(value, list):
        return [_without_directives(i) for i in value if not (isinstance(i, dict) and DIRECTIVE in i)]
    if isinstance(value, dict):
        return {
            key: _without_directives(child)
            for key, child in value.items()
            if key not in (DIRECTIVE, RETAIN_KEYS)
            and not key.startswith((DELETE_FROM, ELEMENT_ORDER))
            and not _is_deletion(child)
        }
    return value


def _is_deletion(value: Any) -> bool:
    return isinstance(value, dict) and value.get(DIRECTIVE) == "delete"
