"""The targets cell of an autoscaler: "cpu: 12%/80%, <unknown>/100 + 1 more...".

Called by: cluster.py. Never does: compute; it words what spec.metrics and status.currentMetrics say.
"""

from __future__ import annotations

from k1s.api.meta import Object
from k1s.api.printers.columns import NONE, UNKNOWN, spec, status

_SHOWN = 2
_KEYS = {
    "External": "external",
    "Pods": "pods",
    "Object": "object",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}


def targets(obj: Object) -> str:
    """v2 metrics, or v1's CPU percentage."""
    if "metrics" not in spec(obj):
        wanted = spec(obj).get("targetCPUUtilizationPercentage")
        if wanted is None:
            return NONE
        current = status(obj).get("currentCPUUtilizationPercentage")
        return f"cpu: {UNKNOWN if current is None else f'{current}%'}/{wanted}%"
    metrics = spec(obj).get("metrics") or []
    current_metrics = status(obj).get("currentMetrics") or []
    shown = [_one(m, current_metrics[i] if i < len(current_metrics) else {}) for i, m in enumerate(metrics)]
    if not shown:
        return NONE
    text = ", ".join(shown[:_SHOWN])
    return f"{text} + {len(shown) - _SHOWN} more..." if len(shown) > _SHOWN else text


def _one(metric: Object, status_metric: Object) -> str:
    kind = metric.get("type") or ""
    key = _KEYS.get(kind)
    if key is None:
        return "<unknown type>"
    source = metric.get(key) or {}
    target = source.get("target") or {}
    current = (status_metric.get(key) or {}).get("current") or {}
    if kind in ("Resource", "ContainerResource"):
        return f"{source.get('name')}: {_utilisation(target, current)}"
    average = target.get("averageValue")
    if average is not None:
        suffix = " (avg)" if kind in ("External", "Object") else ""
        return f"{current.get('averageValue') or UNKNOWN}/{average}{suffix}"
    return f"{current.get('value') or UNKNOWN}/{target.get('value')}"


def _utilisation(target: Object, current: Object) -> str:
    if target.get("averageValue") is not None:
        return f"{current.get('averageValue') or UNKNOWN}/{target['averageValue']}"
    now, wanted = current.get("averageUtilization"), target.get("averageUtilization")
    return f"{UNKNOWN if now is None else f'{now}%'}/{'<auto>' if wanted is None else f'{wanted}%'}"
