"""pods/resize: cpu and memory of containers and sidecars, and of the pod as a whole; its class stays.

Called by: table.py. Never does: judge whether the node has room (the agent does).
Source: upstream ValidatePodResize; KEP-1287 (containers), KEP-5419 (pod level).
"""

from __future__ import annotations

from k1s.api.errors import forbidden_field, invalid_value
from k1s.api.meta import Object
from k1s.api.qos import qos_class
from k1s.api.validation.pod import pod
from k1s.api.validation.pod_annotations import MIRROR
from k1s.api.validation.rules import Errors, same

_RESIZABLE = ("cpu", "memory")
_ONLY = "only cpu and memory resources are mutable"
_ONLY_SIDECARS = "only cpu and memory resources for sidecar containers are mutable"
_NOT_INIT = "resources for non-sidecar init containers are immutable"


def resize(errs: Errors, obj: Object, old: Object) -> None:
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    pod(errs, obj)
    refused = _cannot(old)
    if refused:
        errs[:] = [forbidden_field("", refused)]
        return
    for key in ("containers", "initContainers"):
        new, was = ([c.get("name") for c in holder.get(key) or ()] for holder in (spec, before))
        if new != was:
            what = "added or removed" if len(new) != len(was) else "renamed or reordered"
            errs.append(forbidden_field(f"spec.{key}", f"{key} may not be {what} on resize"))
            return
    held = (old.get("status") or {}).get("qosClass") or qos_class(before)
    if qos_class(spec) != held:
        errs.append(invalid_value("spec", held, "Pod QOS Class may not change as a result of resizing"))
    if not _supported(old):
        errs.append(forbidden_field("spec", "Pod running on node without support for resize"))
    out = _undo(errs, spec, before)
    _pod_level(errs, out, spec, before)
    if not errs and not same(out, before):
        errs.append(forbidden_field("spec", _ONLY))


def _cannot(old: Object) -> str:
    if MIRROR in ((old.get("metadata") or {}).get("annotations") or {}):
        return "static pods cannot be resized"
    if ((old.get("spec") or {}).get("os") or {}).get("name") == "windows":
        return "windows pods cannot be resized"
    return ""


def _supported(old: Object) -> bool:
    """A node that can resize says what its containers have."""
    for container in (old.get("status") or {}).get("containerStatuses") or ():
        if (container.get("state") or {}).get("running") is not None:
            return container.get("resources") is not None
    return True


def _undo(errs: Errors, spec: Object, before: Object) -> Object:
    """The new spec with what may change set back; says what may not."""
    out = dict(spec)
    for key in ("initContainers", "containers"):
        if not spec.get(key):
            continue
        out[key] = []
        for index, (new, old) in enumerate(zip(spec[key], before[key], strict=True)):
            out[key].append(_undo_container(errs, f"spec.{key}[{index}].resources", key, new, old))
    return out


def _undo_container(errs: Errors, at: str, key: str, new: Object, old: Object) -> Object:
    if key == "initContainers" and old.get("restartPolicy") != "Always":
        if not same(new, old):
            errs.append(forbidden_field("spec", _NOT_INIT))
        return new
    mine, theirs = new.get("resources") or {}, old.get("resources") or {}
    _removed(errs, at, mine, theirs)
    out = {**new, "resources": _with_old_amounts(mine, theirs), "resizePolicy": new.get("resizePolicy")}
    if not same(out, old):
        errs.append(forbidden_field("spec", _ONLY_SIDECARS if key == "initContainers" else _ONLY))
    return out


def _with_old_amounts(mine: Object, theirs: Object) -> Object:
    merged = dict(mine)
    for which in ("requests", "limits"):
        now, was = mine.get(which) or {}, theirs.get(which) or {}
        kept = {k: v for k, v in now.items() if k not in _RESIZABLE}
        merged[which] = {**kept, **{k: v for k, v in was.items() if k in _RESIZABLE}}
    return merged


def _removed(errs: Errors, at: str, mine: Object, theirs: Object) -> None:
    for which in ("requests", "limits"):
        if set(theirs.get(which) or ()) - set(mine.get(which) or ()):
            errs.append(forbidden_field(f"{at}.{which}", f"resource {which} cannot be removed"))


def _pod_level(errs: Errors, out: Object, spec: Object, before: Object) -> None:
    mine, theirs = spec.get("resources"), before.get("resources")
    if not mine and not theirs:
        return
    _removed(errs, "spec.resources", mine or {}, theirs or {})
    out["resources"] = _with_old_amounts(mine or {}, theirs or {})
