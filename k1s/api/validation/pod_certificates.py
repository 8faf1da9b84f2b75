"""PodCertificateRequests: what a node asks of a signer for a pod, and what a signer may answer.

Called by: table.py. Never does: look whether pod, account and node are there (admission does).
"""

from __future__ import annotations

import binascii
import time
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from k1s.api import names
from k1s.api.errors import OMIT, invalid_value, not_supported, required, too_long
from k1s.api.meta import Object
from k1s.api.validation import pem
from k1s.api.validation.certificates import signer_name
from k1s.api.validation.conditions import conditions, is_true
from k1s.api.validation.object_meta import MAX_ANNOTATIONS
from k1s.api.validation.rules import Errors, immutable, same, strings

if TYPE_CHECKING:
    from cryptography import x509

# Seconds since the epoch: time as a parameter, but for a layer that knows no clocks.
Now = Callable[[], float]

_HOUR, _DAY, _LONGEST = 3600, 86400, 7862400
_MAX_UID, _MAX_REQUEST, _MAX_CHAIN = 128, 10 * 1024, 100 * 1024
_KINDS = ("Issued", "Denied", "Failed")
_CHAIN = "status.certificateChain"
_MARGIN = timedelta(minutes=10)


def _annotations(errs: Errors, field: str, found: Any) -> None:
    size = 0
    for key, value in (found or {}).items():
        before = len(errs)
        strings(errs, field, key.lower(), names.qualified_name)
        if len(errs) == before and "/" not in key:
            errs.append(invalid_value(field, key, 'must be a domain-prefixed key (such as "acme.io/foo")'))
        size += len(key.encode()) + len(str(value).encode())
    if size > MAX_ANNOTATIONS:
        errs.append(too_long(field, MAX_ANNOTATIONS))


def _identity(errs: Errors, spec: Object) -> None:
    for kind in ("pod", "serviceAccount", "node"):
        strings(errs, f"spec.{kind}Name", spec.get(f"{kind}Name") or "", names.dns1123_subdomain)
        uid = spec.get(f"{kind}UID") or ""
        if not uid:
            errs.append(invalid_value(f"spec.{kind}UID", uid, "must not be empty"))
        elif len(uid) > _MAX_UID:
            errs.append(too_long(f"spec.{kind}UID", _MAX_UID))


def _request(errs: Errors, value: Any) -> None:
    at = "spec.stubPKCS10Request"
    try:
        der = b64decode(str(value or ""))
    except (binascii.Error, ValueError):
        der = b""
    if not der:
        errs.append(required(at))
        return
    if len(der) > _MAX_REQUEST:
        errs.append(too_long(at, _MAX_REQUEST))
        return
    request, wrong = pem.certificate_request(der)
    wrong = wrong if request is None else pem.unsupported_key(request)
    if wrong:
        errs.append(invalid_value(at, OMIT, wrong))


