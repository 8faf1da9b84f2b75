"""metav1.Condition, as the newer kinds have them in their status.

Called by: certificates.py, devices.py, migrations.py, extension.py, cluster.py. Never does: the older kinds' own conditions.
Source: apimachinery/pkg/apis/meta/v1/validation ValidateConditions.
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, invalid_value, not_supported, required, too_long
from k1s.api.validation.rules import Errors, strings

_STATUSES = ("False", "True", "Unknown")
_MAX_REASON, _MAX_MESSAGE = 1024, 32 * 1024


def conditions(errs: Errors, field: str, items: Any) -> None:
    seen: set[str] = set()
    for index, condition in enumerate(items or ()):
        at, kind = f"{field}[{index}]", condition.get("type") or ""
        if kind in seen:
            errs.append(duplicate(f"{at}.type", kind))
        seen.add(kind)
        strings(errs, f"{at}.type", kind, names.qualified_name)
        if condition.get("status") not in _STATUSES:
            errs.append(not_supported(f"{at}.status", condition.get("status") or "", _STATUSES))
        if (condition.get("observedGeneration") or 0) < 0:
            text = "must be greater than or equal to zero"
            errs.append(invalid_value(f"{at}.observedGeneration", condition["observedGeneration"], text))
        if not condition.get("lastTransitionTime"):
            errs.append(required(f"{at}.lastTransitionTime", "must be set"))
        reason = condition.get("reason") or ""
        if not reason:
            errs.append(required(f"{at}.reason", "must be set"))
        else:
            strings(errs, f"{at}.reason", reason, names.condition_reason)
            if len(reason) > _MAX_REASON:
                errs.append(too_long(f"{at}.reason", _MAX_REASON))
        if len((condition.get("message") or "").encode()) > _MAX_MESSAGE:
            errs.append(too_long(f"{at}.message", _MAX_MESSAGE))


def is_true(obj: dict[str, Any], kind: str) -> bool:
    """Whether the status has this condition with status True."""
    found = (obj.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == kind and c.get("status") == "True" for c in found)
