"""certificates.k8s.io: signing requests, trust bundles.

Called by: table.py; pod_certificates.py takes signer_name. Never does: sign, or ask who may (admission does).
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, not_supported, omitted, required, too_long
from k1s.api.meta import Object
from k1s.api.validation import pem
from k1s.api.validation.rules import Errors, immutable, same

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
_LEGACY_SIGNER = "kubernetes.io/legacy-unknown"
_DECISIONS = ("Approved", "Denied")
_FINAL = (*_DECISIONS, "Failed")
_CONDITIONS = "status.conditions"
_MAX_DOMAIN, _MAX_SIGNER = 253, 571
_MAX_BUNDLE = 1024 * 1024


def signer_name(errs: Errors, field: str, name: Any) -> None:
    """<domain of at least two labels>/<path of subdomains>."""
    if not name:
        errs.append(required(field))
        return
    segments = str(name).split("/")
    if len(segments) != 2:
        text = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        errs.append(invalid_value(field, name, text))
        return
    domain, path = segments
    if len(domain) > _MAX_DOMAIN:
        errs.append(too_long(field, _MAX_DOMAIN))
    for segment, check in ((domain, names.dns1123_label), (path, names.dns1123_subdomain)):
        wrong = next((label for label in segment.split(".") if check(label)), None)
        if wrong is not None:
            errs.extend(invalid_value(field, segment, f'validating label "{wrong}": {message}') for message in check(wrong))
        if segment is domain and "." not in domain:
            errs.append(invalid_value(field, domain, "should be a domain with at least two segments separated by dots"))
    if len(name) > _MAX_SIGNER:
        errs.append(too_long(field, _MAX_SIGNER))


def _decoded(value: Any) -> bytes:
    try:
        return b64decode(str(value or ""))
    except (binascii.Error, ValueError):
        return b""


def _request(errs: Errors, value: Any) -> None:
    found = next(pem.blocks(_decoded(value)), None)
    if found is None or found[0] != "CERTIFICATE REQUEST":
        errs.append(invalid_value("spec.request", value or "", "PEM block type must be CERTIFICATE REQUEST"))
        return
    wrong = pem.certificate_request(found[2])[1]
    if wrong:
        errs.append(invalid_value("spec.request", value, wrong))


def signing_request(errs: Errors, obj: Object) -> None:
    _request(errs, (obj.get("spec") or {}).get("request"))
    _spec(errs, obj, {})
    _conditions(errs, obj, {})


def _spec(errs: Errors, obj: Object, old: Object) -> None:
    """All but the request. Usages that stood there before pass."""
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    usages = spec.get("usages") or []
    if not usages:
        errs.append(required("spec.usages"))
    if not set(before.get("usages") or ()) - _USAGES:
        for index, usage in enumerate(usages):
            if usage not in _USAGES:
                errs.append(not_supported(f"spec.usages[{index}]", usage, _USAGES))
    for index, usage in enumerate(usages):
        if usage in usages[:index]:
            errs.append(duplicate(f"spec.usages[{index}]", usage))
    signer = spec.get("signerName")
    if signer == _LEGACY_SIGNER and before.get("signerName") != signer:
        errs.append(invalid_value("spec.signerName", signer, "the legacy signerName is not allowed via this API version"))
    elif signer != _LEGACY_SIGNER:
        signer_name(errs, "spec.signerName", signer)
    seconds = spec.get("expirationSeconds")
    if isinstance(seconds, int) and seconds < 600:
        text = "may not specify a duration less than 600 seconds (10 minutes)"
        errs.append(invalid_value("spec.expirationSeconds", seconds, text))


def _found(obj: Object) -> list[Object]:
    return list((obj.get("status") or {}).get("conditions") or ())


def _conditions(errs: Errors, obj: Object, old: Object) -> None:
    kinds_before = [c.get("type") for c in _found(old)]
    both_before = all(kind in kinds_before for kind in _DECISIONS)
    twice_before = len(set(kinds_before)) < len(kinds_before)
    seen: list[Any] = []
    for index, condition in enumerate(_found(obj)):
        at, kind = f"{_CONDITIONS}[{index}]", condition.get("type") or ""
        if not kind and "" not in kinds_before and None not in kinds_before:
            errs.append(required(f"{at}.type"))
        allowed = ("True",) if kind in _FINAL else ("False", "True", "Unknown")
        if not condition.get("status"):
            errs.append(required(f"{at}.status"))
        elif condition["status"] not in allowed:
            errs.append(not_supported(f"{at}.status", condition["status"], allowed))
        if kind in _DECISIONS and not both_before and _DECISIONS[1 - _DECISIONS.index(kind)] in seen:
            errs.append(invalid_value(_CONDITIONS, kind, "Approved and Denied conditions are mutually exclusive"))
        if kind in seen and not twice_before:
            errs.append(duplicate(f"{at}.type", kind))
        seen.append(kind)


def _issued(errs: Errors, obj: Object, old: Object, *, may_set: bool) -> None:
    """status.certificate: set once, by the status subresource, from CERTIFICATE blocks alone."""
    new, before = ((o.get("status") or {}).get("certificate") or "" for o in (obj, old))
    if new == before:
        return
    wrong = _not_certificates(_decoded(new)) if new else ""
    if wrong:
        errs.append(invalid_value("status.certificate", "<certificate data>", wrong))
    if not may_set:
        errs.append(forbidden_field("status.certificate", "updates may not set certificate content"))
    elif before:
        errs.append(forbidden_field("status.certificate", "updates may not modify existing certificate content"))


def _not_certificates(data: bytes) -> str:
    found = list(pem.blocks(data))
    for kind, headers, content in found:
        if kind != "CERTIFICATE":
            return f'only CERTIFICATE PEM blocks are allowed, found "{kind}"'
        if headers:
            return "no PEM block headers are permitted"
        if pem.certificate(content) is None:
            return "x509: malformed certificate"
    return "" if found else "must contain at least one CERTIFICATE PEM block"


def _update(errs: Errors, obj: Object, old: Object, *, approves: bool = False, issues: bool = False) -> None:
    _spec(errs, obj, old)
    _conditions(errs, obj, old)
    for kind in _FINAL:
        new, before = ([c for c in _found(o) if c.get("type") == kind] for o in (obj, old))
        if len(new) < len(before):
            errs.append(forbidden_field(_CONDITIONS, f'updates may not remove a condition of type "{kind}"'))
        elif kind in _DECISIONS and not approves:
            if len(new) > len(before):
                errs.append(forbidden_field(_CONDITIONS, f'updates may not add a condition of type "{kind}"'))
            elif not same(new, before):
                errs.append(forbidden_field(_CONDITIONS, f'updates may not modify a condition of type "{kind}"'))
    _issued(errs, obj, old, may_set=issues)


def signing_request_update(errs: Errors, obj: Object, old: Object) -> None:
    """The spec is fixed by the strategy; what stands was valid when it came."""
    _update(errs, obj, old)


def signing_request_approval(errs: Errors, obj: Object, old: Object) -> None:
    _update(errs, obj, old, approves=True)


def signing_request_status(errs: Errors, obj: Object, old: Object) -> None:
    _update(errs, obj, old, issues=True)


def _bundle_name(errs: Errors, name: str, signer: str) -> None:
    """A signer's bundles are named after it: example.com/foo -> example.com:foo:anything."""
    if not signer:
        if ":" in name:
            text = 'ClusterTrustBundle without signer name must not have ":" in its name'
            errs.append(invalid_value("metadata.name", name, text))
        else:
            errs.extend(invalid_value("metadata.name", name, message) for message in names.dns1123_subdomain(name))
        return
    prefix = signer.replace("/", ":") + ":"
    if not name.startswith(prefix):
        text = f"ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"
        errs.append(invalid_value("metadata.name", name, text))
        return
    rest = name.removeprefix(prefix)
    errs.extend(invalid_value("metadata.name", name, message) for message in names.dns1123_subdomain(rest))


