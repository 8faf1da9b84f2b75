"""Label and field selectors: parsing, matching, printing.

Owns: LabelSelector (query strings and metav1.LabelSelector), FieldSelector. Upstream: apimachinery/pkg/labels and /fields.
Called by: list and watch handlers, informers, controllers, scheduler (node affinity builds Requirements itself).
Never does: look at objects; callers hand in the labels or the fields. Refusals are ApiError 400 with upstream's text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from k1s.api import names
from k1s.api.errors import ApiError, bad_request

IN, NOT_IN, EXISTS, NOT_EXISTS, GREATER, LESS = "in", "notin", "exists", "!", "gt", "lt"
EQUALS, DOUBLE_EQUALS, NOT_EQUALS = "=", "==", "!="
_BINARY = "in, notin, =, ==, !=, gt, lt"
_INTEGER = re.compile(r"[+-]?[0-9]+\Z")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term. `operator` is one of the constants above; `values` is sorted where order means nothing."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        operator = self.operator
        if operator in (IN, EQUALS, DOUBLE_EQUALS):
            return self.key in labels and labels[self.key] in self.values
        if operator in (NOT_IN, NOT_EQUALS):
            return self.key not in labels or labels[self.key] not in self.values
        if operator == EXISTS:
            return self.key in labels
        if operator == NOT_EXISTS:
            return self.key not in labels
        found = labels.get(self.key, "")
        if not _INTEGER.match(found):
            return False
        return int(found) > int(self.values[0]) if operator == GREATER else int(found) < int(self.values[0])

    def __str__(self) -> str:
        if self.operator == EXISTS:
            return self.key
        if self.operator == NOT_EXISTS:
            return f"!{self.key}"
        if self.operator in (IN, NOT_IN):
            return f"{self.key} {self.operator} ({','.join(self.values)})"
        sign = {GREATER: ">", LESS: "<"}.get(self.operator, self.operator)
        return f"{self.key}{sign}{self.values[0]}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def requirement(key: str, operator: str, values: Iterable[str] = ()) -> Requirement:
    """A checked Requirement, as labels.NewRequirement. ApiError 400 if it makes no sense."""
    faults = names.qualified_name(key)
    if faults:
        raise bad_request(f"<nil>: Invalid value: {_quoted(key)}: {'; '.join(faults)}")
    # Sets of values print sorted; the sign of a single value stays as written.
    chosen = tuple(sorted(set(values)))
    shown = "[" + " ".join(chosen) + "]"
    if operator in (IN, NOT_IN) and not chosen:
        raise bad_request(f"values: Invalid value: {shown}: for 'in', 'notin' operators, values set can't be empty")
    if operator in (EQUALS, DOUBLE_EQUALS, NOT_EQUALS) and len(chosen) != 1:
        raise bad_request(f"values: Invalid value: {shown}: exact-match compatibility requires one single value")
    if operator in (EXISTS, NOT_EXISTS) and chosen:
        raise bad_request(f"values: Invalid value: {shown}: values set must be empty for exists and does not exist")
    if operator in (GREATER, LESS):
        if len(chosen) != 1:
            raise bad_request(f"values: Invalid value: {shown}: for 'Gt', 'Lt' operators, exactly one value is required")
        if not _INTEGER.match(chosen[0]):
            text = f"values[0]: Invalid value: {_quoted(chosen[0])}: for 'Gt', 'Lt' operators, the value must be an integer"
            raise bad_request(text)
    for index, value in enumerate(chosen):
        faults = names.label_value(value)
        if faults:
            raise bad_request(f"values[{index}][{key}]: Invalid value: {_quoted(value)}: {'; '.join(faults)}")
    return Requirement(key, operator, chosen)


class LabelSelector:
    """All requirements must hold. No requirements: everything; `nothing`: no object at all."""

    __slots__ = ("nothing", "requirements")

    def __init__(self, requirements: Iterable[Requirement] = (), *, nothing: bool = False) -> None:
        self.requirements = tuple(sorted(requirements, key=lambda r: r.key))
        self.nothing = nothing

    @property
    def empty(self) -> bool:
        """Does it match everything?"""
        return not self.nothing and not self.requirements

    def matches(self, labels: Mapping[str, str]) -> bool:
        if self.nothing:
            return False
        return all(r.matches(labels) for r in self.requirements)

    def __str__(self) -> str:
        return ",".join(str(r) for r in self.requirements)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelSelector) and self.nothing == other.nothing and self.requirements == other.requirements

    def __hash__(self) -> int:
        return hash((self.requirements, self.nothing))

    def __repr__(self) -> str:
        return "LabelSelector(nothing)" if self.nothing else f"LabelSelector({self})"


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(nothing=True)


def parse_labels(text: str) -> LabelSelector:
    """A labelSelector query parameter: `a=b,c!=d,e in (x,y),!f`."""
    return LabelSelector(_LabelParser(text).parse()) if text else EVERYTHING


_OPERATORS = {"In": IN, "NotIn": NOT_IN, "Exists": EXISTS, "DoesNotExist": NOT_EXISTS}


def labels_from(selector: Mapping[str, Any] | None) -> LabelSelector:
    """A metav1.LabelSelector: None matches nothing, {} everything."""
    if selector is None:
        return NOTHING
    pairs: Mapping[str, str] = selector.get("matchLabels") or {}
    out = [requirement(key, IN, (value,)) for key, value in pairs.items()]
    for expression in selector.get("matchExpressions") or ():
        operator = _OPERATORS.get(expression.get("operator", ""))
        if operator is None:
            raise bad_request(f"{_quoted(expression.get('operator', ''))} is not a valid label selector operator")
        out.append(requirement(expression.get("key", ""), operator, expression.get("values") or ()))
    # metav1.LabelSelectorAsSelector makes matchLabels "in" with one value, which prints as "=".
    return LabelSelector(
        Requirement(r.key, EQUALS, r.values) if r.operator == IN and len(r.values) == 1 and r.key in pairs else r for r in out
    )


_SPECIAL = "=!(),<>"


class _LabelParser:
    """Upstream's lexer and recursive descent, term by term."""

    def __init__(self, text: str) -> None:
        self._tokens = list(self._scan(text))
        self._at = 0

    @staticmethod
    def _scan(text: str) -> Iterable[tuple[str, str]]:
        """(kind, literal): "id", or the sign itself; "end" last."""
        at, size = 0, len(text)
        while at < size:
            char = text[at]
            if char in " \t\r\n":
                at += 1
            elif char in _SPECIAL:
                two = text[at : at + 2]
                sign = two if two in ("==", "!=") else char
                at += len(sign)
                yield sign, sign
            else:
                start = at
                while at < size and text[at] not in _SPECIAL and text[at] not in " \t\r\n":
                    at += 1
                yield "id", text[start:at]
        yield "end", ""

    def _peek(self, values: bool = True) -> tuple[str, str]:
        kind, literal = self._tokens[self._at]
        # "in" and "notin" are operators only where an operator may stand.
        if not values and kind == "id" and literal in (IN, NOT_IN):
            return literal, literal
        return kind, literal

    def _next(self, values: bool = True) -> tuple[str, str]:
        token = self._peek(values)
        if self._at < len(self._tokens) - 1:
            self._at += 1
        return token

    def parse(self) -> list[Requirement]:
        out: list[Requirement] = []
        while True:
            kind, literal = self._peek()
            if kind == "end":
                return out
            if kind not in ("id", "!"):
                raise bad_request(f"found '{literal}', expected: !, identifier, or 'end of string'")
            out.append(self._requirement())
            kind, literal = self._next()
            if kind == "end":
                return out
            if kind != ",":
                raise bad_request(f"found '{literal}', expected: ',' or 'end of string'")
            kind, literal = self._peek()
            if kind not in ("id", "!"):
                raise bad_request(f"found '{literal}', expected: identifier after ','")

    def _requirement(self) -> Requirement:
        try:
            return self._term()
        except ApiError as error:
            raise bad_request(f"unable to parse requirement: {error.message}") from None

    def _term(self) -> Requirement:
        kind, key = self._next()
        absent = kind == "!"
        if absent:
            kind, key = self._next()
        if kind != "id":
            raise bad_request(f"found '{key}', expected: identifier")
        faults = names.qualified_name(key)
        if faults:
            raise bad_request(f"<nil>: Invalid value: {_quoted(key)}: {'; '.join(faults)}")
        if absent:
            return requirement(key, NOT_EXISTS)
        if self._peek()[0] in ("end", ","):
            return requirement(key, EXISTS)
        kind, literal = self._next(values=False)
        if kind in (IN, NOT_IN):
            return requirement(key, kind, self._values())
        signs = {"=": EQUALS, "==": DOUBLE_EQUALS, "!=": NOT_EQUALS, ">": GREATER, "<": LESS}
        if kind not in signs:
            raise bad_request(f"found '{literal}', expected: {_BINARY}")
        return requirement(key, signs[kind], (self._exact_value(),))

    def _exact_value(self) -> str:
        if self._peek()[0] in ("end", ","):
            return ""
        kind, literal = self._next()
        if kind != "id":
            raise bad_request(f"found '{literal}', expected: identifier")
        return literal

    def _values(self) -> list[str]:
        kind, literal = self._next()
        if kind != "(":
            raise bad_request(f"found '{literal}' expected: '('")
        kind, literal = self._peek()
        if kind == ")":
            # "()" is the set of the empty string, says upstream.
            self._next()
            return [""]
        if kind not in ("id", ","):
            raise bad_request(f"found '{literal}', expected: ',', ')' or identifier")
        # Between commas an identifier or nothing, and nothing is the empty string.
        out: list[str] = []
        while True:
            if self._peek()[0] == "id":
                out.append(self._next()[1])
            else:
                out.append("")
            kind, literal = self._next()
            if kind == ")":
                return out
            if kind != ",":
                raise bad_request(f"found '{literal}', expected: ',' or ')'")


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """`operator` is "=" or "!="."""

    field: str
    operator: str
    value: str


