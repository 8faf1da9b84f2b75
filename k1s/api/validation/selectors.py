"""Label selectors in specs: metav1.LabelSelector and plain label maps.

Called by: workloads, policies, services. Never does: match anything (api/selectors.py does).
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.object_meta import label_map
from k1s.api.validation.rules import Errors, strings


def expression(errs: Errors, field: str, term: Object, *, numeric: bool = False, values_too: bool = True) -> None:
    """One requirement of a label selector; `numeric` also takes Gt and Lt, as selectors of nodes do."""
    operator, values = term.get("operator"), term.get("values") or []
    if operator in ("In", "NotIn"):
        if not values:
            errs.append(required(f"{field}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            errs.append(forbidden_field(f"{field}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
    elif numeric and operator in ("Gt", "Lt"):
        if len(values) != 1:
            errs.append(required(f"{field}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'"))
    else:
        errs.append(invalid_value(f"{field}.operator", operator or "", "not a valid selector operator"))
    strings(errs, f"{field}.key", term.get("key") or "", names.qualified_name)
    for index, value in enumerate(values if values_too else ()):
        strings(errs, f"{field}.values[{index}]", value, names.label_value)


def label_selector(errs: Errors, field: str, selector: Any) -> None:
    """A metav1.LabelSelector; absent passes."""
    if not selector:
        return
    label_map(errs, f"{field}.matchLabels", selector.get("matchLabels"))
    for index, term in enumerate(selector.get("matchExpressions") or ()):
        expression(errs, f"{field}.matchExpressions[{index}]", term)


def is_empty(selector: Any) -> bool:
    return not selector or (not selector.get("matchLabels") and not selector.get("matchExpressions"))


def selects(selector: Object, found: dict[str, str]) -> bool:
    """Whether a (valid) selector matches labels."""
    if any(found.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for term in selector.get("matchExpressions") or ():
        key, operator, values = term.get("key"), term.get("operator"), term.get("values") or ()
        there = key in found
        matched = {
            "In": there and found.get(key) in values,
            "NotIn": not there or found.get(key) not in values,
            "Exists": there,
            "DoesNotExist": not there,
        }.get(operator, False)
        if not matched:
            return False
    return True
