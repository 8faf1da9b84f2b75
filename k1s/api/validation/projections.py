"""Projected volumes: several sources in one directory, no two of them in one file.

Called by: volumes.py. Never does: write files (the agent does).
Source: upstream validateProjectionSources; KEP-3257 (trust bundles), KEP-4317 (pod certificates).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k1s.api import names
from k1s.api.errors import forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.mounts import file_path
from k1s.api.validation.rules import Errors
from k1s.api.validation.selectors import label_selector

Items = Callable[[Errors, str, Any], None]

_KINDS = ("secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate")
_KEY_TYPES = ("ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096")
_BUNDLE_PATHS = ("credentialBundlePath", "keyPath", "certificateChainPath")
_LEAST, _MOST, _MOST_BUILTIN = 3600, 7862400, 86400


class _Paths:
    """The files of one volume."""

    def __init__(self, errs: Errors, field: str) -> None:
        self._errs, self._field, self._seen = errs, field, set[str]()

    def take(self, path: str, shown: str) -> None:
        if path in self._seen:
            self._errs.append(invalid_value(self._field, shown, "conflicting duplicate paths"))
        self._seen.add(path)


def projected(errs: Errors, field: str, source: Object, items: Items, downward_items: Items) -> None:
    """ProjectedVolumeSource, but its mode."""
    paths = _Paths(errs, field)
    for index, part in enumerate(source.get("sources") or ()):
        at = f"{field}.sources[{index}]"
        given = [key for key in _KINDS if part.get(key) is not None]
        for kind in given:
            here, value = f"{at}.{kind}", part[kind]
            if kind in ("secret", "configMap"):
                _keyed(errs, here, value, items, paths)
            elif kind == "downwardAPI":
                downward_items(errs, here, value.get("items"))
                for item in value.get("items") or ():
                    if item.get("path"):
                        paths.take(item["path"], item["path"])
            elif kind == "serviceAccountToken":
                _token(errs, field, here, value)
            elif kind == "clusterTrustBundle":
                _trust_bundle(errs, here, value)
                paths.take(value.get("path") or "", value.get("path") or "")
            else:
                _pod_certificate(errs, here, value, paths)
        if len(given) > 1:
            errs.append(forbidden_field(at, "may not specify more than 1 volume type per source"))


def _keyed(errs: Errors, at: str, source: Object, items: Items, paths: _Paths) -> None:
    if not source.get("name"):
        errs.append(required(f"{at}.name"))
    items(errs, f"{at}.items", source.get("items"))
    for item in source.get("items") or ():
        if item.get("path"):
            paths.take(item["path"], source.get("name") or "")


def _token(errs: Errors, field: str, at: str, token: Object) -> None:
    seconds = token.get("expirationSeconds")
    if isinstance(seconds, int):
        if seconds < 600:
            errs.append(invalid_value(f"{at}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"))
        if seconds > 1 << 32:
            text = "may not specify a duration larger than 2^32 seconds"
            errs.append(invalid_value(f"{at}.expirationSeconds", seconds, text))
    # The path stands without its source, as upstream has it.
    if not token.get("path"):
        errs.append(required(f"{field}.path"))
    else:
        file_path(errs, f"{field}.path", token["path"])


def _trust_bundle(errs: Errors, at: str, source: Object) -> None:
    name, signer = source.get("name"), source.get("signerName")
    if name is not None and signer is not None:
        errs.append(invalid_value(at, source, "only one of name and signerName may be used"))
    elif name is not None:
        if not name:
            errs.append(required(f"{at}.name", "must be a valid object name"))
        texts = (f"not a valid clustertrustbundlename: {m}" for m in _bundle_name(name))
        errs.extend(invalid_value(f"{at}.name", name, text) for text in texts)
        if source.get("labelSelector") is not None:
            text = "labelSelector must be unset if name is specified"
            errs.append(invalid_value(f"{at}.labelSelector", source["labelSelector"], text))
    elif signer is not None:
        if not signer:
            errs.append(required(f"{at}.signerName", "must be a valid signer name"))
        signer_name(errs, f"{at}.signerName", signer)
        label_selector(errs, f"{at}.labelSelector", source.get("labelSelector"))
    else:
        errs.append(required(at, "either name or signerName must be specified"))
    if not source.get("path"):
        errs.append(required(f"{at}.path"))
    file_path(errs, f"{at}.path", source.get("path") or "")


def _bundle_name(name: str) -> list[str]:
    """signer.example.com:foo:name for the signer's own, or a name without colons."""
    prefix, colon, rest = name.rpartition(":")
    return names.dns1123_subdomain(rest if colon and prefix else name)


def signer_name(errs: Errors, field: str, value: str) -> None:
    """example.com/path, at most 571 characters."""
    if not value:
        errs.append(required(field))
        return
    segments = value.split("/")
    if len(segments) != 2:
        text = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        errs.append(invalid_value(field, value, text))
        return
    domain, path = segments
    for label in domain.split("."):
        texts = (f'validating label "{label}": {message}' for message in names.dns1123_label(label))
        errs.extend(invalid_value(field, domain, text) for text in texts)
    if len(domain.split(".")) < 2:
        errs.append(invalid_value(field, domain, "should be a domain with at least two segments separated by dots"))
    texts = (f'validating label "{path}": {message}' for message in names.dns1123_subdomain(path))
    errs.extend(invalid_value(field, path, text) for text in texts)


def _pod_certificate(errs: Errors, at: str, source: Object, paths: _Paths) -> None:
    signer = source.get("signerName") or ""
    signer_name(errs, f"{at}.signerName", signer)
    if source.get("keyType") not in _KEY_TYPES:
        errs.append(not_supported(f"{at}.keyType", source.get("keyType") or "", _KEY_TYPES))
    seconds = source.get("maxExpirationSeconds")
    if isinstance(seconds, int):
        here = f"{at}.maxExpirationSeconds"
        most = _MOST_BUILTIN if signer.startswith("kubernetes.io/") else _MOST
        if seconds < _LEAST:
            errs.append(invalid_value(here, seconds, f"if provided, maxExpirationSeconds must be >= {_LEAST}"))
        elif seconds > most:
            errs.append(invalid_value(here, seconds, f"if provided, maxExpirationSeconds must be <= {most}"))
    given = [key for key in _BUNDLE_PATHS if source.get(key)]
    for key in given:
        file_path(errs, f"{at}.{key}", source[key])
        paths.take(source[key], source[key])
    if not given:
        text = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"
        errs.append(required(at, text))
