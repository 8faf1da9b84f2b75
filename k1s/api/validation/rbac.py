"""Roles and bindings.

Called by: table.py. Never does: escalation checks (the apiserver's strategy does).
"""

from __future__ import annotations

import json
from typing import Any

from k1s.api import names
from k1s.api.errors import GoText, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, same, strings
from k1s.api.validation.selectors import label_selector

GROUP = "rbac.authorization.k8s.io"


def _rule(errs: Errors, at: str, rule: Object, *, namespaced: bool) -> None:
    if not rule.get("verbs"):
        errs.append(required(f"{at}.verbs", "verbs must contain at least one value"))
    urls = rule.get("nonResourceURLs") or []
    if urls:
        if namespaced:
            errs.append(invalid_value(f"{at}.nonResourceURLs", urls, "namespaced rules cannot apply to non-resource URLs"))
        if any(rule.get(key) for key in ("apiGroups", "resources", "resourceNames")):
            text = "rules cannot apply to both regular resources and non-resource URLs"
            errs.append(invalid_value(f"{at}.nonResourceURLs", urls, text))
        return
    if not rule.get("apiGroups"):
        errs.append(required(f"{at}.apiGroups", "resource rules must supply at least one api group"))
    if not rule.get("resources"):
        errs.append(required(f"{at}.resources", "resource rules must supply at least one resource"))


def role(errs: Errors, obj: Object) -> None:
    for index, rule in enumerate(obj.get("rules") or ()):
        _rule(errs, f"rules[{index}]", rule, namespaced=True)


def cluster_role(errs: Errors, obj: Object) -> None:
    for index, rule in enumerate(obj.get("rules") or ()):
        _rule(errs, f"rules[{index}]", rule, namespaced=False)
    aggregation = obj.get("aggregationRule")
    if aggregation is None:
        return
    at, selectors = "aggregationRule.clusterRoleSelectors", aggregation.get("clusterRoleSelectors") or []
    if not selectors:
        errs.append(required(at, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
    for index, selector in enumerate(selectors):
        label_selector(errs, f"{at}[{index}]", selector)


def _role_ref(errs: Errors, ref: Object, kinds: tuple[str, ...]) -> None:
    if ref.get("apiGroup") != GROUP:
        errs.append(not_supported("roleRef.apiGroup", ref.get("apiGroup") or "", (GROUP,)))
    if ref.get("kind") not in kinds:
        errs.append(not_supported("roleRef.kind", ref.get("kind") or "", kinds, as_given=True))
    if not ref.get("name"):
        errs.append(required("roleRef.name"))
    else:
        strings(errs, "roleRef.name", ref["name"], names.path_segment_name)


def _subject(errs: Errors, at: str, subject: Object, *, namespaced: bool) -> None:
    kind, group = subject.get("kind"), subject.get("apiGroup") or ""
    if not subject.get("name"):
        errs.append(required(f"{at}.name"))
    if kind == "ServiceAccount":
        if subject.get("name"):
            strings(errs, f"{at}.name", subject["name"], names.dns1123_subdomain)
        if group:
            errs.append(not_supported(f"{at}.apiGroup", group, ("",)))
        if not namespaced and not subject.get("namespace"):
            errs.append(required(f"{at}.namespace"))
    elif kind in ("User", "Group"):
        if group != GROUP:
            errs.append(not_supported(f"{at}.apiGroup", group, (GROUP,)))
    else:
        errs.append(not_supported(f"{at}.kind", kind or "", ("ServiceAccount", "User", "Group"), as_given=True))


def _binding(errs: Errors, obj: Object, kinds: tuple[str, ...], *, namespaced: bool) -> None:
    _role_ref(errs, obj.get("roleRef") or {}, kinds)
    for index, subject in enumerate(obj.get("subjects") or ()):
        _subject(errs, f"subjects[{index}]", subject, namespaced=namespaced)


def role_binding(errs: Errors, obj: Object) -> None:
    _binding(errs, obj, ("Role", "ClusterRole"), namespaced=True)


def cluster_role_binding(errs: Errors, obj: Object) -> None:
    _binding(errs, obj, ("ClusterRole",), namespaced=False)


def _same_role(errs: Errors, obj: Object, old: Object) -> None:
    ref: Any = obj.get("roleRef")
    if not same(ref, old.get("roleRef")):
        parts = (
            (name, (ref or {}).get(key) or "") for name, key in (("APIGroup", "apiGroup"), ("Kind", "kind"), ("Name", "name"))
        )
        shown = "rbac.RoleRef{" + ", ".join(f"{name}:{json.dumps(value)}" for name, value in parts) + "}"
        errs.append(invalid_value("roleRef", GoText(shown), "cannot change roleRef"))


def role_binding_update(errs: Errors, obj: Object, old: Object) -> None:
    role_binding(errs, obj)
    _same_role(errs, obj, old)


def cluster_role_binding_update(errs: Errors, obj: Object, old: Object) -> None:
    cluster_role_binding(errs, obj)
    _same_role(errs, obj, old)
