"""Sets of field paths, in the very form in which managedFields stores them (fieldsV1).

A set is a trie of dicts: keys "f:<field>", "k:<keys of a list item>", "v:<value of a set item>", "i:<index>"; a path is in the
set if its node is empty or holds ".". Owns: the algebra on such tries, their canonical form, how paths print.
Called by: managed_fields, patch/apply. Never does: change its arguments (insert alone does; results share what did not change).
Upstream: structured-merge-diff/fieldpath.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import orjson

FieldSet = dict[str, Any]
Path = tuple[str, ...]

SELF = "."


def field_element(name: str) -> str:
    return f"f:{name}"


def key_element(keys: dict[str, Any]) -> str:
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()


def value_element(value: Any) -> str:
    return "v:" + orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _is_member(node: FieldSet) -> bool:
    return not node or SELF in node


def _node(member: bool, children: FieldSet) -> FieldSet | None:
    if not children:
        return {} if member else None
    return {SELF: {}, **children} if member else children


def insert(fields: FieldSet, path: Path) -> None:
    """Put a path into a set under construction, in place."""
    node = fields
    for element in path[:-1]:
        below = node.get(element)
        if below is None:
            below = node[element] = {}
        elif not below:
            # An empty node is a member; it stays one when it gets children.
            below[SELF] = {}
        node = below
    last = node.get(path[-1])
    if last is None:
        node[path[-1]] = {}
    elif last:
        last[SELF] = {}


def has(fields: FieldSet, path: Path) -> bool:
    node: FieldSet | None = fields
    for element in path:
        node = node.get(element) if node else None
    return node is not None and bool(path) and _is_member(node)


def union(one: FieldSet, other: FieldSet) -> FieldSet:
    if not one or one is other:
        return other
    if not other:
        return one
    return _union_children(one, other)


def _union_children(one: FieldSet, other: FieldSet) -> FieldSet:
    out = dict(one)
    for element, node in other.items():
        if element == SELF:
            continue
        mine = out.get(element)
        out[element] = node if mine is None or mine is node else _union_node(mine, node)
    return out


def _union_node(one: FieldSet, other: FieldSet) -> FieldSet:
    member = _is_member(one) or _is_member(other)
    children = _union_children(one, other)
    children.pop(SELF, None)
    return _node(member, children) or {}


def difference(one: FieldSet, other: FieldSet) -> FieldSet:
    """The paths of `one` that are not in `other`."""
    return _filter(one, other, _difference_node) if one and other else one


def intersection(one: FieldSet, other: FieldSet) -> FieldSet:
    return _common(one, other) if one and other else {}


def recursive_difference(one: FieldSet, other: FieldSet) -> FieldSet:
    """The paths of `one` that are neither in `other` nor below a path of it."""
    return _filter(one, other, _recursive_node) if one and other else one


def _filter(one: FieldSet, other: FieldSet, keep: Any) -> FieldSet:
    out: FieldSet = {}
    for element, node in one.items():
        if element == SELF:
            continue
        against = other.get(element)
        left = node if against is None else keep(node, against)
        if left is not None:
            out[element] = left
    return out


def _difference_node(one: FieldSet, other: FieldSet) -> FieldSet | None:
    return _node(_is_member(one) and not _is_member(other), _filter(one, other, _difference_node))


def _recursive_node(one: FieldSet, other: FieldSet) -> FieldSet | None:
    return None if _is_member(other) else _node(_is_member(one), _filter(one, other, _recursive_node))


def _common(one: FieldSet, other: FieldSet) -> FieldSet:
    out: FieldSet = {}
    for element, node in one.items():
        against = other.get(element)
        if element == SELF or against is None:
            continue
        left = _node(_is_member(node) and _is_member(against), _common(node, against))
        if left is not None:
            out[element] = left
    return out


def member(fields: FieldSet, element: str) -> bool:
    """Is the path of this one element in the set?"""
    node = fields.get(element)
    return node is not None and _is_member(node)


def below(fields: FieldSet, element: str) -> FieldSet:
    """The set of what stands below one element, relative to it."""
    node = fields.get(element)
    if not node:
        return {}
    return {key: child for key, child in node.items() if key != SELF} if SELF in node else node


def paths(fields: FieldSet, prefix: Path = ()) -> Iterator[Path]:
    """Every path in the set; of a level first its members, then what is below."""
    elements = sorted(element for element in fields if element != SELF)
    for element in elements:
        if _is_member(fields[element]):
            yield (*prefix, element)
    for element in elements:
        yield from paths(fields[element], (*prefix, element))


def ordered(fields: FieldSet) -> FieldSet:
    """The same set with sorted keys, as it is stored."""
    return {element: ordered(fields[element]) for element in sorted(fields)}


def canonical(fields: FieldSet) -> FieldSet:
    """What a client wrote, with keys and values spelled as k1s spells them. ValueError if it is no field set."""
    out: FieldSet = {}
    for element, node in fields.items():
        if not isinstance(node, dict):
            raise ValueError(f"not a set of fields: {element}")
        # Clients may send elements of any size; only those of a sane one are remembered.
        spell = _remembered if len(element) <= _REMEMBERED_LENGTH else _canonical_element
        out[spell(element)] = canonical(node)
    return out


def _canonical_element(element: str) -> str:
    kind = element[:2]
    if element == SELF or kind in ("f:", "i:"):
        return element
    if kind in ("k:", "v:"):
        value = orjson.loads(element[2:])
        if kind == "v:":
            return value_element(value)
        if isinstance(value, dict):
            return key_element(value)
    raise ValueError(f"unknown kind of path element: {element}")


_REMEMBERED_LENGTH = 200
_remembered = lru_cache(maxsize=4096)(_canonical_element)


def path_text(path: Path) -> str:
    """`.spec.containers[name="a"].image`, as upstream prints paths."""
    return "".join(_element_text(element) for element in path)


def _element_text(element: str) -> str:
    kind, rest = element[:2], element[2:]
    if kind == "f:":
        return f".{rest}"
    if kind == "k:":
        keys = orjson.loads(rest)
        return "[" + ",".join(f"{key}={_value_text(keys[key])}" for key in sorted(keys)) + "]"
    if kind == "v:":
        return f"[={_value_text(orjson.loads(rest))}]"
    return f"[{rest}]"


def _value_text(value: Any) -> str:
    return orjson.dumps(value).decode()
