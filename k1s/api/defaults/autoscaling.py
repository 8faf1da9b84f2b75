"""Defaults of autoscaling (v2 stored, v1 served). Called by: table.py. Never does: convert between them (api/convert.py)."""

from __future__ import annotations

from k1s.api.meta import Object

# The v1 annotation that carries v2's other metrics; it counts as a metric.
_METRICS_ANNOTATION = "autoscaling.alpha.kubernetes.io/metrics"


def autoscaler(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if spec.get("minReplicas") is None:
        spec["minReplicas"] = 1
    if str(obj.get("apiVersion", "")).endswith("/v1"):
        _v1(obj, spec)
        return
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is not None:
        behavior["scaleUp"] = _rules(behavior.get("scaleUp"), ("Pods", 4), ("Percent", 100), window=0)
        behavior["scaleDown"] = _rules(behavior.get("scaleDown"), ("Percent", 100), window=None)
    obj.setdefault("status", {}).setdefault("desiredReplicas", 0)


def _v1(obj: Object, spec: Object) -> None:
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    if spec.get("targetCPUUtilizationPercentage") is None and _METRICS_ANNOTATION not in annotations:
        spec["targetCPUUtilizationPercentage"] = 80
    status = obj.setdefault("status", {})
    status.setdefault("currentReplicas", 0)
    status.setdefault("desiredReplicas", 0)


def _rules(given: Object | None, *policies: tuple[str, int], window: int | None) -> Object:
    rules: Object = {} if given is None else given
    if rules.get("stabilizationWindowSeconds") is None and window is not None:
        rules["stabilizationWindowSeconds"] = window
    if rules.get("selectPolicy") is None:
        rules["selectPolicy"] = "Max"
    if rules.get("policies") is None:
        rules["policies"] = [{"type": kind, "value": value, "periodSeconds": 15} for kind, value in policies]
    return rules
