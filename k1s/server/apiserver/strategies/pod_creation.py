"""What the server fills into a new pod: selectors by label keys, AppArmor fields from old annotations, the gated condition.

Owns: GATED, merge_label_keys, confine; pure, on the spec in place. Called by: strategies/pod. Never does: default (api/defaults).
Source: upstream pkg/registry/core/pod/strategy.go; KEP-3243, KEP-3633 (label keys), KEP-24 (AppArmor), KEP-3521 (gates).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

GATED = {
    "type": "PodScheduled",
    "status": "False",
    "lastProbeTime": None,
    "lastTransitionTime": None,
    "reason": "SchedulingGated",
    "message": "Scheduling is blocked due to non-empty scheduling gates",
}
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_OLD = 'deprecated since v1.30; use the "appArmorProfile" field instead'


def merge_label_keys(spec: Object, labels: Object) -> None:
    """Pods with the same value as this one (or another one) under a key: the key becomes a requirement of the selector."""
    for term in _terms(spec):
        selector = term.get("labelSelector")
        if selector is None:
            continue
        for field, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
            for key in term.get(field) or ():
                if key in labels:
                    wanted = {"key": key, "operator": operator, "values": [labels[key]]}
                    selector["matchExpressions"] = [*(selector.get("matchExpressions") or ()), wanted]


def _terms(spec: Object) -> Iterator[Object]:
    affinity = spec.get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(kind) or {}
        yield from terms.get(_REQUIRED) or ()
        for weighted in terms.get(_PREFERRED) or ():
            if weighted.get("podAffinityTerm"):
                yield weighted["podAffinityTerm"]
    yield from spec.get("topologySpreadConstraints") or ()


def confine(spec: Object, annotations: Object) -> list[str]:
    """AppArmor profiles that stand only in annotations become fields; returns what there is to warn of."""
    found = [key for key in annotations if key.startswith(_APPARMOR)]
    if not found or (spec.get("os") or {}).get("name") == "windows":
        return []
    pod = (spec.get("securityContext") or {}).get("appArmorProfile")
    out = []
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            key, context = f"{_APPARMOR}{container.get('name')}", container.get("securityContext") or {}
            if key not in annotations or context.get("appArmorProfile") is not None:
                continue
            profile = _profile(annotations[key])
            if profile is not None and profile == pod:
                continue
            if profile is not None:
                container["securityContext"] = {**context, "appArmorProfile": profile}
            out.append(f"metadata.annotations[{key}]: {_OLD}")
    return out


def _profile(text: str) -> Object | None:
    if text == "unconfined":
        return {"type": "Unconfined"}
    if text == "runtime/default":
        return {"type": "RuntimeDefault"}
    local = text.removeprefix("localhost/")
    return {"type": "Localhost", "localhostProfile": local} if text.startswith("localhost/") and local.strip() else None
