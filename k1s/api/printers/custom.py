"""Columns of custom resources, from a CRD version's additionalPrinterColumns.

custom_printer(columns) -> Printer, to be kept per CRD version: paths are compiled once.
Called by: apiserver (crds). Never does: validate the CRD (validation/definitions.py did).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from k1s.api.meta import Object
from k1s.api.printers.columns import NAME, Printer, human_duration, name, seconds
from k1s.api.printers.jsonpath import compile_path

AGE_COLUMN = {
    "name": "Age",
    "type": "date",
    "description": "CreationTimestamp is a timestamp representing the server time when this object was created.",
    "jsonPath": ".metadata.creationTimestamp",
}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _cell(kind: str, found: list[Any], now: float) -> Any:
    """One cell; None prints as <none>."""
    if not found or found[0] is None:
        return None
    value = found[0]
    if kind == "string":
        return " ".join(_text(item) for item in found)
    if kind == "date":
        moment = seconds(value) if isinstance(value, str) else None
        return "<invalid>" if moment is None else human_duration(now - moment)
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if kind == "integer" else value


def custom_printer(additional: Iterable[Object] | None) -> Printer:
    """The printer of one version. ValueError if a path is not a simple JSON path."""
    wanted = list(additional or ()) or [AGE_COLUMN]
    columns = tuple(
        {
            "name": c["name"],
            "type": c["type"],
            "format": c.get("format") or "",
            "description": c.get("description") or f"Custom resource definition column (in JSONPath format): {c['jsonPath']}",
            "priority": c.get("priority") or 0,
        }
        for c in wanted
    )
    finders: list[tuple[str, Callable[[Any], list[Any]]]] = [(c["type"], compile_path(c["jsonPath"])) for c in wanted]

    def cells(obj: Object, now: float) -> list[Any]:
        return [name(obj), *(_cell(kind, find(obj), now) for kind, find in finders)]

    return Printer((NAME, *columns), cells)
