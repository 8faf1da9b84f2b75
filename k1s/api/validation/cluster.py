"""Disruption budgets, priority classes, leases, runtime classes.

Called by: table.py. Never does: preempt, elect.
"""

from __future__ import annotations

from k1s.api import names
from k1s.api.errors import forbidden_field, invalid_value
from k1s.api.meta import Object
from k1s.api.validation.conditions import conditions
from k1s.api.validation.object_meta import label_map
from k1s.api.validation.rules import Errors, immutable, non_negative, one_of, percent_or_count, positive, quantities, strings
from k1s.api.validation.rules import at_most_hundred_percent as at_most_all
from k1s.api.validation.scheduling import tolerations
from k1s.api.validation.selectors import label_selector

MAX_USER_PRIORITY = 1_000_000_000
_SYSTEM_CLASSES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_PREEMPTION = ("Never", "PreemptLowerPriority")


def disruption_budget(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    low, high = spec.get("minAvailable"), spec.get("maxUnavailable")
    if low is not None and high is not None:
        errs.append(invalid_value("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for key, value in (("minAvailable", low), ("maxUnavailable", high)):
        percent_or_count(errs, f"spec.{key}", value)
        at_most_all(errs, f"spec.{key}", value)
    label_selector(errs, "spec.selector", spec.get("selector"))
    policy = spec.get("unhealthyPodEvictionPolicy")
    one_of(errs, "spec.unhealthyPodEvictionPolicy", policy, ("AlwaysAllow", "IfHealthyBudget"))


def disruption_budget_status(errs: Errors, obj: Object, old: Object) -> None:
    status = obj.get("status") or {}
    conditions(errs, "status.conditions", status.get("conditions"))
    for key in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        non_negative(errs, f"status.{key}", status.get(key))


def priority_class(errs: Errors, obj: Object) -> None:
    name, value = (obj.get("metadata") or {}).get("name") or "", obj.get("value") or 0
    if name.startswith("system-"):
        wrong = _not_known(name, value, bool(obj.get("globalDefault")))
        if wrong:
            text = f"priority class names with 'system-' prefix are reserved for system use only. error: {wrong}"
            errs.append(forbidden_field("metadata.name", text))
    elif value > MAX_USER_PRIORITY:
        text = f"maximum allowed value of a user defined priority is {MAX_USER_PRIORITY}"
        errs.append(forbidden_field("value", text))
    one_of(errs, "preemptionPolicy", obj.get("preemptionPolicy"), _PREEMPTION)


def _not_known(name: str, value: int, default: bool) -> str:
    known = _SYSTEM_CLASSES.get(name)
    if known is None:
        return f"{name} is not a known system priority class"
    if value != known:
        return f"value of {name} PriorityClass must be {known}"
    return f"globalDefault of {name} PriorityClass must be false" if default else ""


def priority_class_update(errs: Errors, obj: Object, old: Object) -> None:
    if (obj.get("value") or 0) != (old.get("value") or 0):
        errs.append(forbidden_field("value", "may not be changed in an update."))
    immutable(errs, "preemptionPolicy", obj.get("preemptionPolicy"), old.get("preemptionPolicy"))


def lease(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    positive(errs, "spec.leaseDurationSeconds", spec.get("leaseDurationSeconds"))
    non_negative(errs, "spec.leaseTransitions", spec.get("leaseTransitions"))
    strategy, preferred = spec.get("strategy"), spec.get("preferredHolder")
    if preferred and strategy is None:
        errs.append(forbidden_field("spec.preferredHolder", "may only be specified if `strategy` is defined"))


def runtime_class(errs: Errors, obj: Object) -> None:
    strings(errs, "handler", obj.get("handler") or "", names.dns1123_label)
    for name, amount in ((obj.get("overhead") or {}).get("podFixed") or {}).items():
        quantities(errs, f"overhead.limits[{name}]", amount)
    scheduling = obj.get("scheduling") or {}
    label_map(errs, "scheduling.nodeSelector", scheduling.get("nodeSelector"))
    tolerations(errs, "scheduling.tolerations", scheduling.get("tolerations"))


def runtime_class_update(errs: Errors, obj: Object, old: Object) -> None:
    immutable(errs, "handler", obj.get("handler"), old.get("handler"))
