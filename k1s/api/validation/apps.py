"""apps/v1 and ReplicationController: replicas, selectors that match their templates, update strategies.

Called by: table.py. Never does: the pod template itself (pod.py).
"""

from __future__ import annotations

from typing import Any

from k1s.api.errors import forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation import pod
from k1s.api.validation.claims import claim_spec
from k1s.api.validation.rules import (
    Errors,
    at_most_hundred_percent,
    immutable,
    non_negative,
    one_of,
    percent_or_count,
    percent_value,
    same,
)
from k1s.api.validation.selectors import is_empty, label_selector, selects

_MISMATCH = "`selector` does not match template `labels`"


def _selector(errs: Errors, spec: Object, what: str) -> None:
    selector = spec.get("selector")
    if selector is None:
        errs.append(required("spec.selector"))
        return
    label_selector(errs, "spec.selector", selector)
    if is_empty(selector):
        errs.append(invalid_value("spec.selector", selector, f"empty selector is invalid for {what}"))


def _template(errs: Errors, spec: Object, selector: Object | None, kind: str) -> None:
    """The template of pods that run for ever, selected by `selector`."""
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector is not None and not is_empty(selector) and not selects(selector, labels):
        errs.append(invalid_value("spec.template.metadata.labels", labels, _MISMATCH))
    pod.template(errs, "spec.template", template)
    pod_spec = template.get("spec") or {}
    policy = pod_spec.get("restartPolicy")
    if policy and policy != "Always":
        errs.append(not_supported("spec.template.spec.restartPolicy", policy, ("Always",)))
    if pod_spec.get("activeDeadlineSeconds") is not None:
        text = f"activeDeadlineSeconds in {kind} is not Supported"
        errs.append(forbidden_field("spec.template.spec.activeDeadlineSeconds", text))


def _counts(errs: Errors, at: str, holder: Object, *keys: str) -> None:
    for key in keys:
        non_negative(errs, f"{at}.{key}", holder.get(key))


def _is_zero(value: Any) -> bool:
    return value is not None and percent_value(value) == 0


def _deployment_strategy(errs: Errors, strategy: Object) -> None:
    at, kind, rolling = "spec.strategy", strategy.get("type"), strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            text = "may not be specified when strategy `type` is 'Recreate'"
            errs.append(forbidden_field(f"{at}.rollingUpdate", text))
    elif kind == "RollingUpdate":
        if rolling is None:
            errs.append(required(f"{at}.rollingUpdate", "this should be defaulted and never be nil"))
            return
        unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
        percent_or_count(errs, f"{at}.rollingUpdate.maxUnavailable", unavailable)
        percent_or_count(errs, f"{at}.rollingUpdate.maxSurge", surge)
        if _is_zero(unavailable) and _is_zero(surge):
            text = "may not be 0 when `maxSurge` is 0"
            errs.append(invalid_value(f"{at}.rollingUpdate.maxUnavailable", unavailable, text))
        at_most_hundred_percent(errs, f"{at}.rollingUpdate.maxUnavailable", unavailable)
    elif not kind:
        errs.append(required(f"{at}.type"))
    else:
        errs.append(not_supported(f"{at}.type", kind, ("Recreate", "RollingUpdate")))


