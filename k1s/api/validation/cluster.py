"""Disruption budgets, priority classes, leases, runtime classes, certificate requests.

Called by: table.py. Never does: sign, preempt, elect.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from typing import Any

from k1s.api import names
from k1s.api.errors import forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.object_meta import label_map
from k1s.api.validation.rules import Errors, immutable, non_negative, one_of, percent_or_count, positive, quantities, strings
from k1s.api.validation.rules import at_most_hundred_percent as at_most_all
from k1s.api.validation.scheduling import tolerations
from k1s.api.validation.selectors import label_selector

MAX_USER_PRIORITY = 1_000_000_000
_SYSTEM_CLASSES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_PREEMPTION = ("Never", "PreemptLowerPriority")


def disruption_budget(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    low, high = spec.get("minAvailable"), spec.get("maxUnavailable")
    if low is not None and high is not None:
        errs.append(invalid_value("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for key, value in (("minAvailable", low), ("maxUnavailable", high)):
        percent_or_count(errs, f"spec.{key}", value)
        at_most_all(errs, f"spec.{key}", value)
    label_selector(errs, "spec.selector", spec.get("selector"))
    policy = spec.get("unhealthyPodEvictionPolicy")
    one_of(errs, "spec.unhealthyPodEvictionPolicy", policy, ("AlwaysAllow", "IfHealthyBudget"))


def disruption_budget_status(errs: Errors, obj: Object, old: Object) -> None:
    status = obj.get("status") or {}
    for key in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        non_negative(errs, f"status.{key}", status.get(key))


def priority_class(errs: Errors, obj: Object) -> None:
    name, value = (obj.get("metadata") or {}).get("name") or "", obj.get("value") or 0
    if name.startswith("system-"):
        if _SYSTEM_CLASSES.get(name) != value:
            text = "priority class names with 'system-' prefix are reserved for system use only."
            errs.append(forbidden_field("metadata.name", f"{text} error: {name} is not a known system priority class"))
    elif value > MAX_USER_PRIORITY:
        text = f"maximum allowed value of a user defined priority is {MAX_USER_PRIORITY}"
        errs.append(forbidden_field("value", text))
    one_of(errs, "preemptionPolicy", obj.get("preemptionPolicy"), _PREEMPTION)


def priority_class_update(errs: Errors, obj: Object, old: Object) -> None:
    if (obj.get("value") or 0) != (old.get("value") or 0):
        errs.append(forbidden_field("value", "may not be changed in an update."))
    immutable(errs, "preemptionPolicy", obj.get("preemptionPolicy"), old.get("preemptionPolicy"))


def lease(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    positive(errs, "spec.leaseDurationSeconds", spec.get("leaseDurationSeconds"))
    non_negative(errs, "spec.leaseTransitions", spec.get("leaseTransitions"))
    strategy, preferred = spec.get("strategy"), spec.get("preferredHolder")
    if preferred and strategy is None:
        errs.append(forbidden_field("spec.preferredHolder", "may only be specified if `strategy` is defined"))


def runtime_class(errs: Errors, obj: Object) -> None:
    strings(errs, "handler", obj.get("handler") or "", names.dns1123_label)
    for name, amount in ((obj.get("overhead") or {}).get("podFixed") or {}).items():
        quantities(errs, f"overhead.podFixed[{name}]", amount)
    scheduling = obj.get("scheduling") or {}
    label_map(errs, "scheduling.nodeSelector", scheduling.get("nodeSelector"))
    tolerations(errs, "scheduling.tolerations", scheduling.get("tolerations"))


def runtime_class_update(errs: Errors, obj: Object, old: Object) -> None:
    runtime_class(errs, obj)
    immutable(errs, "handler", obj.get("handler"), old.get("handler"))


_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----\s")
_USAGES = frozenset(
    (
        "signing",
        "digital signature",
        "content commitment",
        "key encipherment",
        "key agreement",
        "data encipherment",
        "cert sign",
        "crl sign",
        "encipher only",
        "decipher only",
        "any",
        "server auth",
        "client auth",
        "code signing",
        "email protection",
        "s/mime",
        "ipsec end system",
        "ipsec tunnel",
        "ipsec user",
        "timestamping",
        "ocsp signing",
        "microsoft sgc",
        "netscape sgc",
    )
)


def _request(errs: Errors, value: Any) -> None:
    if not value:
        errs.append(required("spec.request"))
        return
    try:
        block = _PEM.match(b64decode(value).lstrip())
    except (binascii.Error, ValueError):
        block = None
    if block is None or block.group(1) not in (b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST"):
        errs.append(invalid_value("spec.request", value, "PEM block type must be CERTIFICATE REQUEST"))


def signing_request(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    _request(errs, spec.get("request"))
    if not spec.get("usages"):
        errs.append(required("spec.usages"))
    seen: set[str] = set()
    for index, usage in enumerate(spec.get("usages") or ()):
        one_of(errs, f"spec.usages[{index}]", usage, _USAGES, needed=True)
        if usage in seen:
            errs.append(invalid_value(f"spec.usages[{index}]", usage, "must be unique"))
        seen.add(usage)
    signer = spec.get("signerName")
    if not signer:
        errs.append(required("spec.signerName"))
    else:
        strings(errs, "spec.signerName", signer, names.domain_prefixed_key)
    seconds = spec.get("expirationSeconds")
    if isinstance(seconds, int) and seconds < 600:
        text = "may not specify a duration less than 600 seconds (10 minutes)"
        errs.append(invalid_value("spec.expirationSeconds", seconds, text))


def signing_request_update(errs: Errors, obj: Object, old: Object) -> None:
    """The spec is fixed by the strategy; what stands was valid when it came."""
    immutable(errs, "spec", obj.get("spec"), old.get("spec"))


def signing_request_conditions(errs: Errors, obj: Object, old: Object) -> None:
    """status and approval: Approved and Denied exclude each other, and none may be taken back."""
    conditions = (obj.get("status") or {}).get("conditions") or []
    kinds = [c.get("type") for c in conditions]
    for index, condition in enumerate(conditions):
        at = f"status.conditions[{index}]"
        if not condition.get("type"):
            errs.append(required(f"{at}.type"))
        one_of(errs, f"{at}.status", condition.get("status"), ("False", "True", "Unknown"), needed=True)
        if condition.get("type") in ("Approved", "Denied", "Failed") and condition.get("status") != "True":
            errs.append(invalid_value(f"{at}.status", condition.get("status"), "must be True"))
    if "Approved" in kinds and "Denied" in kinds:
        errs.append(invalid_value("status.conditions", "Denied", "Approved and Denied conditions are mutually exclusive"))
    before = [c.get("type") for c in (old.get("status") or {}).get("conditions") or ()]
    for kind in ("Approved", "Denied", "Failed"):
        if before.count(kind) > kinds.count(kind):
            errs.append(forbidden_field("status.conditions", f"updates may not remove a condition of type {kind}"))
