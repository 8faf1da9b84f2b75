"""Groups of the Kubernetes community (*.k8s.io, *.kubernetes.io) need an annotation that points at an approval.

Owns: approval(), approval_faults(). Called by: definitions.py, the apiserver (a condition of definitions).
Source: apiextensions-apiserver/pkg/apihelpers/helpers.go, KEP-1111.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from k1s.api.errors import FieldError, invalid_value, required
from k1s.api.meta import Object

ANNOTATION = "api-approved.kubernetes.io"
_PULL = "https://github.com/kubernetes/enhancements/pull/1111"
MISSING, INVALID, BYPASSED, APPROVED = "Missing", "Invalid", "Bypassed", "Approved"


def protected(group: str) -> bool:
    return group in ("k8s.io", "kubernetes.io") or group.endswith((".k8s.io", ".kubernetes.io"))


def approval(annotations: Object | None) -> tuple[str, str]:
    """The state, and what there is to say of it."""
    text = (annotations or {}).get(ANNOTATION)
    if not text:
        return MISSING, f'protected groups must have approval annotation "{ANNOTATION}", see {_PULL}'
    if text.startswith("unapproved"):
        return BYPASSED, f'not approved: "{text}"'
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = None
    if parts is not None and parts.scheme and parts.netloc:
        return APPROVED, f"approved in {text}"
    said = (
        f'protected groups must have approval annotation "{ANNOTATION}" with either a URL or a reason starting with '
        f'"unapproved", see {_PULL}'
    )
    return INVALID, said


def approval_faults(obj: Object, old: Object | None) -> list[FieldError]:
    """What did not change is not complained of."""
    if not protected((obj.get("spec") or {}).get("group") or ""):
        return []
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    state, said = approval(annotations)
    if old is not None and approval((old.get("metadata") or {}).get("annotations"))[0] == state:
        return []
    at = f"metadata.annotations[{ANNOTATION}]"
    if state == MISSING:
        return [required(at, said)]
    return [invalid_value(at, annotations[ANNOTATION], said)] if state == INVALID else []
