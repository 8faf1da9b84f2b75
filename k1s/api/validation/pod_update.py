"""What may change in a pod: images, deadlines, tolerations added, gates removed; the ephemeralcontainers and resize subresources.

Called by: table.py. Never does: binding (the subresource writes spec.nodeName itself).
"""

from __future__ import annotations

import json
from typing import Any

from k1s.api import names
from k1s.api.clone import clone
from k1s.api.errors import forbidden_field, invalid_value
from k1s.api.meta import Object
from k1s.api.validation.pod import pod_spec
from k1s.api.validation.rules import MAX_INT32, Errors, same

_UPDATABLE = (
    "`spec.containers[*].image`",
    "`spec.initContainers[*].image`",
    "`spec.activeDeadlineSeconds`",
    "`spec.tolerations` (only additions to existing tolerations)",
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
)


def update(errs: Errors, obj: Object, old: Object) -> None:
    """A Pod written through the main resource."""
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    pod_spec(errs, "spec", spec)
    for key in ("containers", "initContainers"):
        if len(spec.get(key) or ()) != len(before.get(key) or ()):
            errs.append(forbidden_field(f"spec.{key}", "pod updates may not add or remove containers"))
            return
    _deadline(errs, spec, before)
    _gates(errs, spec, before)
    _tolerations(errs, spec, before)
    allowed = _undo_allowed(spec, before, gated=bool(before.get("schedulingGates")))
    if not same(allowed, before):
        changed = _difference(allowed, before)
        text = f"pod updates may not change fields other than {','.join(_UPDATABLE)}\n{changed}"
        errs.append(forbidden_field("spec", text))


def _deadline(errs: Errors, spec: Object, before: Object) -> None:
    new, old = spec.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    if new is None:
        if old is not None:
            errs.append(invalid_value("spec.activeDeadlineSeconds", None, "must not update from a positive integer to nil value"))
    elif old is not None and new > old:
        errs.append(invalid_value("spec.activeDeadlineSeconds", new, "must be less than or equal to previous value"))
    elif new < 0 or new > MAX_INT32:
        errs.append(invalid_value("spec.activeDeadlineSeconds", new, names.inclusive_range(0, MAX_INT32)))


def _gates(errs: Errors, spec: Object, before: Object) -> None:
    known = {gate.get("name") for gate in before.get("schedulingGates") or ()}
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        if gate.get("name") not in known:
            text = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            errs.append(forbidden_field(f"spec.schedulingGates[{index}]", text))


def _toleration_key(toleration: Object) -> tuple[Any, ...]:
    return tuple(toleration.get(key) or "" for key in ("key", "operator", "value", "effect"))


def _tolerations(errs: Errors, spec: Object, before: Object) -> None:
    new = {_toleration_key(t) for t in spec.get("tolerations") or ()}
    if any(_toleration_key(t) not in new for t in before.get("tolerations") or ()):
        text = "existing toleration can not be modified except its tolerationSeconds"
        errs.append(forbidden_field("spec.tolerations", text))


def _undo_allowed(spec: Object, before: Object, *, gated: bool) -> Object:
    """The new spec with everything that may change set back; what still differs is refused."""
    out = dict(spec)
    for key in ("containers", "initContainers"):
        if spec.get(key):
            pairs = zip(spec[key], before.get(key) or (), strict=True)
            out[key] = [{**new, "image": old.get("image")} for new, old in pairs]
    for key in ("activeDeadlineSeconds", "tolerations", "schedulingGates"):
        out[key] = before.get(key)
    grace = before.get("terminationGracePeriodSeconds")
    if isinstance(grace, int) and grace < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        out["terminationGracePeriodSeconds"] = grace
    if gated:
        _undo_gated(out, spec, before)
    return out


