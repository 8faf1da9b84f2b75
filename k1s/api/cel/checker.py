"""Type checking of expressions: every node gets its type, and what does not fit is said as upstream says it.

Owns: check(), the faults. Called by: program. Never does: parse, evaluate.
Source: cel-go/checker/{checker,errors}.go, with homogeneous literals and numbers that compare across types, as Kubernetes has it.
"""

from __future__ import annotations

from collections.abc import Mapping as Names
from collections.abc import Sequence

from k1s.api.cel.declarations import Overload, functions
from k1s.api.cel.syntax import Node
from k1s.api.cel.types import (
    BOOL,
    DYN,
    ERROR,
    INT,
    SCALARS,
    STRING,
    Mapping,
    Type,
    assignable,
    general,
    is_optional,
    list_of,
    map_of,
    optional_of,
    substitute,
    type_of,
)

_TYPE_NAMES = {kind: type_of(found) for kind, found in SCALARS.items() if kind not in ("dyn", "null", "timestamp", "duration")}
_TYPE_NAMES |= {
    "null_type": type_of(SCALARS["null"]),
    "list": type_of(list_of(DYN)),
    "map": type_of(map_of(DYN, DYN)),
    "type": type_of(type_of(DYN)),
    "google.protobuf.Timestamp": type_of(SCALARS["timestamp"]),
    "google.protobuf.Duration": type_of(SCALARS["duration"]),
}
Fault = tuple[int, str]
_TWO_MAPS = map_of(Type("var", (), "K"), Type("var", (), "V"))
_INSERT = (
    Overload((_TWO_MAPS, _TWO_MAPS), _TWO_MAPS, False, ("K", "V")),
    Overload((_TWO_MAPS, *_TWO_MAPS.params), _TWO_MAPS, False, ("K", "V")),
)


def check(tree: Node, variables: Names[str, Type], structs: Names[str, Type] | None = None) -> list[Fault]:
    """What is wrong, and where; nodes have their types after it. `structs`: the types of messages that may be made."""
    checker = _Checker(variables, structs if structs is not None else {})
    checker.node(tree)
    checker.settle(tree)
    return checker.faults


