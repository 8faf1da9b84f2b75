"""The syntax tree of an expression, from what the parser serializes (cel.expr.ParsedExpr).

Owns: Node, tree(). Called by: program, checker. Never does: evaluate.
Macros are expanded already, but for those of two variables, which the parser does not know: they are here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from k1s.api.cel.types import Type

Field = tuple[int, int | bytes]

_KINDS = {3: "constant", 4: "name", 5: "select", 6: "call", 7: "list", 8: "struct", 9: "comprehension"}
_TWO = ("all", "exists", "existsOne", "exists_one", "transformList", "transformMap", "transformMapEntry")


@dataclass(slots=True)
class Node:
    """`text`: the name, field, function or type. `children`: select: operand; call: target (if a member) and arguments; list:
    items; struct: keys and values in turns; comprehension: range, start, condition, step, result."""

    kind: str = ""
    text: str = ""
    children: list[Node] = field(default_factory=list)
    # Where it stands in the expression, counted in characters; -1 if that is not known.
    offset: int = -1
    member: bool = False
    # A constant's type (a key of types.SCALARS) and value.
    type_name: str = ""
    value: Any = None
    # select: has() asks only whether it is there. list, struct: which items are optional.
    test: bool = False
    optional: tuple[int, ...] = ()
    # A comprehension's variables: of the element, of its value (if there are two), and of what is accumulated.
    names: tuple[str, str, str] = ("", "", "")
    # What the checker found.
    type: Type | None = None


def tree(serialized: bytes) -> Node:
    """The expression in a serialized google.protobuf.Any of a ParsedExpr."""
    parsed = dict(_fields(serialized))[2]
    assert isinstance(parsed, bytes)
    expression, positions = b"", {}
    for number, value in _fields(parsed):
        if number == 2 and isinstance(value, bytes):
            expression = value
        elif number == 3 and isinstance(value, bytes):
            for key, entry in _fields(value):
                if key == 4 and isinstance(entry, bytes):
                    pair = dict(_fields(entry))
                    positions[pair.get(1, 0)] = pair.get(2, 0)
    return _node(expression, positions)  # type: ignore[arg-type]


def _node(data: bytes, positions: dict[int, int]) -> Node:
    node = Node()
    for number, value in _fields(data):
        if number == 2:
            node.offset = positions.get(value, -1)  # type: ignore[arg-type]
        elif number in _KINDS and isinstance(value, bytes):
            node.kind = _KINDS[number]
            _READ[node.kind](node, value, positions)
    if node.kind == "call" and node.member:
        if node.text in _TWO:
            return _two_variables(node)
        if node.text == "sortBy" and len(node.children) == 3 and node.children[1].kind == "name":
            return _sort_by(node)
    return node


def _constant(node: Node, data: bytes, positions: dict[int, int]) -> None:
    for number, value in _fields(data):
        if number == 1:
            node.type_name, node.value = "null", None
        elif number == 2:
            node.type_name, node.value = "bool", bool(value)
        elif number == 3 and isinstance(value, int):
            node.type_name, node.value = "int", value - (1 << 64) if value >> 63 else value
        elif number == 4:
            node.type_name, node.value = "uint", value
        elif isinstance(value, bytes):
            if number == 5:
                node.type_name, node.value = "double", struct.unpack("<d", value)[0]
            elif number == 6:
                node.type_name, node.value = "string", value.decode()
            else:
                node.type_name, node.value = "bytes", value


def _name(node: Node, data: bytes, positions: dict[int, int]) -> None:
    node.text = _text(dict(_fields(data)).get(1))


def _select(node: Node, data: bytes, positions: dict[int, int]) -> None:
    found = dict(_fields(data))
    node.children, node.text, node.test = [_child(found.get(1), positions)], _text(found.get(2)), bool(found.get(3))


def _call(node: Node, data: bytes, positions: dict[int, int]) -> None:
    for number, value in _fields(data):
        if number == 2:
            node.text = _text(value)
        else:
            node.member = node.member or number == 1
            node.children.append(_child(value, positions))


def _list(node: Node, data: bytes, positions: dict[int, int]) -> None:
    for number, value in _fields(data):
        if number == 1:
            node.children.append(_child(value, positions))
        elif isinstance(value, bytes):
            node.optional = tuple(_varints(value))
        else:
            node.optional += (value,)


def _struct(node: Node, data: bytes, positions: dict[int, int]) -> None:
    """A map where `text` is empty, else a message."""
    for number, value in _fields(data):
        if number == 1:
            node.text = _text(value)
        elif isinstance(value, bytes):
            entry = dict(_fields(value))
            key = Node("constant", type_name="string", value=_text(entry.get(2)))
            if 3 in entry:
                key = _child(entry[3], positions)
            if entry.get(5):
                node.optional += (len(node.children) // 2,)
            key.offset = positions.get(entry.get(1, 0), key.offset) if 2 in entry else key.offset  # type: ignore[arg-type]
            node.children += [key, _child(entry.get(4), positions)]


def _comprehension(node: Node, data: bytes, positions: dict[int, int]) -> None:
    found = dict(_fields(data))
    node.names = (_text(found.get(1)), _text(found.get(8)), _text(found.get(3)))
    node.children = [_child(found.get(n), positions) for n in (2, 4, 5, 6, 7)]


_READ = {
    "constant": _constant,
    "name": _name,
    "select": _select,
    "call": _call,
    "list": _list,
    "struct": _struct,
    "comprehension": _comprehension,
}


def _two_variables(node: Node) -> Node:
    """all(i, v, ...), transformList(i, v, ...) and so on: cel-go's ext.TwoVarComprehensions."""
    over, *arguments = node.children
    names = [argument.text for argument in arguments[:2] if argument.kind == "name"]
    most = 4 if node.text.startswith("transform") else 3
    if len(names) != 2 or not 3 <= len(arguments) <= most:
        return node
    accu = "@result"
    total = Node("name", accu, offset=node.offset)

    def call(function: str, *parts: Node) -> Node:
        return Node("call", function, list(parts), node.offset)

    def constant(kind: str, value: Any) -> Node:
        return Node("constant", offset=node.offset, type_name=kind, value=value)

    last, condition, result = arguments[-1], constant("bool", True), total
    if node.text == "all":
        start, step = constant("bool", True), call("_&&_", total, last)
        condition = call("@not_strictly_false", total)
    elif node.text == "exists":
        start, step = constant("bool", False), call("_||_", total, last)
        condition = call("@not_strictly_false", call("!_", total))
    elif node.text.startswith("exists"):
        start = constant("int", 0)
        step = call("_?_:_", last, call("_+_", total, constant("int", 1)), total)
        result = call("_==_", total, constant("int", 1))
    elif node.text == "transformList":
        start = Node("list", offset=node.offset)
        step = call("_+_", total, Node("list", "", [last], node.offset))
    elif node.text == "transformMap":
        start = Node("struct", offset=node.offset)
        step = call("cel.@mapInsert", total, Node("name", names[0], offset=node.offset), last)
    else:
        start, step = Node("struct", offset=node.offset), call("cel.@mapInsert", total, last)
    if len(arguments) == 4:
        step = call("_?_:_", arguments[2], step, total)
    return Node("comprehension", children=[over, start, condition, step, result], offset=node.offset, names=(*names, accu))  # type: ignore[arg-type]


def _sort_by(node: Node) -> Node:
    """sortBy(x, key): the list, sorted by a list of its keys (cel-go's ext.Lists)."""
    over, item, key = node.children
    total = Node("name", "@result", offset=node.offset)
    step = Node("call", "_+_", [total, Node("list", "", [key], node.offset)], node.offset)
    parts = [over, Node("list", offset=node.offset), Node("constant", type_name="bool", value=True), step, total]
    keys = Node("comprehension", children=parts, offset=node.offset, names=(item.text, "", "@result"))
    return Node("call", "lists.@sortByAssociatedKeys", [over, keys], node.offset, member=True)


def _child(value: int | bytes | None, positions: dict[int, int]) -> Node:
    return _node(value if isinstance(value, bytes) else b"", positions)


def _text(value: int | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else ""


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _fields(data: bytes) -> Iterator[Field]:
    """The fields of a protobuf message: varints as numbers, the rest as bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        else:
            size = 8 if wire == 1 else 4
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