def deployment(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    _counts(errs, "spec", spec, "replicas")
    _selector(errs, spec, "deployment")
    _template(errs, spec, spec.get("selector"), "ReplicaSet")
    _deployment_strategy(errs, spec.get("strategy") or {})
    _counts(errs, "spec", spec, "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")
    deadline = spec.get("progressDeadlineSeconds")
    if isinstance(deadline, int) and deadline <= (spec.get("minReadySeconds") or 0):
        errs.append(invalid_value("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))


def _fixed_selector(errs: Errors, obj: Object, old: Object) -> None:
    immutable(errs, "spec.selector", (obj.get("spec") or {}).get("selector"), (old.get("spec") or {}).get("selector"))


def deployment_update(errs: Errors, obj: Object, old: Object) -> None:
    deployment(errs, obj)
    _fixed_selector(errs, obj, old)


def replica_set(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    _counts(errs, "spec", spec, "replicas", "minReadySeconds")
    _selector(errs, spec, "deployment")
    _template(errs, spec, spec.get("selector"), "ReplicaSet")


def replica_set_update(errs: Errors, obj: Object, old: Object) -> None:
    replica_set(errs, obj)
    _fixed_selector(errs, obj, old)


def replication_controller(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    _counts(errs, "spec", spec, "minReadySeconds", "replicas")
    selector = spec.get("selector")
    if not selector:
        errs.append(required("spec.selector"))
    if spec.get("template") is None:
        errs.append(required("spec.template"))
        return
    _template(errs, spec, {"matchLabels": selector or {}}, "ReplicationController")


def _daemon_strategy(errs: Errors, strategy: Object) -> None:
    at, kind, rolling = "spec.updateStrategy", strategy.get("type"), strategy.get("rollingUpdate")
    if kind == "OnDelete":
        return
    if kind != "RollingUpdate":
        # Upstream names the whole strategy, not its type.
        errs.append(not_supported(at, strategy, ("RollingUpdate", "OnDelete")))
        return
    if rolling is None:
        errs.append(required(f"{at}.rollingUpdate"))
        return
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    for key, value in (("maxUnavailable", unavailable), ("maxSurge", surge)):
        percent_or_count(errs, f"{at}.rollingUpdate.{key}", value)
        at_most_hundred_percent(errs, f"{at}.rollingUpdate.{key}", value)
    has_unavailable, has_surge = bool(percent_value(unavailable)), bool(percent_value(surge))
    if has_unavailable and has_surge:
        text = "may not be set when maxUnavailable is non-zero"
        errs.append(invalid_value(f"{at}.rollingUpdate.maxSurge", surge, text))
    elif not has_unavailable and not has_surge:
        errs.append(required(f"{at}.rollingUpdate.maxUnavailable", "cannot be 0 when maxSurge is 0"))


def daemon_set(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    _selector(errs, spec, "daemonset")
    _template(errs, spec, spec.get("selector"), "DaemonSet")
    _counts(errs, "spec", spec, "minReadySeconds", "revisionHistoryLimit")
    _daemon_strategy(errs, spec.get("updateStrategy") or {})


def daemon_set_update(errs: Errors, obj: Object, old: Object) -> None:
    daemon_set(errs, obj)
    _fixed_selector(errs, obj, old)


def _stateful_strategy(errs: Errors, strategy: Object) -> None:
    at, kind, rolling = "spec.updateStrategy", strategy.get("type"), strategy.get("rollingUpdate")
    if not kind:
        errs.append(required(at))
    elif kind == "OnDelete":
        if rolling is not None:
            text = "only allowed for updateStrategy 'RollingUpdate'"
            errs.append(invalid_value(f"{at}.rollingUpdate", rolling, text))
    elif kind == "RollingUpdate":
        non_negative(errs, f"{at}.rollingUpdate.partition", (rolling or {}).get("partition"))
        unavailable = (rolling or {}).get("maxUnavailable")
        if unavailable is not None:
            percent_or_count(errs, f"{at}.rollingUpdate.maxUnavailable", unavailable)
            at_most_hundred_percent(errs, f"{at}.rollingUpdate.maxUnavailable", unavailable)
            if _is_zero(unavailable):
                errs.append(invalid_value(f"{at}.rollingUpdate.maxUnavailable", unavailable, "cannot be 0"))
    else:
        errs.append(invalid_value(at, strategy, "must be 'RollingUpdate' or 'OnDelete'"))


def stateful_set(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    policy = spec.get("podManagementPolicy")
    if not policy:
        errs.append(required("spec.podManagementPolicy"))
    elif policy not in ("OrderedReady", "Parallel"):
        errs.append(invalid_value("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'"))
    _stateful_strategy(errs, spec.get("updateStrategy") or {})
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for key in ("whenDeleted", "whenScaled"):
        one_of(errs, f"spec.persistentVolumeClaimRetentionPolicy.{key}", retention.get(key), ("Delete", "Retain"))
    _counts(errs, "spec", spec, "replicas", "minReadySeconds")
    _counts(errs, "spec.ordinals", spec.get("ordinals") or {}, "start")
    _selector(errs, spec, "statefulset")
    _template(errs, _with_claims(spec), spec.get("selector"), "StatefulSet")
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        claim_spec(errs, f"spec.volumeClaimTemplates[{index}].spec", claim.get("spec") or {})


def _with_claims(spec: Object) -> Object:
    """The spec, its template with the volumes that the claim templates will bring: mounts may name them."""
    claims = [(c.get("metadata") or {}).get("name") for c in spec.get("volumeClaimTemplates") or ()]
    template = spec.get("template") or {}
    pod_spec = template.get("spec") or {}
    volumes = [v for v in pod_spec.get("volumes") or () if v.get("name") not in claims]
    volumes += [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims if name]
    return {**spec, "template": {**template, "spec": {**pod_spec, "volumes": volumes}}} if claims else spec


_STATEFUL_MUTABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def stateful_set_update(errs: Errors, obj: Object, old: Object) -> None:
    stateful_set(errs, obj)
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    for key in {*spec, *before} - {*_STATEFUL_MUTABLE}:
        if not same(spec.get(key), before.get(key)):
            shown = ", ".join(f"'{name}'" for name in _STATEFUL_MUTABLE[:-1])
            text = f"updates to statefulset spec for fields other than {shown} and 'minReadySeconds' are forbidden"
            errs.append(forbidden_field("spec", text))
            return


def controller_revision(errs: Errors, obj: Object) -> None:
    non_negative(errs, "revision", obj.get("revision"))
    if obj.get("data") is None:
        errs.append(required("data", "data is mandatory"))


def controller_revision_update(errs: Errors, obj: Object, old: Object) -> None:
    controller_revision(errs, obj)
    immutable(errs, "data", obj.get("data"), old.get("data"))


_STATUS_COUNTS = ("readyReplicas", "availableReplicas", "updatedReplicas", "currentReplicas", "fullyLabeledReplicas")
_DAEMON_COUNTS = (
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
)


def replicas_status(errs: Errors, obj: Object, old: Object) -> None:
    """Status of the kinds that count replicas."""
    status = obj.get("status") or {}
    replicas = status.get("replicas") or 0
    _counts(
        errs, "status", status, "observedGeneration", "replicas", "unavailableReplicas", "terminatingReplicas", *_STATUS_COUNTS
    )
    _counts(errs, "status", status, "collisionCount")
    for key in _STATUS_COUNTS:
        if (status.get(key) or 0) > replicas:
            errs.append(invalid_value(f"status.{key}", status[key], "cannot be greater than status.replicas"))
    if (status.get("availableReplicas") or 0) > (status.get("readyReplicas") or 0):
        errs.append(
            invalid_value("status.availableReplicas", status["availableReplicas"], "cannot be greater than readyReplicas")
        )
    _collisions(errs, obj, old)


def daemon_set_status(errs: Errors, obj: Object, old: Object) -> None:
    _counts(errs, "status", obj.get("status") or {}, "observedGeneration", "collisionCount", *_DAEMON_COUNTS)
    _collisions(errs, obj, old)


def _collisions(errs: Errors, obj: Object, old: Object) -> None:
    now, was = ((o.get("status") or {}).get("collisionCount") or 0 for o in (obj, old))
    if now < was:
        errs.append(invalid_value("status.collisionCount", now, "cannot be decremented"))
