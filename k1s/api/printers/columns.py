"""What a printer is: the column definitions of a kind and the function that fills a row; and the words rows share.

Owns: Printer, column(), ages, joined lists. Called by: the other files of this package and api/table.py.
Never does: know a kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from k1s.api.meta import Object

Cells = Callable[[Object, float], list[Any]]

NONE = "<none>"
UNKNOWN = "<unknown>"
UNSET = "<unset>"


@dataclass(frozen=True, slots=True)
class Printer:
    """Columns of a kind (metav1.TableColumnDefinition) and its row: (object, now) -> cells, one per column."""

    columns: tuple[dict[str, Any], ...]
    cells: Cells


def column(name: str, description: str, *, type: str = "string", format: str = "", wide: bool = False) -> dict[str, Any]:
    """A TableColumnDefinition; `wide` ones show with -o wide only."""
    return {"name": name, "type": type, "format": format, "description": description, "priority": 1 if wide else 0}


def integer(name: str, description: str) -> dict[str, Any]:
    return column(name, description, type="integer")


NAME = column(
    "Name",
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to"
    " request the generation of an appropriate name automatically.",
    format="name",
)
AGE = column(
    "Age",
    "CreationTimestamp is a timestamp representing the server time when this object was created. Clients may not set this value."
    " It is represented in RFC3339 form and is in UTC.",
)
CREATED_AT = column("Created At", AGE["description"], type="date")
CONTAINERS = column("Containers", "Names of each container in the template.", wide=True)
IMAGES = column("Images", "Images referenced by each container in the template.", wide=True)
SELECTOR = column("Selector", "Label selector of the pods this object is about.", wide=True)


def metadata(obj: Object) -> Object:
    return obj.get("metadata") or {}


def name(obj: Object) -> str:
    return metadata(obj).get("name") or ""


def spec(obj: Object) -> Object:
    return obj.get("spec") or {}


def status(obj: Object) -> Object:
    return obj.get("status") or {}


def seconds(timestamp: str | None) -> float | None:
    """RFC 3339 -> seconds since the epoch; None for absent or unreadable."""
    if not timestamp:
        return None
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except ValueError:
        return None


def human_duration(elapsed: float) -> str:
    """duration.HumanDuration: two units at most, coarser the longer it is."""
    total = int(elapsed)
    if total < -1:
        return "<invalid>"
    if total < 0:
        return "0s"
    if total < 120:
        return f"{total}s"
    minutes = total // 60
    if minutes < 10:
        return _two(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    hours = minutes // 60
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 24 * 8:
        return _two(hours // 24, "d", hours % 24, "h")
    days = hours // 24
    if days < 365 * 2:
        return f"{days}d"
    if days < 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(major: int, unit: str, minor: int, small: str) -> str:
    return f"{major}{unit}{minor}{small}" if minor else f"{major}{unit}"


def since(timestamp: str | None, now: float) -> str:
    """The age of a moment, "<unknown>" if there is none."""
    then = seconds(timestamp)
    return UNKNOWN if then is None else human_duration(now - then)


def age(obj: Object, now: float) -> str:
    return since(metadata(obj).get("creationTimestamp"), now)


def created_at(obj: Object) -> str:
    return metadata(obj).get("creationTimestamp") or UNKNOWN


def format_labels(labels: Mapping[str, str] | None) -> str:
    """labels.FormatLabels: sorted k=v, "<none>" for nothing."""
    if not labels:
        return NONE
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels))


_SYMBOL = {"In": "in", "NotIn": "notin"}


def format_selector(selector: Object | None) -> str:
    """metav1.FormatLabelSelector."""
    if not selector:
        return NONE
    terms = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for term in selector.get("matchExpressions") or ():
        key, operator = term.get("key", ""), term.get("operator")
        if operator == "Exists":
            text = key
        elif operator == "DoesNotExist":
            text = f"!{key}"
        else:
            text = f"{key} {_SYMBOL.get(operator, operator)} ({','.join(sorted(term.get('values') or ()))})"
        terms.append((key, text))
    return ",".join(text for _, text in sorted(terms)) or NONE


def layout_containers(containers: Iterable[Object] | None) -> list[str]:
    """[names, images], each joined by commas."""
    found = list(containers or ())
    return [",".join(c.get("name") or "" for c in found), ",".join(c.get("image") or "" for c in found)]


def template_containers(obj: Object) -> list[str]:
    return layout_containers((spec(obj).get("template") or {}).get("spec", {}).get("containers"))


def first(items: list[str], most: int, total: int, nothing: str) -> str:
    """The first few of a list, and how many more there are."""
    if not items:
        return nothing
    text = ",".join(items[:most])
    return f"{text} + {total - most} more..." if len(items) > most else text


def boolean(value: bool | None) -> str:
    """printBoolPtr."""
    return UNSET if value is None else str(bool(value))


def true_condition(obj: Object, kind: str) -> bool:
    return any(c.get("type") == kind and c.get("status") == "True" for c in status(obj).get("conditions") or ())
