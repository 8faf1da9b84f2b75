"""What an expression may cost at most, from its checked tree and the sizes that its types know.

Owns: most_expensive(). Called by: program (for rules of definitions). Never does: measure what it did cost (evaluator).
Source: cel-go/checker/cost.go, apiserver/pkg/cel/library/cost.go: the units are upstream's, so that what is refused is the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from k1s.api.cel.syntax import Node
from k1s.api.cel.types import DYN, Type

MAX = 2**64 - 1
_TEXT = 0.1
_REGEX = 0.25
_LIST, _MAP, _STRUCT = 10, 30, 40
_CHECK = 350_000
_ACCUMULATORS = ("@result", "__result__")
Size = tuple[int, int]
_UNKNOWN: Size = (0, MAX)

_LISTS = ("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf", "includes")
_TRAVERSES_TARGET = ("lowerAscii", "upperAscii", "substring", "trim")
_TRAVERSES_ARGUMENT = ("cidr", "isIP", "isCIDR", "quantity", "isQuantity", "semver", "isSemver")
_COMPARE = ("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_")
_SCALAR = ("bool", "int", "uint", "double", "null", "timestamp", "duration")


def _up(number: float) -> int:
    return min(MAX, math.ceil(number))


def _add(*numbers: int) -> int:
    return min(MAX, sum(numbers))


def _times(a: int, b: int) -> int:
    return min(MAX, a * b)


def _union(*sizes: Size) -> Size:
    return min(low for low, _ in sizes), max(high for _, high in sizes)


@dataclass(slots=True)
class _Variable:
    path: bool
    size: Size | None
    items: Size | None


def most_expensive(tree: Node) -> int:
    """In upstream's cost units."""
    return _Coster().cost(tree)


