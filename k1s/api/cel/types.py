"""The types of CEL as its checker has them, and how they are written in errors.

Owns: Type, assignable(), substitute(). Called by: declarations, checker, cost, schema_types. Never does: look at expressions.
Source: cel-go/checker/types.go.
"""

from __future__ import annotations

from collections.abc import Sequence


class Type:
    """`kind`: dyn, error, null, bool, int, uint, double, string, bytes, timestamp, duration, type, list, map, object,
    opaque, var.

    `fields` of an object; `most`: how many elements or characters a value has at most where a schema says so (None: not known);
    `least`: the bytes of its shortest JSON."""

    __slots__ = ("fields", "kind", "least", "most", "name", "params")

    def __init__(
        self,
        kind: str,
        params: tuple[Type, ...] = (),
        name: str = "",
        fields: dict[str, Type] | None = None,
        most: int | None = None,
        least: int = 1,
    ) -> None:
        self.kind, self.params, self.name, self.fields, self.most, self.least = kind, params, name or kind, fields, most, least

    def __str__(self) -> str:
        if self.kind == "error":
            return "!error!"
        return f"{self.name}({', '.join(map(str, self.params))})" if self.params else self.name

    def __repr__(self) -> str:
        return f"Type({self})"


DYN, ERROR, NULL, BOOL, INT = Type("dyn"), Type("error"), Type("null"), Type("bool"), Type("int")
UINT, DOUBLE, STRING, BYTES = Type("uint"), Type("double"), Type("string"), Type("bytes")
TIMESTAMP, DURATION = Type("timestamp"), Type("duration")
SCALARS = {t.kind: t for t in (DYN, NULL, BOOL, INT, UINT, DOUBLE, STRING, BYTES, TIMESTAMP, DURATION)}

Mapping = dict[str, Type]


def list_of(item: Type, most: int | None = None) -> Type:
    return Type("list", (item,), most=most, least=2)


def map_of(key: Type, value: Type, most: int | None = None) -> Type:
    return Type("map", (key, value), most=most, least=2)


def optional_of(value: Type) -> Type:
    return Type("opaque", (value,), "optional_type")


def type_of(value: Type) -> Type:
    return Type("type", (value,))


def is_optional(found: Type) -> bool:
    return found.kind == "opaque" and found.name == "optional_type"


def same(a: Type, b: Type) -> bool:
    """The same type, whatever schemas say of its sizes."""
    if a is b:
        return True
    if a.kind != b.kind or a.name != b.name or len(a.params) != len(b.params):
        return False
    return all(map(same, a.params, b.params))


def substitute(found: Type, mapping: Mapping, *, free_to_dyn: bool = False) -> Type:
    """The type without the variables that are known by now."""
    if found.kind == "var":
        known = mapping.get(found.name)
        if known is not None:
            return substitute(known, mapping, free_to_dyn=free_to_dyn)
        return DYN if free_to_dyn else found
    if not found.params:
        return found
    params = tuple(substitute(p, mapping, free_to_dyn=free_to_dyn) for p in found.params)
    if all(new is old for new, old in zip(params, found.params, strict=True)):
        return found
    return Type(found.kind, params, found.name, found.fields, found.most, found.least)


def assignable(mapping: Mapping, given: Sequence[Type], wanted: Sequence[Type]) -> Mapping | None:
    """What is known of variables if values of the types can stand where others are wanted; None if they cannot."""
    if len(given) != len(wanted):
        return None
    known = dict(mapping)
    return known if all(_assign(known, a, b) for a, b in zip(given, wanted, strict=True)) else None


_NULLABLE = ("null", "timestamp", "duration", "object", "opaque", "dyn")


def _assign(known: Mapping, given: Type, wanted: Type) -> bool:
    if wanted.kind == "var":
        valid, bound = _substitutes(known, given, wanted)
        if valid or bound:
            return valid
    if given.kind == "var":
        return _substitutes(known, wanted, given)[0]
    kinds = (given.kind, wanted.kind)
    if "dyn" in kinds or "error" in kinds:
        return True
    if given.kind == "null":
        return wanted.kind in _NULLABLE
    if wanted.kind == "null":
        return given.kind in _NULLABLE
    if given.kind == "type":
        return wanted.kind == "type"
    if given.kind in ("opaque", "list", "map"):
        if wanted.kind != given.kind or wanted.name != given.name or len(wanted.params) != len(given.params):
            return False
        return all(_assign(known, a, b) for a, b in zip(given.params, wanted.params, strict=True))
    return same(given, wanted)


def _substitutes(known: Mapping, found: Type, var: Type) -> tuple[bool, bool]:
    """Whether a type can be that of a variable, and whether that had a type already."""
    if found.kind == "var" and found.name == var.name:
        return True, True
    bound = known.get(var.name)
    if bound is not None:
        if same(found, bound):
            return True, True
        if not _assign(known, found, bound):
            return False, True
        general = found if _less_specific(found, bound) else bound
        if not _mentions(known, general, var):
            known[var.name] = general
        return True, True
    if _mentions(known, found, var):
        return False, False
    known[var.name] = found
    return True, False


def _mentions(known: Mapping, found: Type, var: Type) -> bool:
    if found.kind == "var":
        if found.name == var.name:
            return True
        bound = known.get(found.name)
        return bound is not None and _mentions(known, bound, var)
    return any(_mentions(known, param, var) for param in found.params)


def _less_specific(a: Type, b: Type) -> bool:
    """Equal, or more general."""
    if a.kind in ("dyn", "var"):
        return True
    if b.kind in ("dyn", "var") or a.kind != b.kind or a.name != b.name or len(a.params) != len(b.params):
        return False
    return a.kind == "type" or all(map(_less_specific, a.params, b.params))


def general(known: Mapping, a: Type, b: Type) -> Type:
    """The more general one of two types that can stand for one another."""
    return a if _less_specific(a, b) else b