class FieldSelector:
    """All requirements must hold; a field that is not there reads as the empty string."""

    __slots__ = ("requirements",)

    def __init__(self, requirements: Iterable[FieldRequirement] = ()) -> None:
        self.requirements = tuple(requirements)

    def required_value(self, field: str) -> str | None:
        """The value the field must have, if the selector says so: metadata.name=x is a GET in disguise."""
        return next((r.value for r in self.requirements if r.field == field and r.operator == "="), None)

    def __str__(self) -> str:
        return ",".join(f"{r.field}{r.operator}{_escape(r.value)}" for r in self.requirements)

    def __repr__(self) -> str:
        return f"FieldSelector({self})"


def _escape(value: str) -> str:
    return re.sub(r"([\\,=])", r"\\\1", value)


_TERM = re.compile(r"(?:[^\\,]|\\.)*", re.DOTALL)
_FIELD_OPERATOR = re.compile(r"!=|==|=")


def parse_fields(text: str) -> FieldSelector:
    """A fieldSelector query parameter: `metadata.name=x,spec.nodeName!=y`; `\\` escapes `,`, `=` and itself."""
    out: list[FieldRequirement] = []
    for term in _split_terms(text):
        if not term:
            continue
        found = _FIELD_OPERATOR.search(term)
        if found is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        operator = "!=" if found.group() == "!=" else "="
        out.append(FieldRequirement(term[: found.start()], operator, _unescape(term[found.end() :])))
    return FieldSelector(out)


def _split_terms(text: str) -> Iterable[str]:
    start, at = 0, 0
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == ",":
            yield text[start:at]
            start = at + 1
        at += 1
    yield text[start:]


def _unescape(value: str) -> str:
    if not any(c in value for c in "\\,="):
        return value
    out, at = [], 0
    while at < len(value):
        char = value[at]
        if char == "\\":
            following = value[at + 1 : at + 2]
            if following not in ("\\", ",", "="):
                raise bad_request(f"invalid field selector: invalid escape sequence: {char}{following}")
            out.append(following)
            at += 1
        elif char in ",=":
            raise bad_request(f"invalid field selector: unescaped character in value: {char}")
        else:
            out.append(char)
        at += 1
    return "".join(out)
