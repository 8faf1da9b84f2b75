"""From one version of a kind to another.

Owns: the few conversions among stable built-in kinds: HorizontalPodAutoscaler v1 <-> v2, Event of core <-> events.k8s.io.
Called by: the apiserver's object store and handlers. Never does: call conversion webhooks (apiserver/crds does).
Where an older version cannot say something, it is kept in the annotations upstream uses, so that it survives a round trip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from k1s.api.catalog import Resource

Object = dict[str, Any]

_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_CURRENT_METRICS = "autoscaling.alpha.kubernetes.io/current-metrics"
_CONDITIONS = "autoscaling.alpha.kubernetes.io/conditions"
_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"


def convert(obj: Object, source: Resource, target: Resource) -> Object:
    """`obj` as `target` says it. A new top level; what did not change is shared with `obj`, so treat both as read-only."""
    if source.api_version == target.api_version:
        return obj
    change = _CONVERSIONS.get((source.kind, source.api_version, target.api_version))
    out = change(obj) if change is not None else dict(obj)
    out["apiVersion"] = target.api_version
    out["kind"] = target.kind
    return out


def _put(target: Object, **fields: Any) -> None:
    for key, value in fields.items():
        if value not in (None, "", [], {}):
            target[key] = value


def _hpa_to_v1(obj: Object) -> Object:
    out = dict(obj)
    notes: dict[str, str] = {}
    out["spec"] = spec = dict(obj.get("spec") or {})
    metrics = spec.pop("metrics", None) or []
    behavior = spec.pop("behavior", None)
    others = []
    for metric in metrics:
        percent = _cpu_utilization(metric, "target")
        if percent is not None and "targetCPUUtilizationPercentage" not in spec:
            spec["targetCPUUtilizationPercentage"] = percent
        else:
            others.append(_metric_to_v1(metric))
    if others:
        notes[_METRICS] = orjson.dumps(others).decode()
    if behavior:
        notes[_BEHAVIOR] = orjson.dumps(behavior).decode()
    if "status" in obj:
        out["status"] = status = dict(obj["status"] or {})
        current = status.pop("currentMetrics", None) or []
        conditions = status.pop("conditions", None)
        for metric in current:
            percent = _cpu_utilization(metric, "current")
            if percent is not None:
                status["currentCPUUtilizationPercentage"] = percent
        if current:
            notes[_CURRENT_METRICS] = orjson.dumps([_metric_to_v1(m) for m in current]).decode()
        if conditions:
            notes[_CONDITIONS] = orjson.dumps(conditions).decode()
    if notes:
        metadata = dict(obj.get("metadata") or {})
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **notes}
        out["metadata"] = metadata
    return out


def _cpu_utilization(metric: Object, side: str) -> int | None:
    resource = metric.get("resource") or {}
    if metric.get("type") != "Resource" or resource.get("name") != "cpu":
        return None
    value = resource.get(side) or {}
    if side == "target" and value.get("type", "Utilization") != "Utilization":
        return None
    found = value.get("averageUtilization")
    return found if isinstance(found, int) else None


# v1 keeps other metrics in the shape of v2beta1, where target and current values stood flat in the source.
_FLAT = {
    "resource": (
        ("averageUtilization", "targetAverageUtilization", "currentAverageUtilization"),
        ("averageValue", "targetAverageValue", "currentAverageValue"),
    ),
    "containerResource": (
        ("averageUtilization", "targetAverageUtilization", "currentAverageUtilization"),
        ("averageValue", "targetAverageValue", "currentAverageValue"),
    ),
    "pods": (("averageValue", "targetAverageValue", "currentAverageValue"),),
    "object": (("value", "targetValue", "currentValue"), ("averageValue", "averageValue", "averageValue")),
    "external": (
        ("value", "targetValue", "currentValue"),
        ("averageValue", "targetAverageValue", "currentAverageValue"),
    ),
}


def _metric_to_v1(metric: Object) -> Object:
    out: Object = {"type": metric.get("type", "")}
    for key, rows in _FLAT.items():
        source = metric.get(key)
        if source is None:
            continue
        side = "current" if "current" in source else "target"
        column = 2 if side == "current" else 1
        flat: Object = {}
        _put(flat, name=source.get("name"), container=source.get("container"))
        if key == "object":
            flat["target"] = source.get("describedObject") or {}
        named = source.get("metric") or {}
        _put(flat, metricName=named.get("name"))
        _put(flat, **{"metricSelector" if key == "external" else "selector": named.get("selector")})
        for row in rows:
            if (source.get(side) or {}).get(row[0]) is not None:
                flat[row[column]] = source[side][row[0]]
        out[key] = flat
    return out


def _metric_to_v2(metric: Object, current: bool) -> Object:
    out: Object = {"type": metric.get("type", "")}
    column, side = (2, "current") if current else (1, "target")
    for key, rows in _FLAT.items():
        flat = metric.get(key)
        if flat is None:
            continue
        value = {row[0]: flat[row[column]] for row in rows if flat.get(row[column]) is not None}
        if not current:
            kinds = {"averageUtilization": "Utilization", "value": "Value", "averageValue": "AverageValue"}
            found = next((kinds[name] for name in ("averageUtilization", "averageValue", "value") if name in value), "Value")
            value["type"] = found
        source: Object = {side: value}
        _put(source, name=flat.get("name"), container=flat.get("container"))
        if key == "object":
            source["describedObject"] = flat.get("target") or {}
        if key in ("pods", "object", "external"):
            source["metric"] = named = {"name": flat.get("metricName", "")}
            _put(named, selector=flat.get("metricSelector" if key == "external" else "selector"))
        out[key] = source
    return out


def _noted(annotations: dict[str, str], key: str) -> Any:
    text = annotations.pop(key, None)
    if text is None:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # A user may have written anything there; upstream ignores what it cannot read.
        return None


def _hpa_to_v2(obj: Object) -> Object:
    out = dict(obj)
    metadata = dict(obj.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    out["spec"] = spec = dict(obj.get("spec") or {})
    percent = spec.pop("targetCPUUtilizationPercentage", None)
    metrics = [_metric_to_v2(metric, False) for metric in _noted(annotations, _METRICS) or []]
    if percent is not None:
        target = {"type": "Utilization", "averageUtilization": percent}
        metrics.insert(0, {"type": "Resource", "resource": {"name": "cpu", "target": target}})
    _put(spec, metrics=metrics, behavior=_noted(annotations, _BEHAVIOR))
    current = [_metric_to_v2(metric, True) for metric in _noted(annotations, _CURRENT_METRICS) or []]
    conditions = _noted(annotations, _CONDITIONS)
    if "status" in obj or current or conditions:
        out["status"] = status = dict(obj.get("status") or {})
        used = status.pop("currentCPUUtilizationPercentage", None)
        if used is not None and not any(_cpu_utilization(m, "current") is not None for m in current):
            current.insert(0, {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": used}}})
        _put(status, currentMetrics=current, conditions=conditions)
    if annotations:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
    out["metadata"] = metadata
    return out


_EVENT_FIELDS = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_EVENT_FIELDS_BACK = {new: old for old, new in _EVENT_FIELDS.items()}


def _renamed(obj: Object, names: dict[str, str]) -> Object:
    return {names.get(key, key): value for key, value in obj.items()}


def _event_to_new(obj: Object) -> Object:
    return _renamed(obj, _EVENT_FIELDS)


def _event_to_core(obj: Object) -> Object:
    return _renamed(obj, _EVENT_FIELDS_BACK)


_CONVERSIONS: dict[tuple[str, str, str], Callable[[Object], Object]] = {
    ("HorizontalPodAutoscaler", "autoscaling/v2", "autoscaling/v1"): _hpa_to_v1,
    ("HorizontalPodAutoscaler", "autoscaling/v1", "autoscaling/v2"): _hpa_to_v2,
    ("Event", "v1", "events.k8s.io/v1"): _event_to_new,
    ("Event", "events.k8s.io/v1", "v1"): _event_to_core,
}