def request(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    signer = spec.get("signerName") or ""
    signer_name(errs, "spec.signerName", signer)
    _annotations(errs, "spec.unverifiedUserAnnotations", spec.get("unverifiedUserAnnotations"))
    _identity(errs, spec)
    seconds = spec.get("maxExpirationSeconds")
    if seconds is None:
        errs.append(required("spec.maxExpirationSeconds", "must be set"))
        return
    most = _DAY if signer.startswith("kubernetes.io/") or ".kubernetes.io/" in signer else _LONGEST
    if not _HOUR <= seconds <= most:
        errs.append(invalid_value("spec.maxExpirationSeconds", seconds, f"must be in the range [{_HOUR}, {most}]"))
    _request(errs, spec.get("stubPKCS10Request"))


def request_update(errs: Errors, obj: Object, old: Object) -> None:
    immutable(errs, "spec", obj.get("spec"), old.get("spec"))


def _known(errs: Errors, found: list[Object]) -> None:
    """At most one of the known conditions, and it is True."""
    count = 0
    for index, condition in enumerate(found):
        at, kind = f"status.conditions[{index}]", condition.get("type") or ""
        if kind not in _KINDS:
            errs.append(not_supported(f"{at}.type", kind, _KINDS, as_given=True))
            continue
        count += 1
        if count > 1:
            text = 'There may be at most one condition with type "Issued", "Denied", or "Failed"'
            errs.append(invalid_value(f"{at}.type", kind, text))
        if condition.get("status") != "True":
            errs.append(not_supported(f"{at}.status", condition.get("status") or "", ("True",)))


def request_status(errs: Errors, obj: Object, old: Object, now: Now = time.time) -> None:
    """A request is decided once: issued with a chain for its key, denied or failed with nothing else."""
    status, before = obj.get("status") or {}, old.get("status") or {}
    faults: Errors = []
    _known(faults, status.get("conditions") or [])
    conditions(faults, "status.conditions", status.get("conditions"))
    if faults:
        errs.extend(faults)
        return
    text = ""
    if any(is_true(old, kind) for kind in _KINDS):
        text = "" if same(status, before) else "immutable after PodCertificateRequest is issued, denied, or failed"
    elif is_true(obj, "Denied") or is_true(obj, "Failed"):
        rest = {key: value for key, value in status.items() if key != "conditions"}
        if not same(rest, {}):
            text = "non-condition status fields must be empty when denying or failing the PodCertificateRequest"
    elif is_true(obj, "Issued"):
        _issued(errs, obj, status, now)
    elif not same(status, before):
        text = 'status is immutable unless transitioning to "Issued", "Denied", or "Failed"'
    if text:
        errs.append(invalid_value("status", OMIT, text))


def _issued(errs: Errors, obj: Object, status: Object, now: Now) -> None:
    chain = status.get("certificateChain") or ""
    if len(chain) > _MAX_CHAIN:
        errs.append(too_long(_CHAIN, _MAX_CHAIN))
        return
    found = list(pem.blocks(chain.encode()))
    if not found:
        errs.append(invalid_value(_CHAIN, chain, "issued certificate chain must contain at least one certificate"))
        return
    if any(kind != "CERTIFICATE" for kind, _, _ in found):
        text = "issued certificate chain must consist entirely of CERTIFICATE PEM blocks"
        errs.append(invalid_value(_CHAIN, chain, text))
        return
    certificates = [pem.certificate(content) for _, _, content in found]
    leaf = certificates[0]
    if leaf is None:
        errs.append(invalid_value(_CHAIN, chain, "leaf certificate does not parse as valid X.509"))
        return
    if not _same_key(obj, leaf):
        errs.append(invalid_value(_CHAIN, chain, "leaf certificate was not issued to the requested public key"))
        return
    before = len(errs)
    _times(errs, obj, status, leaf, now)
    if len(errs) == before and None in certificates:
        errs.append(invalid_value(_CHAIN, chain, "intermediate certificate does not parse as valid X.509"))


def _same_key(obj: Object, leaf: x509.Certificate) -> bool:
    der = b64decode((obj.get("spec") or {}).get("stubPKCS10Request") or "")
    request, _ = pem.certificate_request(der)
    return request is not None and pem.public_key(request) == pem.public_key(leaf)


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None


def _times(errs: Errors, obj: Object, status: Object, leaf: x509.Certificate, now: Now) -> None:
    begin, end, refresh = (_moment(status.get(key)) for key in ("notBefore", "notAfter", "beginRefreshAt"))
    for key, value, text in (
        ("notBefore", begin, "must be present and consistent with the issued certificate"),
        ("notAfter", end, "must be present and consistent with the issued certificate"),
        ("beginRefreshAt", refresh, "must be present and in the range [notbefore+10min, notafter-10min]"),
    ):
        if value is None:
            errs.append(required(f"status.{key}", text))
    if begin is None or end is None or refresh is None:
        return
    at, detail = _wrong_time(obj, leaf, begin, end, refresh, datetime.fromtimestamp(now(), UTC))
    if detail:
        errs.append(invalid_value(at, status.get(at.rpartition(".")[2]) if at != _CHAIN else OMIT, detail))


def _wrong_time(
    obj: Object, leaf: x509.Certificate, begin: datetime, end: datetime, refresh: datetime, now: datetime
) -> tuple[str, str]:
    """The field of the first moment that does not fit, and why not."""
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    most = (obj.get("spec") or {}).get("maxExpirationSeconds") or _DAY
    if begin != leaf.not_valid_before_utc:
        return "status.notBefore", "must be set to the NotBefore time encoded in the leaf certificate"
    if not abs(begin - now) < timedelta(minutes=5):
        return "status.notBefore", "must be set to within 5 minutes of kube-apiserver's current time"
    if end != leaf.not_valid_after_utc:
        return "status.notAfter", "must be set to the NotAfter time encoded in the leaf certificate"
    if life < timedelta(hours=1):
        return _CHAIN, "leaf certificate lifetime must be >= 1 hour"
    if life > timedelta(seconds=most):
        return _CHAIN, f"leaf certificate lifetime must be <= spec.maxExpirationSeconds ({most})"
    if refresh < begin + _MARGIN:
        return "status.beginRefreshAt", "must be at least 10 minutes after status.notBefore"
    if refresh > end - _MARGIN:
        return "status.beginRefreshAt", "must be at least 10 minutes before status.notAfter"
    return "", ""
