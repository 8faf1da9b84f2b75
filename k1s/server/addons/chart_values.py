"""Values of charts, put together as helm does.

Owns: merging (maps are merged, null takes a key out, everything else is replaced), reading values with a memory of what was asked
for. Called by: traefik/render, helm/plan. Never does: I/O. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k1s.api.yaml_text import load_yaml

Tree = dict[str, Any]


class BadValues(Exception):
    """Values that are not a mapping; one line."""


def parse_values(text: str, where: str) -> Tree:
    """A document of values; nothing at all is no values."""
    if not text.strip():
        return {}
    try:
        value, _ = load_yaml(text)
    except ValueError as error:
        raise BadValues(f"{where}: {' '.join(str(error).split())}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadValues(f"{where}: must be a mapping of values")
    return value


def merged(base: Tree, over: Tree) -> Tree:
    out = dict(base)
    for key, value in over.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        else:
            out[key] = value
    return out


class Values:
    """`get` by path; `unused` says which of the given values nobody asked for."""

    def __init__(self, defaults: Tree, given: Tree) -> None:
        self._given, self._tree = given, merged(defaults, given)
        self._asked: set[tuple[str, ...]] = set()

    def get(self, path: str, default: Any = None) -> Any:
        """The value, with all that is below it."""
        steps = tuple(path.split("."))
        self._asked.add(steps)
        found: Any = self._tree
        for step in steps:
            if not isinstance(found, dict) or step not in found:
                return default
            found = found[step]
        return default if found is None else found

    def mapping(self, path: str) -> Tree:
        """As `get`, {} if it is absent. Raises BadValues if it is something else."""
        found = self.get(path, {})
        if not isinstance(found, dict):
            raise BadValues(f"{path}: must be a mapping")
        return found

    def items(self, path: str) -> list[Any]:
        found = self.get(path, [])
        if not isinstance(found, list):
            raise BadValues(f"{path}: must be a list")
        return found

    def names(self, path: str) -> list[str]:
        """The keys below a path, which are then asked for one by one."""
        found: Any = self._tree
        for step in path.split("."):
            found = found.get(step) if isinstance(found, dict) else None
        return list(found) if isinstance(found, dict) else []

    def unused(self) -> list[str]:
        return [".".join(path) for path in _leaves(self._given, ()) if not self._covered(path)]

    def _covered(self, path: tuple[str, ...]) -> bool:
        return any(path[: length + 1] in self._asked for length in range(len(path)))


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from _leaves(child, (*path, str(key)))
    elif path:
        yield path