def _undo_gated(out: Object, spec: Object, before: Object) -> None:
    """A gated pod may be steered further: node selector and required node affinity may be narrowed."""
    selector, old = spec.get("nodeSelector") or {}, before.get("nodeSelector") or {}
    if all(selector.get(key) == value for key, value in old.items()):
        out["nodeSelector"] = before.get("nodeSelector")
    if _narrower(spec.get("affinity"), before.get("affinity")):
        out["affinity"] = before.get("affinity")


def _required_terms(affinity: Any) -> list[Object]:
    node = (affinity or {}).get("nodeAffinity") or {}
    return (node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []


def _without_node_required(affinity: Any) -> Any:
    out = clone(affinity) if affinity else {}
    node = out.get("nodeAffinity")
    if node:
        node.pop("requiredDuringSchedulingIgnoredDuringExecution", None)
        node.pop("preferredDuringSchedulingIgnoredDuringExecution", None)
        if not node:
            out.pop("nodeAffinity")
    return out


def _narrower(new: Any, old: Any) -> bool:
    """Terms may gain expressions, none may lose one; what is preferred may change freely."""
    if not same(_without_node_required(new), _without_node_required(old)):
        return False
    mine, theirs = _required_terms(new), _required_terms(old)
    if not theirs:
        return True
    if len(mine) != len(theirs):
        return False
    return all(
        all(expression in (m.get(key) or ()) for expression in t.get(key) or ())
        for m, t in zip(mine, theirs, strict=True)
        for key in ("matchExpressions", "matchFields")
    )


def _difference(new: Object, old: Object) -> str:
    """The fields that differ, `+` what was asked for, `-` what stands."""
    lines = []
    for key in sorted({*new, *old}):
        if not same(new.get(key), old.get(key)):
            lines += [f"- {key}: {json.dumps(old.get(key))}", f"+ {key}: {json.dumps(new.get(key))}"]
    return "\n".join(lines)


def ephemeral_containers(errs: Errors, obj: Object, old: Object) -> None:
    """pods/ephemeralcontainers: only additions."""
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    pod_spec(errs, "spec", spec)
    new = {c.get("name"): c for c in spec.get("ephemeralContainers") or ()}
    for container in before.get("ephemeralContainers") or ():
        name = container.get("name")
        if name not in new:
            text = f"existing ephemeral containers {json.dumps(name)} may not be removed\n"
            errs.append(forbidden_field("spec.ephemeralContainers", text))
        elif not same(new[name], container):
            text = f"existing ephemeral containers {json.dumps(name)} may not be changed\n"
            errs.append(forbidden_field("spec.ephemeralContainers", text + _difference(new[name], container)))


def resize(errs: Errors, obj: Object, old: Object) -> None:
    """pods/resize: cpu and memory of containers, nothing else."""
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    pod_spec(errs, "spec", spec)
    out = dict(spec)
    for key in ("containers", "initContainers"):
        if len(spec.get(key) or ()) != len(before.get(key) or ()):
            errs.append(forbidden_field(f"spec.{key}", "may not be added or removed"))
            return
        if spec.get(key):
            pairs = zip(spec[key], before[key], strict=True)
            out[key] = [_undo_resize(errs, f"spec.{key}[{i}]", *pair) for i, pair in enumerate(pairs)]
    if not same(out, before):
        errs.append(forbidden_field("spec", "only cpu and memory resources are mutable"))


def _undo_resize(errs: Errors, at: str, new: Object, old: Object) -> Object:
    mine, theirs = new.get("resources") or {}, old.get("resources") or {}
    merged = dict(mine)
    for which in ("requests", "limits"):
        now, was = mine.get(which) or {}, theirs.get(which) or {}
        for name in ("cpu", "memory"):
            if name in was and name not in now:
                errs.append(forbidden_field(f"{at}.resources.{which}", f"resource {which} cannot be removed"))
        kept = {k: v for k, v in now.items() if k not in ("cpu", "memory")}
        merged[which] = {**kept, **{k: v for k, v in was.items() if k in ("cpu", "memory")}}
    return {**new, "resources": merged}
