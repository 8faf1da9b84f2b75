"""The syntax tree of a compiled expression, as the runtime serializes it (cel.expr.CheckedExpr).

Owns: Node, tree(). Called by: validation/rule_types. Never does: evaluate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

Field = tuple[int, int | bytes]

_KINDS = {3: "constant", 4: "name", 5: "select", 6: "call", 7: "list", 8: "struct", 9: "comprehension"}


@dataclass(slots=True)
class Node:
    """`text`: the name, field or function. `children`: select: operand; call: target (if a member) and arguments;
    struct: the values of its entries; comprehension: range, start, condition, step, result."""

    kind: str = ""
    text: str = ""
    children: list[Node] = field(default_factory=list)
    # Where it stands in the expression, counted in characters; -1 if that is not known.
    offset: int = -1
    member: bool = False
    # A comprehension's variables: of the element and of what is accumulated.
    names: tuple[str, str] = ("", "")


def tree(serialized: bytes) -> Node:
    """The expression in a serialized google.protobuf.Any of a CheckedExpr."""
    checked = dict(_fields(serialized))[2]
    assert isinstance(checked, bytes)
    expression, positions = b"", {}
    for number, value in _fields(checked):
        if number == 4 and isinstance(value, bytes):
            expression = value
        elif number == 5 and isinstance(value, bytes):
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
            _read(node, value, positions)
    return node


def _read(node: Node, data: bytes, positions: dict[int, int]) -> None:
    if node.kind == "constant":
        node.text = next((v.decode() for n, v in _fields(data) if n == 6 and isinstance(v, bytes)), "")
        return
    if node.kind == "comprehension":
        found = dict(_fields(data))
        node.names = (_text(found.get(1)), _text(found.get(3)))
        node.children = [_node(part if isinstance(part := found.get(n, b""), bytes) else b"", positions) for n in (2, 4, 5, 6, 7)]
        return
    for number, value in _fields(data):
        if not isinstance(value, bytes):
            continue
        if node.kind == "name" or (node.kind in ("select", "call") and number == 2):
            node.text = value.decode()
        elif node.kind == "struct":
            if number == 2:
                node.children += [_node(v, positions) for n, v in _fields(value) if n in (3, 4) and isinstance(v, bytes)]
        else:
            node.member = node.member or (node.kind == "call" and number == 1)
            node.children.append(_node(value, positions))


def _text(value: int | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else ""


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