class _Checker:
    def __init__(self, variables: Names[str, Type], structs: Names[str, Type]) -> None:
        self.faults: list[Fault] = []
        self._scopes: list[Names[str, Type]] = [variables]
        self._structs = structs
        self._known: Mapping = {}
        self._fresh = 0

    def settle(self, node: Node) -> None:
        """Put in what is known of type variables in the end."""
        stack = [node]
        while stack:
            node = stack.pop()
            node.type = substitute(node.type or DYN, self._known, free_to_dyn=True)
            stack += node.children

    def node(self, node: Node) -> Type:
        handler = getattr(self, f"_{node.kind}", None)
        node.type = handler(node) if handler is not None else ERROR
        return node.type

    def _fault(self, node: Node, text: str) -> None:
        self.faults.append((node.offset, text))

    def _variable(self) -> Type:
        self._fresh += 1
        return Type("var", (), f"_var{self._fresh}")

    def _resolved(self, found: Type) -> Type:
        return substitute(found, self._known)

    def _fits(self, given: Sequence[Type], wanted: Sequence[Type]) -> bool:
        known = assignable(self._known, given, wanted)
        if known is None:
            return False
        self._known = known
        return True

    def _undeclared(self, node: Node, name: str) -> Type:
        self._fault(node, f"undeclared reference to '{name}' (in container '')")
        return ERROR

    def _lookup(self, name: str) -> Type | None:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        return _TYPE_NAMES.get(name)

    # The kinds of nodes

    def _constant(self, node: Node) -> Type:
        return SCALARS[node.type_name]

    def _name(self, node: Node) -> Type:
        found = self._lookup(node.text.removeprefix("."))
        return found if found is not None else self._undeclared(node, node.text)

    def _select(self, node: Node) -> Type:
        dotted = "" if node.test else _dotted(node)
        if dotted:
            found = self._lookup(dotted)
            if found is not None:
                node.kind, node.text, node.children = "name", dotted, []
                return found
        found = self._field(node, node.children[0], node.text, optional=False)
        return BOOL if node.test else self._resolved(found)

    def _field(self, node: Node, operand: Node, name: str, *, optional: bool) -> Type:
        found = self._resolved(self.node(operand))
        optional = optional or is_optional(found)
        target = found.params[0] if is_optional(found) else found
        result = DYN
        if target.kind == "map":
            result = target.params[1]
        elif target.kind == "object":
            fields = target.fields
            if fields is not None and name in fields:
                result = fields[name]
            elif fields is not None:
                self._fault(node, f"undefined field '{name}'")
                result = ERROR
        elif target.kind == "var":
            self._fits((DYN,), (target,))
        elif target.kind not in ("dyn", "error"):
            self._fault(node, f"type '{target}' does not support field selection")
        return optional_of(result) if optional else result

    def _call(self, node: Node) -> Type:
        name, children = node.text, node.children
        if name == "_?._" and not node.member and len(children) == 2:
            children[1].type = STRING
            return self._resolved(self._field(node, children[0], str(children[1].value), optional=True))
        arguments = children[1:] if node.member else children
        for argument in arguments:
            self.node(argument)
        if node.member:
            dotted = _dotted(children[0])
            if dotted and f"{dotted}.{name}" in functions():
                node.text, node.member, node.children = f"{dotted}.{name}", False, arguments
                return self._overload(node)
            self.node(children[0])
        if name not in functions() and name != "cel.@mapInsert":
            return self._undeclared(node, name)
        return self._overload(node)

    def _overload(self, node: Node) -> Type:
        given = [child.type or DYN for child in node.children]
        if node.text in ("_&&_", "_||_"):
            for child, found in zip(node.children, given, strict=True):
                if not self._fits((found,), (BOOL,)):
                    self._fault(child, f"expected type 'bool' but found '{self._resolved(found)}'")
            return BOOL
        result: Type | None = None
        candidates = _INSERT if node.text == "cel.@mapInsert" else functions()[node.text]
        for overload in candidates:
            if overload.member != node.member:
                continue
            params, found = overload.params, overload.result
            if overload.variables:
                fresh = {name: self._variable() for name in overload.variables}
                params = tuple(substitute(p, fresh) for p in params)
                found = substitute(found, fresh)
            if not self._fits(given, params):
                continue
            found = self._resolved(found)
            if result is None:
                result = found
            elif result.kind != "dyn" and str(result) != str(found):
                result = DYN
        if result is None:
            shown = [str(substitute(found, self._known, free_to_dyn=True)) for found in given]
            applied = f"{shown[0]}.({', '.join(shown[1:])})" if node.member else f"({', '.join(shown)})"
            self._fault(node, f"found no matching overload for '{node.text}' applied to '{applied}'")
            return ERROR
        return result

    def _list(self, node: Node) -> Type:
        items: Type | None = None
        for index, child in enumerate(node.children):
            found = self._unwrapped(child, self.node(child), index in node.optional)
            items = self._joined(items, found)
        return list_of(items if items is not None else self._variable())

    def _unwrapped(self, node: Node, found: Type, optional: bool) -> Type:
        if not optional:
            return found
        if is_optional(found):
            return found.params[0]
        if found.kind not in ("dyn", "error"):
            self._fault(node, f"expected type '{optional_of(found)}' but found '{found}'")
        return found

    def _joined(self, before: Type | None, found: Type) -> Type:
        if before is None:
            return found
        # That literals are of one type is asked later (literals.py).
        return general(self._known, before, found) if self._fits((before,), (found,)) else DYN

    def _struct(self, node: Node) -> Type:
        if node.text:
            return self._message(node)
        keys = values = None
        for index in range(0, len(node.children), 2):
            key, value = node.children[index : index + 2]
            keys = self._joined(keys, self.node(key))
            found = self._unwrapped(value, self.node(value), index // 2 in node.optional)
            values = self._joined(values, found)
        return map_of(keys or self._variable(), values or self._variable())

    def _message(self, node: Node) -> Type:
        made = self._structs.get(node.text)
        for index in range(0, len(node.children), 2):
            key, value = node.children[index : index + 2]
            key.type = STRING
            found = self._unwrapped(value, self.node(value), index // 2 in node.optional)
            fields = made.fields if made is not None else None
            if fields is None:
                continue
            if key.value not in fields:
                self._fault(key, f"undefined field '{key.value}'")
            elif not self._fits((fields[key.value],), (found,)):
                wanted = f"expected type of field '{key.value}' is '{fields[key.value]}'"
                self._fault(key, f"{wanted} but provided type is '{self._resolved(found)}'")
        return made if made is not None else self._undeclared(node, node.text)

    def _comprehension(self, node: Node) -> Type:
        over, start, condition, step, result = node.children
        ranged = self._resolved(self.node(over))
        total = self.node(start)
        self._scopes.append({node.names[2]: total})
        two = bool(node.names[1])
        first, second = DYN, DYN
        if ranged.kind == "list":
            first, second = (INT, ranged.params[0]) if two else (ranged.params[0], DYN)
        elif ranged.kind == "map":
            first, second = ranged.params
        elif ranged.kind in ("dyn", "error", "var"):
            self._fits((DYN,), (ranged,))
        else:
            text = f"expression of type '{ranged}' cannot be range of a comprehension (must be list, map, or dynamic)"
            self._fault(over, text)
            first = second = ERROR
        scope = {node.names[0]: first}
        if two:
            scope[node.names[1]] = second
        self._scopes.append(scope)
        self.node(condition)
        self._asserted(condition, BOOL)
        self.node(step)
        self._asserted(step, total)
        self._scopes.pop()
        found = self.node(result)
        self._scopes.pop()
        return self._resolved(found)

    def _asserted(self, node: Node, wanted: Type) -> None:
        found = node.type or DYN
        if not self._fits((found,), (wanted,)):
            self._fault(node, f"expected type '{self._resolved(wanted)}' but found '{self._resolved(found)}'")


def _dotted(node: Node) -> str:
    """a.b.c of selections that start at a name; empty for others."""
    names = []
    while node.kind == "select" and not node.test:
        names.append(node.text)
        node = node.children[0]
    return ".".join([node.text, *reversed(names)]) if node.kind == "name" else ""