def _anchors(errs: Errors, text: str) -> None:
    at = "spec.trustBundle"
    if len(text) > _MAX_BUNDLE:
        errs.append(too_long(at, _MAX_BUNDLE))
        return
    before, seen = len(errs), dict[bytes, list[int]]()
    for index, (kind, headers, content) in enumerate(pem.blocks(text.encode())):
        wrong = _not_anchor(kind, headers, content)
        if wrong:
            errs.append(omitted(at, f"entry {index} {wrong}"))
        else:
            seen.setdefault(content, []).append(index)
    if len(errs) > before:
        return
    if not seen:
        errs.append(omitted(at, "at least one trust anchor must be provided"))
    for indices in seen.values():
        if len(indices) > 1:
            errs.append(omitted(at, f"duplicate trust anchor (indices [{' '.join(map(str, indices))}])"))


def _not_anchor(kind: str, headers: bool, content: bytes) -> str:
    if kind != "CERTIFICATE":
        return f"has bad block type: {kind}"
    if headers:
        return "has PEM block headers"
    found = pem.certificate(content)
    if found is None:
        return "does not parse as X.509"
    return "" if pem.is_authority(found) else "does not have the CA bit set"


def trust_bundle(errs: Errors, obj: Object, *, parse: bool = True) -> None:
    spec = obj.get("spec") or {}
    signer = spec.get("signerName") or ""
    _bundle_name(errs, (obj.get("metadata") or {}).get("name") or "", signer)
    if signer:
        signer_name(errs, "spec.signerName", signer)
    if parse:
        _anchors(errs, spec.get("trustBundle") or "")


def trust_bundle_update(errs: Errors, obj: Object, old: Object) -> None:
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    trust_bundle(errs, obj, parse=spec.get("trustBundle") != before.get("trustBundle"))
    immutable(errs, "spec.signerName", spec.get("signerName") or "", before.get("signerName") or "")
