"""Where a pod may run: affinity, tolerations, topology spread, scheduling gates.

Called by: pod.py, storage.py (a volume's node affinity). Never does: place pods.
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import FieldError, duplicate, forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, one_of, strings
from k1s.api.validation.selectors import expression, label_selector

_NOT_POSITIVE = "must be greater than zero"
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


def _node_term(errs: Errors, field: str, term: Object, *, values: bool = True) -> None:
    for index, wanted in enumerate(term.get("matchExpressions") or ()):
        expression(errs, f"{field}.matchExpressions[{index}]", wanted, numeric=True, values_too=values)
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
        # What no label can have as its value only never matches: upstream lets it pass where it is a wish.
        _node_term(errs, f"{at}.preference", term.get("preference") or {}, values=False)


def _pod_term(errs: Errors, field: str, term: Object) -> None:
    label_selector(errs, f"{field}.labelSelector", term.get("labelSelector"))
    label_selector(errs, f"{field}.namespaceSelector", term.get("namespaceSelector"))
    for namespace in term.get("namespaces") or ():
        strings(errs, f"{field}.namespace", namespace, names.dns1123_label)
    _match_keys(errs, field, term)
    if not term.get("topologyKey"):
        errs.append(required(f"{field}.topologyKey", "can not be empty"))
    strings(errs, f"{field}.topologyKey", term.get("topologyKey") or "", names.qualified_name)


def _match_keys(errs: Errors, field: str, term: Object) -> None:
    """matchLabelKeys and mismatchLabelKeys; those of a Pod stand in its selector already (the apiserver's strategy)."""
    selector, keys = term.get("labelSelector"), term.get("matchLabelKeys") or ()
    for name in ("matchLabelKeys", "mismatchLabelKeys"):
        if term.get(name) and selector is None:
            errs.append(forbidden_field(f"{field}.{name}", "must not be specified when labelSelector is not set"))
        elif selector is not None:
            for index, key in enumerate(term.get(name) or ()):
                strings(errs, f"{field}.{name}[{index}]", key, names.qualified_name)
    seen = set((selector or {}).get("matchLabels") or ())
    for wanted in (selector or {}).get("matchExpressions") or ():
        key = wanted.get("key")
        if key in keys and key in seen:
            text = "exists in both matchLabelKeys and labelSelector"
            errs.append(invalid_value(f"{field}[{list(keys).index(key)}]", key, text))
        seen.add(key)
    for index, key in enumerate(keys):
        if key in (term.get("mismatchLabelKeys") or ()):
            text = "exists in both matchLabelKeys and mismatchLabelKeys"
            errs.append(invalid_value(f"{field}.matchLabelKeys[{index}]", key, text))


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
        value = toleration.get("value") or ""
        if key:
            strings(errs, f"{at}.key", key, names.qualified_name)
        elif operator != "Exists":
            text = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            errs.append(invalid_value(f"{at}.operator", operator or "", text))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            errs.append(invalid_value(f"{at}.effect", effect or "", "effect must be 'NoExecute' when `tolerationSeconds` is set"))
        if not operator or operator == "Equal":
            messages = names.label_value(value)
            if messages:
                errs.append(invalid_value(f"{at}.operator", value, ";".join(messages)))
        elif operator == "Exists":
            if value:
                errs.append(invalid_value(f"{at}.operator", value, "value must be empty when `operator` is 'Exists'"))
        else:
            errs.append(not_supported(f"{at}.operator", operator, ("Equal", "Exists")))
        if effect:
            _effect(errs, f"{at}.effect", effect)


def _effect(errs: Errors, field: str, effect: Any) -> None:
    if not effect:
        errs.append(required(field))
    elif effect not in _EFFECTS:
        errs.append(not_supported(field, effect, _EFFECTS))


def taints(errs: Errors, field: str, items: Any) -> None:
    """A node's taints: unique by key and effect."""
    seen: set[tuple[Any, Any]] = set()
    for index, taint in enumerate(items or ()):
        at = f"{field}[{index}]"
        strings(errs, f"{at}.key", taint.get("key") or "", names.qualified_name)
        messages = names.label_value(taint.get("value") or "")
        if messages:
            errs.append(invalid_value(f"{at}.value", taint.get("value"), ";".join(messages)))
        _effect(errs, f"{at}.effect", taint.get("effect"))
        key = (taint.get("key"), taint.get("effect"))
        if key in seen:
            text = "taints must be unique by key and effect pair"
            errs.append(FieldError("FieldValueDuplicate", at, text, taint))
        seen.add(key)


def topology_spread(errs: Errors, field: str, items: Any) -> None:
    """spec.topologySpreadConstraints."""
    pairs = [(c.get("topologyKey") or "", c.get("whenUnsatisfiable") or "") for c in items or ()]
    for index, constraint in enumerate(items or ()):
        at, (key, when) = f"{field}[{index}]", pairs[index]
        skew = constraint.get("maxSkew") or 0
        if skew <= 0:
            errs.append(invalid_value(f"{at}.maxSkew", skew, _NOT_POSITIVE))
        if not key:
            errs.append(required(f"{at}.topologyKey", "can not be empty"))
        if when not in ("DoNotSchedule", "ScheduleAnyway"):
            errs.append(not_supported(f"{at}.whenUnsatisfiable", when, ("DoNotSchedule", "ScheduleAnyway")))
        if (key, when) in pairs[index + 1 :]:
            errs.append(duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {when}}}"))
        _min_domains(errs, f"{at}.minDomains", constraint.get("minDomains"), when)
        for policy in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            one_of(errs, f"{at}.{policy}", constraint.get(policy), ("Honor", "Ignore"))
        _match_keys(errs, at, constraint)
        label_selector(errs, f"{at}.labelSelector", constraint.get("labelSelector"))


def _min_domains(errs: Errors, field: str, value: Any, when: Any) -> None:
    if value is None:
        return
    if value <= 0:
        errs.append(invalid_value(field, value, _NOT_POSITIVE))
    if when != "DoNotSchedule":
        text = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when or ''}"
        errs.append(invalid_value(field, value, text))


def scheduling_gates(errs: Errors, field: str, items: Any) -> None:
    seen: set[str] = set()
    for index, gate in enumerate(items or ()):
        at = f"{field}[{index}]"
        strings(errs, at, gate.get("name") or "", names.qualified_name)
        if gate.get("name") in seen:
            errs.append(duplicate(at, gate.get("name")))
        seen.add(gate.get("name") or "")
