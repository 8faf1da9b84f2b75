"""Every function that Kubernetes adds to CEL, with its types: the table that the runtime is told.

Owns: extension(). Called by: program. Never does: compute (the files named in the imports do).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from k1s.api.cel import addresses, authorizer, constructors, lists, named_formats, quantities, regexes, semvers, sets, urls

# (name, member?, parameter types, result type, implementation); the receiver of a member is its first parameter.
Function = tuple[str, bool, tuple[str, ...], str, Callable[..., Any]]

_MODULES = (addresses, authorizer, constructors, lists, named_formats, quantities, regexes, semvers, sets, urls)


def functions() -> Iterator[Function]:
    for module in _MODULES:
        yield from module.FUNCTIONS


def extension(cel: Any) -> Any:
    """The table as an extension of the runtime's environments. `cel`: the runtime's module."""
    by_name: dict[str, list[Function]] = {}
    merged: dict[tuple[str, bool, tuple[str, ...]], Function] = {}
    for function in functions():
        key = function[:3]
        if key in merged:
            raise ValueError(f"two functions of one signature: {key}")
        merged[key] = function
        by_name.setdefault(function[0], []).append(function)
    types = {name: getattr(cel.Type, name) for name in ("BOOL", "DOUBLE", "DYN", "INT", "LIST", "MAP", "STRING")}
    declared = []
    for name, group in by_name.items():
        overloads = [
            cel.Overload(
                f"k8s_{name}_{'m' if member else 'g'}_{'_'.join(parameters).lower()}",
                types[result],
                [types[parameter] for parameter in parameters],
                member,
                implementation,
            )
            for _, member, parameters, result, implementation in group
        ]
        declared.append(cel.FunctionDecl(name, overloads))
    return cel.CelExtension("kubernetes", declared)
