"""The status of a CustomResourceDefinition: which names it got, and its conditions.

Owns: names_taken(), settled(). Called by: crds. Never does: write it, or serve anything.
Source: apiextensions-apiserver/pkg/controller/{status,establish,nonstructuralschema,apiapproval,finalizer}.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from k1s.api.clone import clone
from k1s.api.validation.api_approval import APPROVED, BYPASSED, INVALID, MISSING, approval, protected
from k1s.api.validation.definition_conversion import readable_bundle
from k1s.api.validation.structural import structural

Object = dict[str, Any]
Taken = tuple[set[str], set[str]]

_APPROVALS = {
    INVALID: ("False", "InvalidAnnotation"),
    MISSING: ("False", "MissingAnnotation"),
    APPROVED: ("True", "ApprovedAnnotation"),
    BYPASSED: ("False", "UnapprovedAnnotation"),
}
# The forms of a name, what they must differ from (0: resources, 1: kinds), and what a clash is called.
_FORMS = (("plural", 0, "PluralConflict"), ("singular", 0, "SingularConflict"))
_KINDS = (("kind", 1, "KindConflict"), ("listKind", 1, "ListKindConflict"))


def names_taken(definitions: Iterable[Object], group: str, but: str) -> Taken:
    """Resources and kinds that other definitions of a group have got."""
    resources: set[str] = set()
    kinds: set[str] = set()
    for crd in definitions:
        if crd["spec"].get("group") != group or crd["metadata"]["name"] == but:
            continue
        got = (crd.get("status") or {}).get("acceptedNames") or {}
        resources |= {got.get("plural") or "", got.get("singular") or "", *(got.get("shortNames") or ())}
        kinds |= {got.get("kind") or "", got.get("listKind") or ""}
    return resources - {""}, kinds - {""}


def named(crd: Object, taken: Taken) -> tuple[Object, str, str]:
    """The names it gets now; reason and message of what it does not get, or empty."""
    wanted, old = crd["spec"].get("names") or {}, (crd.get("status") or {}).get("acceptedNames") or {}
    got = clone(old)
    reason = message = ""

    def ask(key: str, where: int, said: str) -> None:
        nonlocal reason, message
        name = wanted.get(key) or ""
        if name != (old.get(key) or "") and name in taken[where]:
            reason, message = said, f'"{name}" is already in use'
        elif name:
            got[key] = name

    for form in _FORMS:
        ask(*form)
    short, had = wanted.get("shortNames") or [], old.get("shortNames") or []
    clashes = [f'"{name}" is already in use' for name in short if name not in had and name in taken[0]]
    if clashes:
        reason, message = "ShortNamesConflict", clashes[0] if len(clashes) == 1 else f"[{', '.join(clashes)}]"
    else:
        _put(got, "shortNames", short)
    for form in _KINDS:
        ask(*form)
    _put(got, "categories", wanted.get("categories") or [])
    return got, reason, message


def _put(names: Object, key: str, value: list[str]) -> None:
    if value:
        names[key] = list(value)
    else:
        names.pop(key, None)


def settled(crd: Object, taken: Taken, now: str) -> None:
    """Bring the status up to date, in place."""
    status = crd.setdefault("status", {})
    got, reason, message = named(crd, taken)
    status["acceptedNames"] = {"kind": "", "plural": "", **got}
    if reason:
        condition(status, "NamesAccepted", "False", reason, message, now)
        if not is_true(crd, "Established"):
            condition(status, "Established", "False", "NotAccepted", "not all names are accepted", now)
    else:
        condition(status, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now)
        if not is_true(crd, "Established"):
            _establish(crd, status, now)
    _schemas(crd, status, now)
    if protected(crd["spec"].get("group") or ""):
        state, said = approval(crd["metadata"].get("annotations"))
        value, why = _APPROVALS[state]
        condition(status, "KubernetesAPIApprovalPolicyConformant", value, why, said, now)


def _establish(crd: Object, status: Object, now: str) -> None:
    webhook = ((crd["spec"].get("conversion") or {}).get("webhook") or {}).get("clientConfig") or {}
    if webhook.get("caBundle") and not readable_bundle(webhook["caBundle"]):
        text = "The conversion webhook CABundle is invalid"
        condition(status, "Established", "False", "InvalidCABundle", text, now)
        return
    condition(status, "Established", "True", "InitialNamesAccepted", "the initial names have been accepted", now)


def _schemas(crd: Object, status: Object, now: str) -> None:
    said = ["spec.preserveUnknownFields: Invalid value: true: must be false"] if crd["spec"].get("preserveUnknownFields") else []
    for index, version in enumerate(crd["spec"].get("versions") or ()):
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is not None:
            said += map(str, structural(f"spec.versions[{index}].schema.openAPIV3Schema", schema))
    if said:
        text = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
        condition(status, "NonStructuralSchema", "True", "Violations", text, now)
    else:
        status["conditions"] = [c for c in status.get("conditions") or [] if c.get("type") != "NonStructuralSchema"]


def terminating(crd: Object, now: str, *, done: bool) -> None:
    status = crd.setdefault("status", {})
    if done:
        condition(status, "Terminating", "False", "InstanceDeletionCompleted", "removed all instances", now)
    else:
        text = "CustomResource deletion is in progress"
        condition(status, "Terminating", "True", "InstanceDeletionInProgress", text, now)


def is_true(crd: Object, type_: str) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == type_ and c.get("status") == "True" for c in conditions)


def condition(status: Object, type_: str, value: str, reason: str, message: str, now: str) -> None:
    found = status.get("conditions") or []
    old = next((c for c in found if c.get("type") == type_), None)
    since = old["lastTransitionTime"] if old is not None and old.get("status") == value else now
    new = {"lastTransitionTime": since, "message": message, "reason": reason, "status": value, "type": type_}
    status["conditions"] = [*found, new] if old is None else [new if c is old else c for c in found]
