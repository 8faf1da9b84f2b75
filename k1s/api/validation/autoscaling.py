"""HorizontalPodAutoscalers, both versions.

Called by: table.py. Never does: look whether the target exists.
"""

from __future__ import annotations

from typing import Any

from k1s.api import names, quantity
from k1s.api.errors import forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.rules import NOT_POSITIVE, Errors, named, non_negative, one_of, positive, strings
from k1s.api.validation.selectors import label_selector

_SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_ORDER = ("object", "external", "pods", "resource", "containerResource")
_MAX_WINDOW = 3600
_MAX_PERIOD = 1800


def _reference(errs: Errors, at: str, ref: Object) -> None:
    for key in ("kind", "name"):
        named(errs, f"{at}.{key}", ref.get(key), names.path_segment_name)


def autoscaler(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    low, high = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    if isinstance(low, int) and low < 1:
        errs.append(invalid_value("spec.minReplicas", low, "must be greater than or equal to 1"))
    if high < 1:
        errs.append(invalid_value("spec.maxReplicas", high, NOT_POSITIVE))
    if isinstance(low, int) and high < low:
        errs.append(invalid_value("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`"))
    _reference(errs, "spec.scaleTargetRef", spec.get("scaleTargetRef") or {})
    positive(errs, "spec.targetCPUUtilizationPercentage", spec.get("targetCPUUtilizationPercentage"))
    for index, metric in enumerate(spec.get("metrics") or ()):
        _metric(errs, f"spec.metrics[{index}]", metric)
    behavior = spec.get("behavior") or {}
    for key in ("scaleUp", "scaleDown"):
        if behavior.get(key) is not None:
            _rules(errs, f"spec.behavior.{key}", behavior[key])


def _metric(errs: Errors, at: str, metric: Object) -> None:
    kind = metric.get("type") or ""
    if not kind:
        errs.append(required(f"{at}.type", "must specify a metric source type"))
    if kind not in _SOURCES:
        errs.append(not_supported(f"{at}.type", kind, _SOURCES))
    # Only the first one is looked at; the order is upstream's.
    given = [key for key in _ORDER if metric.get(key) is not None]
    for key in given[:1]:
        _source(errs, f"{at}.{key}", key, metric[key])
    expected = _SOURCES.get(kind, "")
    if expected and expected not in given:
        errs.append(required(f"{at}.{expected}", "must populate information for the given metric source"))
    for key in given if len(given) > 1 else ():
        if key != expected:
            errs.append(forbidden_field(f"{at}.{key}", "must populate the given metric source only"))


def _source(errs: Errors, at: str, key: str, source: Object) -> None:
    target = source.get("target") or {}
    if key in ("resource", "containerResource"):
        if not source.get("name"):
            errs.append(required(f"{at}.name", "must specify a resource name"))
        if key == "containerResource" and not source.get("container"):
            errs.append(required(f"{at}.container", "must specify a container"))
        _resource_target(errs, f"{at}.target", target)
        return
    if key == "object":
        _reference(errs, f"{at}.describedObject", source.get("describedObject") or {})
    metric = source.get("metric") or {}
    if not metric.get("name"):
        errs.append(required(f"{at}.metric.name", "must specify a metric name"))
    else:
        strings(errs, f"{at}.metric.name", metric["name"], names.path_segment_name)
    label_selector(errs, f"{at}.metric.selector", metric.get("selector"))
    _target(errs, f"{at}.target", target)
    value, average = target.get("value"), target.get("averageValue")
    if key == "pods":
        if average is None or not _is_positive(average):
            errs.append(required(f"{at}.target.averageValue", "must specify a positive target averageValue"))
        return
    if value is None and average is None:
        text = "must set either a target value for metric or a per-pod target"
        errs.append(required(f"{at}.target.averageValue", text))
    if key == "external" and value is not None and average is not None:
        text = "may not set both a target value for metric and a per-pod target"
        errs.append(forbidden_field(f"{at}.target.value", text))


def _is_positive(value: Any) -> bool:
    try:
        return quantity.parse(value) > 0
    except ValueError:
        return True  # it is named where it stands


def _target(errs: Errors, at: str, target: Object) -> None:
    kind = target.get("type")
    if not kind:
        errs.append(required(f"{at}.type", "must specify a metric target type"))
    if kind not in ("Utilization", "Value", "AverageValue"):
        errs.append(invalid_value(f"{at}.type", kind or "", "must be either Utilization, Value, or AverageValue"))
    for key in ("value", "averageValue"):
        amount = target.get(key)
        if amount is None:
            continue
        try:
            positive_amount = quantity.parse(amount) > 0
        except ValueError as error:
            errs.append(invalid_value(f"{at}.{key}", amount, str(error)))
            continue
        if not positive_amount:
            errs.append(invalid_value(f"{at}.{key}", str(amount), "must be positive"))
    positive(errs, f"{at}.averageUtilization", target.get("averageUtilization"))


def _resource_target(errs: Errors, at: str, target: Object) -> None:
    _target(errs, at, target)
    percent, value = target.get("averageUtilization"), target.get("averageValue")
    if percent is None and value is None:
        errs.append(required(f"{at}.averageUtilization", "must set either a target raw value or a target utilization"))
    elif percent is not None and value is not None:
        errs.append(forbidden_field(f"{at}.averageValue", "may not set both a target raw value and a target utilization"))


def _rules(errs: Errors, at: str, rules: Object) -> None:
    window = rules.get("stabilizationWindowSeconds")
    if isinstance(window, int):
        if window < 0:
            errs.append(invalid_value(f"{at}.stabilizationWindowSeconds", window, "must be greater than or equal to zero"))
        elif window > _MAX_WINDOW:
            text = f"must be less than or equal to {_MAX_WINDOW}"
            errs.append(invalid_value(f"{at}.stabilizationWindowSeconds", window, text))
    one_of(errs, f"{at}.selectPolicy", rules.get("selectPolicy"), ("Disabled", "Max", "Min"))
    tolerance = rules.get("tolerance")
    if tolerance is not None and not _not_negative(tolerance):
        errs.append(invalid_value(f"{at}.tolerance", str(tolerance), "must be greater than or equal to 0"))
    policies = rules.get("policies") or []
    if not policies:
        errs.append(required(f"{at}.policies", "must specify at least one Policy"))
    for index, policy in enumerate(policies):
        here = f"{at}.policies[{index}]"
        one_of(errs, f"{here}.type", policy.get("type"), ("Percent", "Pods"), needed=True)
        for key in ("value", "periodSeconds"):
            if (policy.get(key) or 0) <= 0:
                errs.append(invalid_value(f"{here}.{key}", policy.get(key) or 0, "must be greater than zero"))
        if (policy.get("periodSeconds") or 0) > _MAX_PERIOD:
            text = f"must be less than or equal to {_MAX_PERIOD}"
            errs.append(invalid_value(f"{here}.periodSeconds", policy["periodSeconds"], text))


def _not_negative(value: Any) -> bool:
    try:
        return quantity.parse(value) >= 0
    except ValueError:
        return False


def autoscaler_status(errs: Errors, obj: Object, old: Object) -> None:
    for key in ("currentReplicas", "desiredReplicas"):
        non_negative(errs, f"status.{key}", (obj.get("status") or {}).get(key))
