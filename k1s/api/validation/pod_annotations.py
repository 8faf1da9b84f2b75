"""Annotations of pods and pod templates that mean something: mirror pods, deletion cost, seccomp and AppArmor of old.

Called by: pod.py, pod_update.py, pod_status.py. Never does: warn (api/warnings does).
Source: upstream ValidatePodSpecificAnnotations, -AnnotationUpdates, validateSeccompAnnotationsAndFields,
validateAppArmorAnnotationsAndFieldsMatchOnCreate.
"""

from __future__ import annotations

import json
import re
from typing import Any

from k1s.api.errors import forbidden_field, invalid_value
from k1s.api.meta import Object
from k1s.api.validation.mounts import local_path
from k1s.api.validation.rules import Errors
from k1s.api.validation.scheduling import tolerations
from k1s.api.validation.windows import visit

MIRROR = "kubernetes.io/config.mirror"
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_TOLERATIONS = "scheduler.alpha.kubernetes.io/tolerations"
_COST = "controller.kubernetes.io/pod-deletion-cost"
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)\Z")


def pod_annotations(errs: Errors, field: str, value: Any, spec: Object, *, old_cost: str | None = None) -> None:
    """The annotations of a pod (`field`: their path). A deletion cost that was wrong before may stay."""
    if not value:
        return
    if MIRROR in value and not spec.get("nodeName"):
        text = "must set spec.nodeName if mirror pod annotation is set"
        errs.append(invalid_value(f"{field}[{MIRROR}]", value[MIRROR], text))
    if value.get(_TOLERATIONS):
        _old_tolerations(errs, field, value[_TOLERATIONS])
    cost = value.get(_COST)
    if cost is not None and not _is_cost(cost) and (old_cost is None or _is_cost(old_cost)):
        errs.append(invalid_value(f"{field}[{_COST}]", cost, "must be a 32bit integer"))
    for key, profile in value.items():
        if key == _SECCOMP_POD or key.startswith(_SECCOMP_CONTAINER):
            _seccomp(errs, f"{field}.{key}", profile)
    known = {container.get("name") for _, container in visit("", spec)}
    for key, profile in value.items():
        if key.startswith(APPARMOR):
            name = key.removeprefix(APPARMOR)
            if name not in known:
                errs.append(invalid_value(f"{field}[{key}]", name, "container not found"))
            if profile not in ("", "runtime/default", "unconfined") and not profile.startswith("localhost/"):
                text = f"invalid AppArmor profile name: {json.dumps(profile)}"
                errs.append(invalid_value(f"{field}[{key}]", profile, text))


def _old_tolerations(errs: Errors, field: str, text: str) -> None:
    try:
        found = json.loads(text)
    except ValueError as error:
        errs.append(invalid_value(field, _TOLERATIONS, str(error)))
        return
    if isinstance(found, list):
        tolerations(errs, f"{field}.{_TOLERATIONS}", [t for t in found if isinstance(t, dict)])


def _is_cost(value: str) -> bool:
    # Upstream takes no plus sign and no leading zeros, so that a cost has one spelling.
    return bool(_NUMBER.match(value)) and value != "-0" and -(2**31) <= int(value) < 2**31


def _seccomp(errs: Errors, field: str, profile: str) -> None:
    if profile in ("runtime/default", "docker/default", "unconfined"):
        return
    if profile.startswith("localhost/"):
        local_path(errs, field, profile.removeprefix("localhost/"))
    else:
        errs.append(invalid_value(field, profile, "must be a valid seccomp profile"))


def annotation_updates(errs: Errors, obj: Object, old: Object) -> None:
    """What may not be added, changed or taken away; the rest is checked as if new."""
    field = "metadata.annotations"
    new, before = ((o.get("metadata") or {}).get("annotations") or {} for o in (obj, old))
    for key in sorted({*new, *before}):
        if key != MIRROR and not key.startswith(APPARMOR):
            continue
        what = "mirror pod annotation" if key == MIRROR else "AppArmor annotations"
        if key not in before:
            errs.append(forbidden_field(f"{field}[{key}]", f"may not add {what}"))
        elif new.get(key) != before[key]:
            errs.append(forbidden_field(f"{field}[{key}]", f"may not remove or update {what}"))
    pod_annotations(errs, field, new, obj.get("spec") or {}, old_cost=before.get(_COST))


def profiles_match(errs: Errors, at: str, annotations: Any, spec: Object) -> None:
    """Where an annotation and its field both stand they say the same. `at`: the path of the spec."""
    if not annotations:
        return
    context = spec.get("securityContext") or {}
    if context.get("seccompProfile") and _SECCOMP_POD in annotations:
        here = f"{at}.securityContext.seccompProfile"
        _match(errs, here, annotations[_SECCOMP_POD], context["seccompProfile"], "seccomp")
    windows = (spec.get("os") or {}).get("name") == "windows"
    for here, container in visit(at, spec):
        own, name = container.get("securityContext") or {}, container.get("name")
        profile, text = own.get("seccompProfile"), annotations.get(f"{_SECCOMP_CONTAINER}{name}")
        if profile and text is not None:
            _match(errs, f"{here}.securityContext.seccompProfile", text, profile, "seccomp")
        profile, text = own.get("appArmorProfile") or context.get("appArmorProfile"), annotations.get(f"{APPARMOR}{name}")
        if profile and text is not None and not windows:
            _match(errs, f"{here}.securityContext.appArmorProfile", text, profile, "apparmor")


def _match(errs: Errors, field: str, annotation: str, profile: Object, what: str) -> None:
    kind = profile.get("type")
    runtime = ("runtime/default", "docker/default") if what == "seccomp" else ("runtime/default",)
    if kind == "Localhost":
        wrong = not annotation.startswith("localhost/")
    else:
        wrong = annotation not in (runtime if kind == "RuntimeDefault" else ("unconfined",))
    if kind not in ("Unconfined", "RuntimeDefault", "Localhost"):
        return
    if wrong:
        errs.append(forbidden_field(f"{field}.type", f"{what} type in annotation and field must match"))
    elif kind == "Localhost" and annotation.removeprefix("localhost/") != profile.get("localhostProfile"):
        errs.append(forbidden_field(f"{field}.localhostProfile", f"{what} profile in annotation and field must match"))
