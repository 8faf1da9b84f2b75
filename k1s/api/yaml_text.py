"""YAML the way Kubernetes reads it: straight to what JSON can say.

Owns: the dialect: YAML 1.1 booleans, Go's numbers, no dates, keys become strings, duplicate keys are noticed.
Called by: decode, configuration files that want the same dialect. Never does: import yaml unless it is used.
"""

from __future__ import annotations

import json
import math
import re
from functools import cache
from typing import Any

MAX_DEPTH = 254
# Aliases may repeat content: so many nodes at most come out of a document beyond those it can spell ("billion laughs").
MAX_REPEATED = 100_000

_INT = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL_FLOAT = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")


def parse_int(text: str) -> int:
    """A YAML 1.1 integer: 0o17 and 017 are octal, underscores are allowed."""
    plain = text.replace("_", "")
    sign = -1 if plain.startswith("-") else 1
    digits = plain.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        return sign * int(digits, 8)
    return sign * int(digits, 0)


def load_yaml(body: bytes | str) -> tuple[Any, list[str]]:
    """The (first) document as JSON values, and the paths of keys that stand twice. ValueError if it is not YAML."""
    value, builder = _load(body)
    return value, builder.duplicates


def load_yaml_strictly(body: bytes | str) -> tuple[Any, list[str]]:
    """The same, but keys that stand twice are told as Go's YAML does: `line 3: key "a" already set in map`."""
    try:
        value, builder = _load(body)
    except YamlFault as fault:
        raise ValueError(fault.brief) from None
    return value, builder.complaints


class YamlFault(ValueError):
    """Text that is no YAML; `brief` is what Go's parser would say of it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"yaml: {error}")
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        self.brief = f"yaml: line {mark.line + 1}: {problem}" if mark is not None and problem else str(self)


def _load(body: bytes | str) -> tuple[Any, _Builder]:
    import yaml

    loader = _loader()(body)
    try:
        node = loader.get_node() if loader.check_node() else None
    except yaml.YAMLError as error:
        raise YamlFault(error) from None
    except RecursionError:
        raise ValueError("yaml: exceeded max depth") from None
    finally:
        loader.dispose()
    # A node takes two characters.
    builder = _Builder(len(body) // 2 + MAX_REPEATED)
    return None if node is None else builder.build(node, "", 0), builder


@cache
def _loader() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """SafeLoader that resolves scalars to what Go's YAML would."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, regexp) for tag, regexp in rows if tag.endswith((":bool", ":null", ":merge"))]
        for first, rows in base.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _SPECIAL_FLOAT, list("-+."))
    return Loader


_TRUE = {"yes", "true", "on"}


class _Builder:
    """Turns the node graph into values. Done by hand, for paths of duplicates and a bound on what aliases expand to."""

    def __init__(self, most: int) -> None:
        self.duplicates: list[str] = []
        self.complaints: list[str] = []
        self._left = most

    def build(self, node: Any, path: str, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError("yaml: document contains excessive aliasing")
        if depth > MAX_DEPTH:
            raise ValueError("yaml: exceeded max depth")
        if node.id == "scalar":
            return self._scalar(node)
        if node.id == "sequence":
            return [self.build(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value)]
        return self._mapping(node, path, depth)

    def _mapping(self, node: Any, path: str, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged = self._merge(value_node, path, depth) | merged
                continue
            if key_node.id != "scalar":
                raise ValueError("yaml: a mapping or a list cannot be the key of a field")
            key = _key_text(self._scalar(key_node), key_node.value)
            below = f"{path}.{key}" if path else key
            again = key in out
            if again and below not in self.duplicates:
                self.duplicates.append(below)
            out[key] = self.build(value_node, below, depth + 1)
            if again:
                # The value's line, and after what is wrong inside of it.
                self.complaints.append(f"line {value_node.start_mark.line + 1}: key {json.dumps(key)} already set in map")
        return merged | out if merged else out

    def _merge(self, node: Any, path: str, depth: int) -> dict[str, Any]:
        sources = node.value if node.id == "sequence" else [node]
        out: dict[str, Any] = {}
        for source in sources:
            if source.id != "mapping":
                raise ValueError("yaml: map merge requires map or sequence of maps as the value")
            out = self.build(source, path, depth + 1) | out
        return out

    def _scalar(self, node: Any) -> Any:
        tag, text = node.tag.rpartition(":")[2], node.value
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() in _TRUE
        if tag == "int":
            number = parse_int(text)
            # What does not fit becomes a float, as Go has it.
            return number if -(2**63) <= number < 2**64 else _finite(float(number), text)
        if tag == "float":
            if _SPECIAL_FLOAT.match(text):
                raise ValueError(f"yaml: JSON has no number for {text}")
            value = _finite(float(text), text)
            # Go writes a whole float as an integer on the way to JSON: `replicas: 1e1` is good.
            return int(value) if value.is_integer() and abs(value) < 2**53 else value
        if tag == "binary":
            return "".join(text.split())
        return text


def _finite(number: float, text: str) -> float:
    if math.isinf(number):
        raise ValueError(f"yaml: JSON has no number for {text[:40]}")
    return number


def _key_text(value: Any, text: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value) if isinstance(value, int) else text