class _Coster:
    def __init__(self) -> None:
        # What is known of nodes beyond their type, by the node's identity (the tree lives as long as this).
        self._sizes: dict[int, Size] = {}
        self._items: dict[int, Size] = {}
        self._paths: set[int] = set()
        self._locals: dict[str, list[_Variable]] = {}

    def cost(self, node: Node) -> int:
        kind = node.kind
        if kind == "name":
            local = self._local(node.text)
            if local.path if local is not None else True:
                self._paths.add(id(node))
            return 1
        if kind == "select":
            return self._select(node)
        if kind == "call":
            return self._call(node)
        if kind == "list":
            self._items[id(node)] = self._around(node.children)
            return _add(_LIST, *map(self._cost_then, node.children))
        if kind == "struct":
            self._items[id(node)] = self._around(node.children[1::2])
            return _add(_STRUCT if node.text else _MAP, *map(self._cost_then, node.children))
        return self._comprehension(node) if kind == "comprehension" else 0

    _cost_then = cost

    def _around(self, nodes: list[Node]) -> Size:
        for node in nodes:
            self.cost(node)
        return _union(*map(self.size, nodes)) if nodes else (0, 0)

    def _local(self, name: str) -> _Variable | None:
        stack = self._locals.get(name)
        return stack[-1] if stack else None

    def _known(self, node: Node) -> Size | None:
        """The size of a node's value, None if nothing limits it."""
        if id(node) in self._sizes:
            return self._sizes[id(node)]
        if node.kind == "constant":
            return (len(node.value),) * 2 if node.type_name in ("string", "bytes") else (1, 1)
        if node.kind in ("list", "struct"):
            return (len(node.children) // (1 if node.kind == "list" else 2),) * 2
        found = node.type or DYN
        if found.kind in _SCALAR:
            return 1, 1
        if found.most is not None and id(node) in self._paths:
            return 0, found.most
        local = self._local(node.text) if node.kind == "name" else None
        return local.size if local is not None else None

    def size(self, node: Node) -> Size:
        return self._known(node) or _UNKNOWN

    def _element(self, node: Node) -> Size | None:
        if id(node) in self._items:
            return self._items[id(node)]
        local = self._local(node.text) if node.kind == "name" else None
        return local.items if local is not None else None

    def _select(self, node: Node) -> int:
        operand = node.children[0]
        cost = self.cost(operand)
        if id(operand) in self._paths:
            self._paths.add(id(node))
        kind = (operand.type or DYN).kind
        return cost + (1 if not node.test and kind in ("map", "object", "var") else 0)

    def _comprehension(self, node: Node) -> int:
        over, start, condition, step, result = node.children
        bind = over.kind == "list" and not over.children and condition.value is False and node.names[2] not in _ACCUMULATORS
        cost = _add(self.cost(over), self.cost(start))
        self._push(node.names[2], _Variable(id(start) in self._paths and bind, self._known(start), self._element(start)))
        if bind:
            cost = _add(cost, self.cost(result))
            self._copy(node, result)
        else:
            cost = _add(cost, self._loop(node, over, condition, step, result))
        self._locals[node.names[2]].pop()
        if not bind:
            if start.kind == "constant":
                known = self._known(start)
                if known is not None:
                    self._sizes[id(node)] = known
            elif start.kind in ("list", "struct"):
                self._sizes[id(node)] = self.size(over)
                items = self._element(step)
                if items is not None:
                    self._items[id(node)] = items
        return cost

    def _loop(self, node: Node, over: Node, condition: Node, step: Node, result: Node) -> int:
        path, items = id(over) in self._paths, self._element(over)
        first, second, _ = node.names
        is_list = (over.type or DYN).kind == "list"
        alone = items if is_list or second == "" else None
        self._push(first, _Variable(path, (1, 1) if second and is_list else alone, None))
        if second:
            self._push(second, _Variable(path, items, None))
        inside = _add(self.cost(condition), self.cost(step))
        for name in (first, second):
            if name:
                self._locals[name].pop()
        return _add(self.cost(result), _times(self.size(over)[1], inside))

    def _push(self, name: str, variable: _Variable) -> None:
        self._locals.setdefault(name, []).append(variable)

    def _copy(self, node: Node, source: Node) -> None:
        known, items = self._known(source), self._element(source)
        if known is not None:
            self._sizes[id(node)] = known
        if items is not None:
            self._items[id(node)] = items

    # Calls

    def _call(self, node: Node) -> int:
        children = node.children
        costs = [self.cost(child) for child in children]
        name = node.text
        if name == "dyn":
            self._copy(node, children[0])
            return _add(1, *costs)
        if name in ("_&&_", "_||_"):
            return _add(*costs)
        if name == "_?_:_":
            self._sizes[id(node)] = _union(self.size(children[1]), self.size(children[2]))
            self._joined(node, children[1:])
            return _add(costs[0], max(costs[1], costs[2]))
        if name in ("_[_]", "_[?_]", "_?._"):
            if id(children[0]) in self._paths and name != "_?._":
                self._paths.add(id(node))
            items = self._element(children[0])
            if items is not None:
                self._sizes[id(node)] = items
        own = self._own(node, children)
        return _add(own, *costs)

    def _own(self, node: Node, children: list[Node]) -> int:
        name, sizes = node.text, [self.size(child) for child in children]
        if name in _COMPARE:
            return self._compared(children, sizes)
        if name == "_+_" and (node.type or DYN).kind in ("string", "bytes", "list", "dyn"):
            total = (_add(sizes[0][0], sizes[1][0]), _add(sizes[0][1], sizes[1][1]))
            self._sizes[id(node)] = total
            self._joined(node, children)
            return 1 if (node.type or DYN).kind == "list" else _up(total[1] * _TEXT)
        if name == "@in":
            return sizes[1][1] if (children[1].type or DYN).kind in ("list", "dyn") else 1
        if name in _LISTS and node.member:
            return self._over_list(children[0], sizes[0])
        return self._text_call(node, name, sizes)

    def _joined(self, node: Node, children: list[Node]) -> None:
        items = self._element(children[0]), self._element(children[1])
        if items[0] is not None and items[1] is not None:
            self._items[id(node)] = _union(items[0], items[1])
        elif items[1] is not None and self._known(children[0]) == (0, 0):
            self._items[id(node)] = items[1]

    def _compared(self, children: list[Node], sizes: list[Size]) -> int:
        kinds = {(child.type or DYN).kind for child in children}
        if "opaque" in kinds and all((child.type or DYN).name.startswith(("kubernetes.", "net.")) for child in children):
            return 1
        if kinds <= set(_SCALAR):
            return 1
        return max(_up(min(sizes[0][1], sizes[1][1]) * _TEXT), 1 if min(sizes[0][1], sizes[1][1]) else 0)

    def _over_list(self, target: Node, size: Size) -> int:
        found = target.type or DYN
        if found.kind != "list":
            return _up(size[1] * _TEXT)
        element = found.params[0]
        each = 1
        if element.kind in ("string", "bytes"):
            most = element.most if element.most is not None and id(target) in self._paths else MAX
            each = _add(1, _up(most * _TEXT))
        return _times(size[1], each)

    def _text_call(self, node: Node, name: str, sizes: list[Size]) -> int:
        first = sizes[0] if sizes else (0, 0)
        if name == "check":
            return _CHECK
        if name in _TRAVERSES_TARGET or name in ("url", "jsonpatch.escapeKey"):
            self._sizes[id(node)] = first
            return _up(first[1] * _TEXT)
        if name in _TRAVERSES_ARGUMENT or (name == "ip" and not node.member):
            return _up(first[1] * _TEXT)
        if name in ("fieldSelector", "labelSelector"):
            return _add(_LIST, _up(sizes[1][1] * _TEXT), _up(_up(sizes[1][1] * 0.5) * (_LIST + _STRUCT)))
        if name == "ip.isCanonical":
            return _up(first[1] * 2 * _TEXT)
        if name in ("containsIP", "containsCIDR"):
            parsed = _up(sizes[1][1] * _TEXT) if (node.children[1].type or DYN).kind == "string" else 0
            return (4 if name == "containsIP" else 7) + parsed
        if name == "validate":
            return _times(_up(sizes[1][1] * _TEXT), 32)
        if name in ("find", "findAll", "matches"):
            if name != "matches":
                self._sizes[id(node)] = (0, first[1])
            return _times(_up((first[1] + 1) * _TEXT), _up(sizes[1][1] * _REGEX))
        if name == "contains":
            return _times(_up(first[1] * _TEXT), _up(sizes[1][1] * _TEXT))
        if name in ("startsWith", "endsWith"):
            return _up(sizes[1][1] * _TEXT)
        if name == "replace" and len(sizes) >= 3:
            self._sizes[id(node)] = _replaced(*sizes[:3])
            return _up(first[1] * 2 * _TEXT)
        if name == "split":
            limit = node.children[2].value if len(node.children) > 2 and isinstance(node.children[2].value, int) else first[1]
            self._sizes[id(node)] = (0, max(0, limit))
            return _up(first[1] * 2 * _TEXT)
        if name == "join":
            return self._join(node, sizes)
        return self._converted(node, name, first)

    def _join(self, node: Node, sizes: list[Size]) -> int:
        found = node.children[0].type or DYN
        element: Type = found.params[0] if found.params else DYN
        most = element.most if element.most is not None and id(node.children[0]) in self._paths else MAX
        total = _times(sizes[0][1], most)
        if len(sizes) > 1:
            total = _add(total, _times(sizes[1][1], max(0, sizes[0][1] - 1)))
        self._sizes[id(node)] = (0, total)
        return _up(total * _TEXT)

    def _converted(self, node: Node, name: str, first: Size) -> int:
        kind = (node.children[0].type or DYN).kind if node.children else ""
        if name == "format":
            return _up(first[1] * _TEXT)
        if name == "bytes" and kind == "string":
            self._sizes[id(node)] = (first[0], _times(first[1], 4))
            return _up(first[1] * _TEXT)
        if name == "string" and kind == "bytes":
            self._sizes[id(node)] = (first[0] // 4, first[1])
            return _up(first[1] * _TEXT)
        if name == "strings.quote":
            self._sizes[id(node)] = (first[0] + 2, _add(_times(first[1], 2), 2))
            return _up(first[1] * _TEXT)
        return 1


def _replaced(text: Size, old: Size, new: Size) -> Size:
    """The size of what replace() makes."""
    kept = 0
    if old[0] == 0:
        count, kept = _add(text[1], 1), text[1]
    elif new[1] <= old[0]:
        count, kept = 0, text[1]
    else:
        count = _up(text[1] / old[0])
    return 0, _add(_times(count, new[1]), kept)
