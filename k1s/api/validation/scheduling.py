"""Where a pod may run: affinity, tolerations, topology spread, scheduling gates.

Called by: pod.py, storage.py (a volume's node affinity). Never does: place pods.
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, named, one_of, strings
from k1s.api.validation.selectors import expression, label_selector

_EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")


def _node_field(errs: Errors, field: str, term: Object) -> None:
    operator, values = term.get("operator"), term.get("values") or []
    if operator not in ("In", "NotIn"):
        errs.append(invalid_value(f"{field}.operator", operator or "", "not a valid selector operator"))
    elif len(values) != 1:
        text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        errs.append(required(f"{field}.values", text))
    if term.get("key") != "metadata.name":
        errs.append(invalid_value(f"{field}.key", term.get("key") or "", "not a valid field selector key"))
        return
    for index, value in enumerate(values):
        strings(errs, f"{field}.values[{index}]", value, names.dns1123_subdomain)


def _node_term(errs: Errors, field: str, term: Object) -> None:
    for index, wanted in enumerate(term.get("matchExpressions") or ()):
        expression(errs, f"{field}.matchExpressions[{index}]", wanted, numeric=True)
    for index, wanted in enumerate(term.get("matchFields") or ()):
        _node_field(errs, f"{field}.matchFields[{index}]", wanted)


def node_selector(errs: Errors, field: str, selector: Object) -> None:
    """NodeSelector: at least one term."""
    terms = selector.get("nodeSelectorTerms") or []
    if not terms:
        errs.append(required(f"{field}.nodeSelectorTerms", "must have at least one node selector term"))
    for index, term in enumerate(terms):
        _node_term(errs, f"{field}.nodeSelectorTerms[{index}]", term)


def _weight(errs: Errors, field: str, value: Any) -> None:
    if not isinstance(value, int) or not 1 <= value <= 100:
        errs.append(invalid_value(field, value or 0, "must be in the range 1-100"))


def _node_affinity(errs: Errors, field: str, affinity: Object) -> None:
    must = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if must is not None:
        node_selector(errs, f"{field}.requiredDuringSchedulingIgnoredDuringExecution", must)
    for index, term in enumerate(affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        at = f"{field}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
        _weight(errs, f"{at}.weight", term.get("weight"))
        _node_term(errs, f"{at}.preference", term.get("preference") or {})


def _pod_term(errs: Errors, field: str, term: Object) -> None:
    label_selector(errs, f"{field}.labelSelector", term.get("labelSelector"))
    label_selector(errs, f"{field}.namespaceSelector", term.get("namespaceSelector"))
    for index, namespace in enumerate(term.get("namespaces") or ()):
        strings(errs, f"{field}.namespaces[{index}]", namespace, names.dns1123_label)
    _match_keys(errs, field, term, ("matchLabelKeys", "mismatchLabelKeys"))
    if not term.get("topologyKey"):
        errs.append(required(f"{field}.topologyKey", "can not be empty"))
    else:
        strings(errs, f"{field}.topologyKey", term["topologyKey"], names.qualified_name)


def _match_keys(errs: Errors, field: str, term: Object, lists: tuple[str, ...]) -> None:
    for name in lists:
        keys = term.get(name) or ()
        if keys and term.get("labelSelector") is None:
            errs.append(forbidden_field(f"{field}.{name}", "must not be specified when labelSelector is not set"))
        for index, key in enumerate(keys):
            strings(errs, f"{field}.{name}[{index}]", key, names.qualified_name)
    both = set(term.get("matchLabelKeys") or ()) & set(term.get("mismatchLabelKeys") or ())
    for index, key in enumerate(term.get("matchLabelKeys") or ()):
        if key in both:
            errs.append(
                invalid_value(f"{field}.matchLabelKeys[{index}]", key, "exists in both matchLabelKeys and mismatchLabelKeys")
            )


def _pod_affinity(errs: Errors, field: str, affinity: Object) -> None:
    for index, term in enumerate(affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
        _pod_term(errs, f"{field}.requiredDuringSchedulingIgnoredDuringExecution[{index}]", term)
    for index, term in enumerate(affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        at = f"{field}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
        _weight(errs, f"{at}.weight", term.get("weight"))
        _pod_term(errs, f"{at}.podAffinityTerm", term.get("podAffinityTerm") or {})


def affinity(errs: Errors, field: str, value: Object | None) -> None:
    """spec.affinity."""
    if not value:
        return
    if value.get("nodeAffinity"):
        _node_affinity(errs, f"{field}.nodeAffinity", value["nodeAffinity"])
    for key in ("podAffinity", "podAntiAffinity"):
        if value.get(key):
            _pod_affinity(errs, f"{field}.{key}", value[key])


def tolerations(errs: Errors, field: str, items: Any) -> None:
    """spec.tolerations."""
    for index, toleration in enumerate(items or ()):
        at = f"{field}[{index}]"
        key, operator, effect = toleration.get("key"), toleration.get("operator"), toleration.get("effect")
        if key:
            strings(errs, f"{at}.key", key, names.qualified_name)
        elif operator != "Exists":
            text = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            errs.append(invalid_value(f"{at}.operator", operator or "", text))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            errs.append(invalid_value(f"{at}.effect", effect or "", "effect must be 'NoExecute' when `tolerationSeconds` is set"))
        if not operator or operator == "Equal":
            strings(errs, f"{at}.operator", toleration.get("value") or "", names.label_value)
        elif operator == "Exists":
            if toleration.get("value"):
                errs.append(invalid_value(f"{at}.operator", toleration, "value must be empty when `operator` is 'Exists'"))
        else:
            errs.append(not_supported(f"{at}.operator", operator, ("Equal", "Exists")))
        if effect:
            one_of(errs, f"{at}.effect", effect, _EFFECTS)


def taints(errs: Errors, field: str, items: Any) -> None:
    """A node's taints: unique by key and effect."""
    seen: set[tuple[Any, Any]] = set()
    for index, taint in enumerate(items or ()):
        at = f"{field}[{index}]"
        named(errs, f"{at}.key", taint.get("key"), names.qualified_name)
        strings(errs, f"{at}.value", taint.get("value") or "", names.label_value)
        one_of(errs, f"{at}.effect", taint.get("effect"), _EFFECTS, needed=True)
        key = (taint.get("key"), taint.get("effect"))
        if key in seen:
            errs.append(duplicate(at, taint))
        seen.add(key)


