"""Events: the light rules of the core group, and the strict ones of events.k8s.io.

Called by: table.py. Both look at the object as it is stored (core v1), and so name its fields, as upstream does.
Never does: count or aggregate.
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, immutable, strings

_SHORT, _NOTE = 128, 1024
_MISPLACED = "does not match event.namespace"
_FIXED = (
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
)
_CONTROLLER = "reportingController"
_CALLED = {"reportingComponent": _CONTROLLER}
_SERIES_COUNT = "series.count"


def event(errs: Errors, obj: Object, controller: str = "reportingComponent") -> None:
    """What every event must keep, whoever it comes from; `controller`: what the version asked for calls that field."""
    place = (obj.get("metadata") or {}).get("namespace") or ""
    about = (obj.get("involvedObject") or {}).get("namespace") or ""
    if obj.get("eventTime"):
        if not about and place not in ("default", "kube-system"):
            errs.append(invalid_value("involvedObject.namespace", about, _MISPLACED))
        _reporter(errs, obj, controller)
    elif about != place and (about or place not in ("", "default")):
        errs.append(invalid_value("involvedObject.namespace", about, _MISPLACED))
    strings(errs, "namespace", place, names.dns1123_subdomain)


def _reporter(errs: Errors, obj: Object, controller: str) -> None:
    name = obj.get("reportingComponent") or ""
    if not name:
        errs.append(required(controller))
    strings(errs, controller, name, names.qualified_name)
    for field in ("reportingInstance", "action", "reason"):
        value = obj.get(field) or ""
        if not value:
            errs.append(required(field))
        _short(errs, field, value, _SHORT)
    _short(errs, "message", obj.get("message") or "", _NOTE)


def _short(errs: Errors, field: str, value: str, most: int) -> None:
    if len(value.encode()) > most:
        errs.append(invalid_value(field, "", f"can have at most {most} characters"))


def _series(errs: Errors, series: Any) -> None:
    if series is None:
        return
    if (series.get("count") or 0) < 2:
        errs.append(invalid_value(_SERIES_COUNT, "", "should be at least 2"))
    if not series.get("lastObservedTime"):
        errs.append(required("series.lastObservedTime"))


def new_event(errs: Errors, obj: Object) -> None:
    """What events.k8s.io/v1 asks of a new one besides: it has a time of its own and nothing of the old fields."""
    event(errs, obj, _CONTROLLER)
    _series(errs, obj.get("series"))
    if not obj.get("eventTime"):
        errs.append(required("eventTime"))
    kind = obj.get("type") or ""
    if kind not in ("Normal", "Warning"):
        errs.append(invalid_value("type", "", f"has invalid value: {kind}"))
    source = obj.get("source") or {}
    for field in ("firstTimestamp", "lastTimestamp", "count"):
        if obj.get(field):
            errs.append(invalid_value(field, "", "needs to be unset"))
    if source.get("component") or source.get("host"):
        errs.append(invalid_value("source", "", "needs to be unset"))


def event_update(errs: Errors, obj: Object, old: Object) -> None:
    event(errs, obj)


def new_event_update(errs: Errors, obj: Object, old: Object) -> None:
    """Through events.k8s.io/v1 only the series moves."""
    event(errs, obj, _CONTROLLER)
    if obj.get("series") != old.get("series"):
        _series(errs, obj.get("series"))
    for field in _FIXED:
        immutable(errs, _CALLED.get(field, field), obj.get(field), old.get(field))
