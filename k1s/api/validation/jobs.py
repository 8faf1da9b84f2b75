"""Jobs and the specs of jobs in cron jobs.

Called by: table.py, batch.py. Never does: generate selectors (the server's strategy does, before validation).
Source: upstream pkg/apis/batch/validation: validateJobSpec, ValidateJobUpdate, ValidateGeneratedSelector.
"""

from __future__ import annotations

import json
from typing import Any

from k1s.api import names
from k1s.api.errors import OMIT, duplicate, invalid_value, not_supported, required, too_long, too_many
from k1s.api.meta import Object
from k1s.api.validation import pod
from k1s.api.validation.job_indexes import IndexesWrong, count_indexes
from k1s.api.validation.rules import Errors, immutable, non_negative, one_of, same, strings
from k1s.api.validation.selectors import label_selector, selects

_COUNTS = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)
_MANY, _MUCH = 100_000, 10_000
_MOST_RULES, _MOST_CODES, _MOST_INDEX_TEXT, _MOST_MANAGER = 20, 255, 64 * 1024, 63
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_STATUSES = ("False", "True", "Unknown")
_OPERATORS = ("In", "NotIn")
_NAME_LABELS = ("job-name", "batch.kubernetes.io/job-name")
_UID_LABELS = ("controller-uid", "batch.kubernetes.io/controller-uid")
_FIXED = ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")


def _valid_values(values: tuple[str, ...]) -> str:
    return f"valid values: [{' '.join(json.dumps(v) for v in values)}]"


def _chosen(errs: Errors, field: str, value: Any, allowed: tuple[str, ...]) -> None:
    if not value:
        errs.append(required(field, _valid_values(allowed)))
    elif value not in allowed:
        errs.append(not_supported(field, value, allowed))


