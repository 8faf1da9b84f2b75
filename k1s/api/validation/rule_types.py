"""A rule's syntax tree against the schema of its `self`: fields that are not there, and loops that could run too long.

Owns: check_types(). Called by: rule_tree, when a definition is written. Never does: check operators and functions (the runtime
does, as far as it knows types), or refuse what it cannot follow.
Source of the sizes: apiserver/pkg/cel/types.go, apiextensions-apiserver/pkg/apiserver/schema/cel/model.
"""

from __future__ import annotations

from typing import Any

from k1s.api.cel.syntax import Node
from k1s.api.cel.values import escaped
from k1s.api.meta import Object

# A request's size in bytes: what no list's JSON can exceed.
_MAX_REQUEST = 3 * 1024 * 1024
_LIMIT = 10_000_000
_SCALARS = {"string": "string", "integer": "int", "number": "double", "boolean": "bool"}
_LEAST = {"string": 2, "integer": 1, "number": 1, "boolean": 4, "array": 2, "object": 2}
_THROUGH = ("value", "orValue", "or", "optional.of", "optional.ofNonZeroValue")
_HINT = (
    "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
)


class UndefinedField(Exception):
    """`offset`: where in the expression."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


def check_types(tree: Node, schema: Object, variables: tuple[str, ...], *, root: bool, cardinality: float | None) -> str:
    """Why a rule would be too expensive, or nothing. Raises UndefinedField. `cardinality`: how often its node may occur, None if
    only the size of a request limits that."""
    walk = _Walk()
    known = {"": None, **dict.fromkeys(variables, {**schema, "x-root": True} if root else schema)}
    walk.type_of(tree, known, cardinality if cardinality is not None else (_MAX_REQUEST - 2) // (_least(schema) + 1))
    if walk.cost <= _LIMIT:
        return ""
    factor = walk.cost / _LIMIT
    by = "more than 100x" if factor > 100 else f"{factor:.1f}x"
    return f"estimated rule cost exceeds budget by factor of {by} {_HINT}"


def limit(schema: Object) -> float | None:
    """The limit that a list's or map's schema sets itself."""
    found = schema.get("maxItems") if schema.get("type") == "array" else schema.get("maxProperties")
    return float(found) if found is not None else None


def most(schema: Object | None) -> float:
    """How many items or keys a list or map may have at most."""
    if schema is None:
        return 1
    own = limit(schema)
    if own is not None:
        return own
    if schema.get("type") == "array":
        return (_MAX_REQUEST - 2) // (_least(schema.get("items") or {}) + 1)
    more = schema.get("additionalProperties")
    # Keys are quoted and followed by a colon.
    return (_MAX_REQUEST - 2) // (_least(more) + 4) if isinstance(more, dict) else 1


def _least(schema: Object) -> int:
    """The bytes of the shortest JSON for a value."""
    size = _LEAST.get(schema.get("type") or "", 1)
    if schema.get("type") == "string":
        return size + int(schema.get("minLength") or 0)
    properties = schema.get("properties") or {}
    for name in schema.get("required") or ():
        child = properties.get(name) or {}
        if "default" not in child:
            size += len(name) + 4 + _least(child)
    return size


class _Walk:
    def __init__(self) -> None:
        self.cost = 0.0

    def type_of(self, node: Node, known: dict[str, Object | None], times: float) -> Object | None:
        """The schema of a node's value, None if it is not known; adds what it costs to evaluate it so many times."""
        self.cost = max(self.cost, times)
        if node.kind == "name":
            return known.get(node.text)
        if node.kind == "select":
            return self._field(self.type_of(node.children[0], known, times), node.text, node)
        if node.kind == "call":
            return self._call(node, known, times)
        if node.kind == "list":
            found = [self.type_of(child, known, times) for child in node.children]
            items = found[0] if found and all(part is found[0] for part in found) else None
            return {"type": "array", "items": items, "maxItems": len(found)}
        if node.kind == "comprehension":
            return self._loop(node, known, times)
        for child in node.children:
            self.type_of(child, known, times)
        return None

    def _call(self, node: Node, known: dict[str, Object | None], times: float) -> Object | None:
        types = [self.type_of(child, known, times) for child in node.children]
        if node.text in ("_?._", "optFieldSelect") and len(node.children) == 2:
            return self._field(types[0], node.children[1].text, node)
        if node.text in ("_[_]", "_[?_]") and types:
            return _element(types[0], key=False)
        if node.text == "_?_:_" and len(types) == 3:
            return types[1] if types[1] is not None else types[2]
        if node.text == "_+_" and len(types) == 2:
            return types[0] if types[0] is not None else types[1]
        if node.text in _THROUGH and types:
            return types[0]
        return None

    def _loop(self, node: Node, known: dict[str, Object | None], times: float) -> Object | None:
        over, start, condition, step, result = node.children
        ranged = self.type_of(over, known, times)
        self.type_of(start, known, times)
        element, total = node.names
        inside = {**known, element: _element(ranged, key=True), total: None}
        many = times * max(1.0, most(ranged))
        self.type_of(condition, inside, many)
        grown = self.type_of(step, inside, many)
        if isinstance(grown, dict) and grown.get("type") == "array":
            grown = {**grown, "maxItems": most(ranged)}
        else:
            grown = None
        return self.type_of(result, {**known, total: grown}, times)

    def _field(self, schema: Object | None, name: str, node: Node) -> Object | None:
        if schema is None or schema.get("x-kubernetes-int-or-string"):
            return None
        kind = schema.get("type")
        if kind in _SCALARS:
            if schema.get("format"):
                return None
            raise UndefinedField(f"type '{_SCALARS[kind]}' does not support field selection", node.offset)
        if kind != "object":
            return None
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            return more
        properties = schema.get("properties")
        if schema.get("x-root") or schema.get("x-kubernetes-embedded-resource"):
            if name in ("apiVersion", "kind"):
                return {"type": "string"}
            if name == "metadata":
                return {"type": "object", "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}}}
            properties = properties or {}
        if properties is None:
            return None
        for key, child in properties.items():
            if escaped(key) == name:
                return child or None
        raise UndefinedField(f"undefined field '{name}'", node.offset)


def _element(schema: Object | None, *, key: bool) -> Object | None:
    """What a list holds, or a map; `key`: what one iterates over."""
    if schema is None:
        return None
    if schema.get("type") == "array":
        items: Any = schema.get("items")
        return items if isinstance(items, dict) else None
    more = schema.get("additionalProperties")
    if isinstance(more, dict) and not key:
        return more
    return {"type": "string"} if key and isinstance(more, dict) else None
