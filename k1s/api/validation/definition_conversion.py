"""spec.conversion of CustomResourceDefinitions.

Called by: definitions.py. Fields are named as in upstream's internal type: spec.conversion.webhookClientConfig.
"""

from __future__ import annotations

import base64
import binascii

from k1s.api import names
from k1s.api.errors import forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.extension import client_config
from k1s.api.validation.rules import Errors, one_of

_REVIEWS = ("v1", "v1beta1")
_AT = "spec.conversion"


def conversion(errs: Errors, given: Object | None, *, preserves: bool, established: bool) -> None:
    if not given:
        return
    strategy, webhook = given.get("strategy"), given.get("webhook") or {}
    if strategy != "None" and preserves:
        errs.append(invalid_value(f"{_AT}.strategy", strategy or "", "must be None if spec.preserveUnknownFields is true"))
    one_of(errs, f"{_AT}.strategy", strategy, ("None", "Webhook"), needed=True)
    config, versions = webhook.get("clientConfig"), webhook.get("conversionReviewVersions") or []
    if strategy != "Webhook":
        text = "should not be set when strategy is not set to Webhook"
        if config is not None:
            errs.append(forbidden_field(f"{_AT}.webhookClientConfig", text))
        if versions:
            errs.append(forbidden_field(f"{_AT}.conversionReviewVersions", text))
        return
    at = f"{_AT}.webhookClientConfig"
    if config is None:
        errs.append(required(at, "required when strategy is set to Webhook"))
    else:
        client_config(errs, at, config)
        if established and config.get("caBundle") and not readable_bundle(config["caBundle"]):
            text = f"unable to load root certificates: unable to parse bytes as PEM block: {config['caBundle']}"
            errs.append(invalid_value(f"{at}.caBundle", config["caBundle"], text))
    _review_versions(errs, f"{_AT}.conversionReviewVersions", versions)


def readable_bundle(text: str) -> bool:
    """Whether a caBundle holds at least something like a certificate."""
    try:
        return b"-----BEGIN CERTIFICATE-----" in base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False


def _review_versions(errs: Errors, at: str, versions: list[str]) -> None:
    if not versions:
        errs.append(required(at))
        return
    seen: set[str] = set()
    for index, version in enumerate(versions):
        if version in seen:
            errs.append(invalid_value(f"{at}[{index}]", version, "duplicate version"))
            continue
        seen.add(version)
        errs.extend(invalid_value(f"{at}[{index}]", version, said) for said in names.dns1035_label(version))
    if not seen & set(_REVIEWS):
        errs.append(invalid_value(at, versions, f"must include at least one of {', '.join(_REVIEWS)}"))