def topology_spread(errs: Errors, field: str, items: Any) -> None:
    """spec.topologySpreadConstraints."""
    seen: set[tuple[Any, Any]] = set()
    for index, constraint in enumerate(items or ()):
        at = f"{field}[{index}]"
        skew, when = constraint.get("maxSkew") or 0, constraint.get("whenUnsatisfiable")
        if skew <= 0:
            errs.append(invalid_value(f"{at}.maxSkew", skew, "must be greater than zero"))
        if not constraint.get("topologyKey"):
            errs.append(required(f"{at}.topologyKey", "can not be empty"))
        else:
            strings(errs, f"{at}.topologyKey", constraint["topologyKey"], names.qualified_name)
        one_of(errs, f"{at}.whenUnsatisfiable", when or "", ("DoNotSchedule", "ScheduleAnyway"))
        pair = (constraint.get("topologyKey"), when)
        if pair in seen:
            errs.append(duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{pair[0]}, {pair[1]}}}"))
        seen.add(pair)
        _min_domains(errs, f"{at}.minDomains", constraint.get("minDomains"), when)
        for key in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            one_of(errs, f"{at}.{key}", constraint.get(key), ("Honor", "Ignore"))
        label_selector(errs, f"{at}.labelSelector", constraint.get("labelSelector"))
        _match_keys(errs, at, constraint, ("matchLabelKeys",))


def _min_domains(errs: Errors, field: str, value: Any, when: Any) -> None:
    if value is None:
        return
    if value <= 0:
        errs.append(invalid_value(field, value, "must be greater than zero"))
    if when != "DoNotSchedule":
        text = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when or ''}"
        errs.append(invalid_value(field, value, text))


def scheduling_gates(errs: Errors, field: str, items: Any) -> None:
    seen: set[str] = set()
    for index, gate in enumerate(items or ()):
        at = f"{field}[{index}]"
        strings(errs, f"{at}.name" if not gate.get("name") else at, gate.get("name") or "", names.qualified_name)
        if gate.get("name") in seen:
            errs.append(duplicate(at, gate.get("name")))
        seen.add(gate.get("name") or "")
