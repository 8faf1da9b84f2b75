"""What may change in a pod: images, deadlines, tolerations added, gates removed; and in the ephemeralcontainers subresource.

Called by: table.py. Never does: binding (the subresource writes spec.nodeName itself), resizing (pod_resize.py).
Source: upstream ValidatePodUpdate, ValidatePodEphemeralContainersUpdate.
"""

from __future__ import annotations

import json
from typing import Any

from k1s.api import names
from k1s.api.errors import forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.pod import pod
from k1s.api.validation.pod_annotations import MIRROR, annotation_updates
from k1s.api.validation.rules import MAX_INT32, Errors, difference, same
from k1s.api.validation.scheduling import tolerations

_UPDATABLE = (
    "`spec.containers[*].image`",
    "`spec.initContainers[*].image`",
    "`spec.activeDeadlineSeconds`",
    "`spec.tolerations` (only additions to existing tolerations)",
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
)
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def update(errs: Errors, obj: Object, old: Object) -> None:
    """A Pod written through the main resource."""
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    pod(errs, obj)
    annotation_updates(errs, obj, old)
    for key in ("containers", "initContainers"):
        if not _same_containers(errs, key, spec.get(key) or (), before.get(key) or ()):
            return
    if not _deadline(errs, spec, before):
        return
    _tolerations(errs, spec, before)
    _gates(errs, spec, before)
    allowed = _undo_allowed(errs, spec, before)
    if not same(allowed, before):
        changed = difference(allowed, before)
        text = f"pod updates may not change fields other than {','.join(_UPDATABLE)}\n{changed}"
        errs.append(forbidden_field("spec", text))


def _same_containers(errs: Errors, key: str, new: Any, old: Any) -> bool:
    if len(new) != len(old):
        errs.append(forbidden_field(f"spec.{key}", "pod updates may not add or remove containers"))
        return False
    for index, container in enumerate(new):
        image, at = container.get("image") or "", f"spec.{key}[{index}].image"
        if not image:
            errs.append(required(at))
        elif image != image.strip():
            errs.append(invalid_value(at, image, "must not have leading or trailing whitespace"))
    return True


def _deadline(errs: Errors, spec: Object, before: Object) -> bool:
    new, old, at = spec.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds"), "spec.activeDeadlineSeconds"
    if new is None:
        if old is not None:
            errs.append(invalid_value(at, None, "must not update from a positive integer to nil value"))
        return True
    if not 0 <= new <= MAX_INT32:
        errs.append(invalid_value(at, new, names.inclusive_range(0, MAX_INT32)))
        return False
    if old is not None and new > old:
        errs.append(invalid_value(at, new, "must be less than or equal to previous value"))
        return False
    return True


def _gates(errs: Errors, spec: Object, before: Object) -> None:
    known = {gate.get("name") for gate in before.get("schedulingGates") or ()}
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        if gate.get("name") not in known:
            text = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            errs.append(forbidden_field(f"spec.schedulingGates[{index}].name", text))


def _toleration_key(toleration: Object) -> tuple[Any, ...]:
    return tuple(toleration.get(key) or "" for key in ("key", "operator", "value", "effect"))


def _tolerations(errs: Errors, spec: Object, before: Object) -> None:
    new = {_toleration_key(t) for t in spec.get("tolerations") or ()}
    if any(_toleration_key(t) not in new for t in before.get("tolerations") or ()):
        text = "existing toleration can not be modified except its tolerationSeconds"
        errs.append(forbidden_field("spec.tolerations", text))
    else:
        tolerations(errs, "spec.tolerations", spec.get("tolerations"))


def _undo_allowed(errs: Errors, spec: Object, before: Object) -> Object:
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
    if before.get("schedulingGates"):
        _undo_gated(errs, out, spec, before)
    return out


def _undo_gated(errs: Errors, out: Object, spec: Object, before: Object) -> None:
    """A gated pod may be steered further: node selector and required node affinity may be narrowed (KEP-3838)."""
    selector, old = spec.get("nodeSelector") or {}, before.get("nodeSelector") or {}
    if any(selector.get(key) != value for key, value in old.items()):
        text = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        errs.append(invalid_value("spec.nodeSelector", selector, text))
    out["nodeSelector"] = before.get("nodeSelector")
    mine, theirs = spec.get("affinity") or {}, before.get("affinity") or {}
    _node_affinity(errs, mine.get("nodeAffinity"), theirs.get("nodeAffinity"))
    merged = {**mine, "nodeAffinity": theirs.get("nodeAffinity")}
    out["affinity"] = {key: value for key, value in merged.items() if value is not None}


def _terms(affinity: Any) -> list[Object]:
    return ((affinity or {}).get(_REQUIRED) or {}).get("nodeSelectorTerms") or []


def _node_affinity(errs: Errors, new: Any, old: Any) -> None:
    """Terms may gain requirements at their end, none may be lost; what is preferred may change freely."""
    at = f"spec.affinity.nodeAffinity.{_REQUIRED}.nodeSelectorTerms"
    mine, theirs = _terms(new), _terms(old)
    if not theirs:
        return
    if len(mine) != len(theirs):
        text = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        errs.append(invalid_value(at, mine, text))
        return
    for index, (term, was) in enumerate(zip(mine, theirs, strict=True)):
        if not _only_added(term, was):
            errs.append(invalid_value(f"{at}[{index}]", term, "only additions are allowed (no mutations or deletions)"))


def _only_added(term: Object, was: Object) -> bool:
    lists = [(term.get(key) or [], was.get(key) or []) for key in ("matchExpressions", "matchFields")]
    if not any(old for _, old in lists):
        # An empty term matches nothing: whatever it gains widens it.
        return not any(new for new, _ in lists)
    return all(same(new[: len(old)], old) for new, old in lists)


def ephemeral_containers(errs: Errors, obj: Object, old: Object) -> None:
    """pods/ephemeralcontainers: only additions."""
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    pod(errs, obj)
    annotation_updates(errs, obj, old)
    if MIRROR in ((old.get("metadata") or {}).get("annotations") or {}):
        errs[:] = [forbidden_field("", "static pods do not support ephemeral containers")]
        return
    new = {c.get("name"): c for c in spec.get("ephemeralContainers") or ()}
    for container in before.get("ephemeralContainers") or ():
        name = container.get("name")
        if name not in new:
            text = f"existing ephemeral containers {json.dumps(name)} may not be removed\n"
            errs.append(forbidden_field("spec.ephemeralContainers", text))
        elif not same(new[name], container):
            text = f"existing ephemeral containers {json.dumps(name)} may not be changed\n"
            errs.append(forbidden_field("spec.ephemeralContainers", text + difference(new[name], container)))