def _indexed(errs: Errors, at: str, spec: Object) -> None:
    mode = spec.get("completionMode")
    one_of(errs, f"{at}.completionMode", mode, ("Indexed", "NonIndexed"))
    if mode == "Indexed":
        _indexed_counts(errs, at, spec)
    else:
        for key in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if spec.get(key) is not None:
                errs.append(invalid_value(f"{at}.{key}", spec[key], "requires indexed completion mode"))
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        errs.append(required(f"{at}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))


def _indexed_counts(errs: Errors, at: str, spec: Object) -> None:
    completions, parallel, failed = (spec.get(key) for key in ("completions", "parallelism", "maxFailedIndexes"))
    if completions is None:
        errs.append(required(f"{at}.completions", "when completion mode is Indexed"))
    if (parallel or 0) > _MANY:
        text = f"must be less than or equal to {_MANY} when completion mode is Indexed"
        errs.append(invalid_value(f"{at}.parallelism", parallel, text))
    if completions is not None and failed is not None and failed > completions:
        errs.append(invalid_value(f"{at}.maxFailedIndexes", failed, "must be less than or equal to completions"))
    if (failed or 0) > _MANY:
        errs.append(invalid_value(f"{at}.maxFailedIndexes", failed, f"must be less than or equal to {_MANY}"))
    if (completions or 0) <= _MANY or spec.get("backoffLimitPerIndex") is None:
        return
    text = f"must be less than or equal to {_MUCH} when completions are above {_MANY} and used with backoff limit per index"
    if failed is None:
        errs.append(required(f"{at}.maxFailedIndexes", f"must be specified when completions is above {_MANY}"))
    if (parallel or 0) > _MUCH:
        errs.append(invalid_value(f"{at}.parallelism", parallel, text))
    if (failed or 0) > _MUCH:
        errs.append(invalid_value(f"{at}.maxFailedIndexes", failed, text))


def _failure_rule(errs: Errors, at: str, rule: Object, spec: Object) -> None:
    action = rule.get("action")
    if action == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
        errs.append(invalid_value(f"{at}.action", action, "requires the backoffLimitPerIndex to be set"))
    else:
        _chosen(errs, f"{at}.action", action, _ACTIONS)
    codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions") or []
    if codes is not None:
        _exit_codes(errs, f"{at}.onExitCodes", codes, spec)
    if len(conditions) > _MOST_RULES:
        errs.append(too_many(f"{at}.onPodConditions", len(conditions), _MOST_RULES))
    else:
        for index, condition in enumerate(conditions):
            here = f"{at}.onPodConditions[{index}]"
            strings(errs, f"{here}.type", condition.get("type") or "", names.qualified_name)
            _chosen(errs, f"{here}.status", condition.get("status"), _STATUSES)
    if codes is not None and conditions:
        errs.append(invalid_value(at, OMIT, "specifying both OnExitCodes and OnPodConditions is not supported"))
    elif codes is None and not conditions:
        errs.append(invalid_value(at, OMIT, "specifying one of OnExitCodes and OnPodConditions is required"))


def _exit_codes(errs: Errors, at: str, codes: Object, spec: Object) -> None:
    operator, values = codes.get("operator"), codes.get("values") or []
    _chosen(errs, f"{at}.operator", operator, _OPERATORS)
    container = codes.get("containerName")
    pod_spec = (spec.get("template") or {}).get("spec") or {}
    known = {c.get("name") for key in ("containers", "initContainers") for c in pod_spec.get(key) or ()}
    if container is not None and container not in known:
        text = "must be one of the container or initContainer names in the pod template"
        errs.append(invalid_value(f"{at}.containerName", container, text))
    if not values:
        errs.append(invalid_value(f"{at}.values", values, "at least one value is required"))
    elif len(values) > _MOST_CODES:
        errs.append(too_many(f"{at}.values", len(values), _MOST_CODES))
    for index, value in enumerate(values):
        if value == 0 and operator == "In":
            errs.append(invalid_value(f"{at}.values[{index}]", value, "must not be 0 for the In operator"))
        if value in values[:index]:
            errs.append(duplicate(f"{at}.values[{index}]", value))
    if values != sorted(values):
        errs.append(invalid_value(f"{at}.values", values, "must be ordered"))


def _failure_policy(errs: Errors, at: str, spec: Object) -> None:
    rules = spec["podFailurePolicy"].get("rules") or ()
    if len(rules) > _MOST_RULES:
        errs.append(too_many(f"{at}.rules", len(rules), _MOST_RULES))
        return
    for index, rule in enumerate(rules):
        _failure_rule(errs, f"{at}.rules[{index}]", rule, spec)


def _success_policy(errs: Errors, at: str, spec: Object) -> None:
    """KEP-3998."""
    policy = spec["successPolicy"]
    if spec.get("completionMode") != "Indexed":
        errs.append(invalid_value(at, policy, "requires indexed completion mode"))
        return
    rules = policy.get("rules") or ()
    if not rules:
        errs.append(required(f"{at}.rules", "at least one rules must be specified when the successPolicy is specified"))
    if len(rules) > _MOST_RULES:
        errs.append(too_many(f"{at}.rules", len(rules), _MOST_RULES))
        return
    for index, rule in enumerate(rules):
        _success_rule(errs, f"{at}.rules[{index}]", rule, spec.get("completions") or 0)


def _success_rule(errs: Errors, at: str, rule: Object, completions: int) -> None:
    count, indexes, total = rule.get("succeededCount"), rule.get("succeededIndexes"), 0
    if count is None and indexes is None:
        errs.append(required(at, "at least one of succeededCount or succeededIndexes must be specified"))
    if indexes is not None:
        here = f"{at}.succeededIndexes"
        if len(indexes) > _MOST_INDEX_TEXT:
            errs.append(too_long(here, _MOST_INDEX_TEXT))
        try:
            total = count_indexes(indexes, completions)
        except IndexesWrong as wrong:
            errs.append(invalid_value(here, indexes, f"error parsing succeededIndexes: {wrong}"))
    if count is None:
        return
    here, most = f"{at}.succeededCount", "must be less than or equal to"
    non_negative(errs, here, count)
    if count > completions:
        errs.append(invalid_value(here, count, f"{most} {completions} (the number of specified completions)"))
    if indexes is not None and count > total:
        text = f"{most} {total} (the number of indexes in the specified succeededIndexes field)"
        errs.append(invalid_value(here, count, text))


def job_spec(errs: Errors, at: str, spec: Object) -> None:
    """JobSpec without its selector, as it also stands in a cron job."""
    for key in _COUNTS:
        non_negative(errs, f"{at}.{key}", spec.get(key))
    if spec.get("managedBy") is not None:
        strings(errs, f"{at}.managedBy", spec["managedBy"], names.domain_prefixed_key)
        if len(spec["managedBy"]) > _MOST_MANAGER:
            errs.append(too_long(f"{at}.managedBy", _MOST_MANAGER))
    _indexed(errs, at, spec)
    if spec.get("podFailurePolicy") is not None:
        _failure_policy(errs, f"{at}.podFailurePolicy", spec)
    if spec.get("successPolicy") is not None:
        _success_policy(errs, f"{at}.successPolicy", spec)
    replacement = ("Failed",) if spec.get("podFailurePolicy") is not None else ("Failed", "TerminatingOrFailed")
    one_of(errs, f"{at}.podReplacementPolicy", spec.get("podReplacementPolicy"), replacement)
    pod.template(errs, f"{at}.template", spec.get("template"))
    _restart(errs, f"{at}.template.spec.restartPolicy", spec)


def _restart(errs: Errors, at: str, spec: Object) -> None:
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy")
    if policy in (None, "", "Always"):
        errs.append(required(at, 'valid values: "OnFailure", "Never"'))
    elif policy not in ("OnFailure", "Never"):
        errs.append(not_supported(at, policy, ("Never", "OnFailure")))
    elif spec.get("podFailurePolicy") is not None and policy != "Never":
        errs.append(invalid_value(at, policy, 'only "Never" is supported when podFailurePolicy is specified'))


def _generated(errs: Errors, obj: Object) -> None:
    """Without manualSelector the strategy has put labels and selector there; what the user put there must not differ."""
    spec, meta = obj.get("spec") or {}, obj.get("metadata") or {}
    if spec.get("manualSelector") or spec.get("selector") is None:
        return
    uid, name = meta.get("uid") or "", meta.get("name") or ""
    if not uid:
        errs.append(required("metadata.uid"))
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    wanted = {_UID_LABELS[0]: uid, _NAME_LABELS[0]: name, _UID_LABELS[1]: uid, _NAME_LABELS[1]: name}
    for key, value in wanted.items():
        at = f"spec.template.metadata.labels[{key}]"
        if key not in labels:
            errs.append(required(at, f"must be '{value}'"))
        elif labels[key] != value:
            errs.append(invalid_value(at, labels, f"must be '{value}'"))
    if not selects(spec["selector"], wanted):
        errs.append(invalid_value("spec.selector", spec["selector"], "`selector` not auto-generated"))


def _job(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    _generated(errs, obj)
    job_spec(errs, "spec", spec)
    selector = spec.get("selector")
    if selector is None:
        errs.append(required("spec.selector"))
        return
    before = len(errs)
    label_selector(errs, "spec.selector", selector)
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if len(errs) == before and not selects(selector, labels):
        errs.append(invalid_value("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))


def job(errs: Errors, obj: Object) -> None:
    spec, name = obj.get("spec") or {}, (obj.get("metadata") or {}).get("name") or ""
    if spec.get("completionMode") == "Indexed" and (spec.get("completions") or 0) > 0 and name:
        host = f"{name}-{spec['completions'] - 1}"
        if names.dns1123_label(host):
            text = f"will not able to create pod with invalid DNS label: {host}"
            errs.append(invalid_value("metadata.name", name, text))
    _job(errs, obj)


def job_update(errs: Errors, obj: Object, old: Object) -> None:
    _job(errs, obj)
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    _completions(errs, spec, before)
    immutable(errs, "spec.selector", spec.get("selector"), before.get("selector"))
    suspended = bool(before.get("suspend")) and not (old.get("status") or {}).get("startTime")
    template, was = spec.get("template") or {}, before.get("template") or {}
    immutable(errs, "spec.template", _with_old_directives(template, was) if suspended else template, was)
    for key in _FIXED:
        immutable(errs, f"spec.{key}", spec.get(key), before.get(key))


def _completions(errs: Errors, spec: Object, before: Object) -> None:
    """An indexed job may be resized, both numbers together (KEP-3715)."""
    new, old = spec.get("completions"), before.get("completions")
    if spec.get("completionMode") != "Indexed":
        immutable(errs, "spec.completions", new, old)
    elif new is not None and new != old and new != spec.get("parallelism"):
        errs.append(invalid_value("spec.completions", new, "can only be modified in tandem with spec.parallelism"))


def _with_old_directives(template: Object, was: Object) -> Object:
    """The template with what a job that never started may change set back to the old: where its pods go, their sizes."""
    meta, old_meta = template.get("metadata") or {}, was.get("metadata") or {}
    spec, old_spec = dict(template.get("spec") or {}), was.get("spec") or {}
    for key in ("nodeSelector", "tolerations", "schedulingGates"):
        spec[key] = old_spec.get(key)
    # Of the affinity only that to nodes may change.
    affinity, old_affinity = spec.get("affinity") or {}, old_spec.get("affinity") or {}
    merged = {**affinity, "nodeAffinity": old_affinity.get("nodeAffinity")}
    spec["affinity"] = {key: value for key, value in merged.items() if not same(value, None)}
    for key in ("containers", "initContainers"):
        pairs = list(zip(spec.get(key) or (), old_spec.get(key) or (), strict=False))
        if len(pairs) == len(spec.get(key) or ()):
            spec[key] = [{**new, "resources": before.get("resources")} for new, before in pairs]
    labels = {"labels": old_meta.get("labels"), "annotations": old_meta.get("annotations")}
    return {**template, "metadata": {**meta, **labels}, "spec": spec}
