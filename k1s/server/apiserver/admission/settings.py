"""What kube-apiserver's flags say about admission: which plugins are off, and PodSecurity's defaults and exemptions.

Owns: AdmissionSettings, read. Called by: server/security, chain, pod_security. Never does: admit, read the file again later.
Source: apiserver.config.k8s.io/v1 AdmissionConfiguration, pod-security.admission.config.k8s.io/v1 PodSecurityConfiguration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k1s.api.errors import ApiError
from k1s.server.apiserver.config_file import ConfigFileError

Object = Mapping[str, Any]

LEVELS = ("privileged", "baseline", "restricted")
VERSION = re.compile(r"latest|v1\.(0|[1-9][0-9]{0,5})")
MODES = ("enforce", "audit", "warn")
# In upstream's order; all are on unless switched off.
PLUGINS = (
    *("NamespaceLifecycle", "LimitRanger", "ServiceAccount", "NodeRestriction", "TaintNodesByCondition", "PodSecurity"),
    *("Priority", "DefaultTolerationSeconds", "DefaultStorageClass", "StorageObjectInUseProtection"),
    *("PersistentVolumeClaimResize", "RuntimeClass", "CertificateApproval", "CertificateSigning"),
    *("CertificateSubjectRestriction", "DefaultIngressClass", "MutatingAdmissionPolicy", "MutatingAdmissionWebhook"),
    *("ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook", "ResourceQuota"),
)
_FILE = ("apiserver.config.k8s.io/v1", "AdmissionConfiguration")
_POD_SECURITY = ("pod-security.admission.config.k8s.io/v1", "PodSecurityConfiguration")


@dataclass(frozen=True, slots=True)
class PodSecuritySettings:
    """`defaults`: mode -> (level, version), for namespaces without labels."""

    defaults: Mapping[str, tuple[str, str]] = field(default_factory=lambda: {mode: ("privileged", "latest") for mode in MODES})
    usernames: frozenset[str] = frozenset()
    runtime_classes: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    disabled: frozenset[str] = frozenset()
    pod_security: PodSecuritySettings = field(default_factory=PodSecuritySettings)


def read(enabled: Iterable[str], disabled: Iterable[str], file: str) -> AdmissionSettings:
    """From the values of --enable-admission-plugins, --disable- and --admission-control-config-file. Raises ConfigFileError."""
    off = frozenset(disabled)
    for flag, names in (("enable-admission-plugins", frozenset(enabled)), ("disable-admission-plugins", off)):
        unknown = sorted(names.difference(PLUGINS))
        if unknown:
            raise ConfigFileError(f'{flag}: unknown admission plugin "{unknown[0]}", k1s has {", ".join(PLUGINS)}')
    both = sorted(off.intersection(enabled))
    if both:
        raise ConfigFileError(f"{both[0]} in enable-admission-plugins and disable-admission-plugins overlapped")
    return AdmissionSettings(off, _pod_security(file) if file else PodSecuritySettings())


def _pod_security(file: str) -> PodSecuritySettings:
    found = PodSecuritySettings()
    for plugin in _document(file, file, _FILE).get("plugins") or ():
        name = plugin.get("name")
        if name != "PodSecurity":
            raise ConfigFileError(f'{file}: k1s does not configure the plugin "{name}"')
        if plugin.get("configuration") is not None:
            found = _settings(file, _checked(file, plugin["configuration"], _POD_SECURITY))
        elif plugin.get("path"):
            path = str(Path(file).parent / str(plugin["path"]))
            found = _settings(path, _document(path, path, _POD_SECURITY))
    return found


def _document(file: str, where: str, kind: tuple[str, str]) -> Object:
    from k1s.api.decode import decode_yaml  # only who configures it needs it at start

    try:
        obj, _ = decode_yaml(Path(file).read_bytes())
    except OSError as error:
        raise ConfigFileError(f"{where}: {error.strerror}") from error
    except ApiError as error:
        raise ConfigFileError(f"{where}: {error.message}") from error
    return _checked(where, obj, kind)


def _checked(where: str, obj: Any, kind: tuple[str, str]) -> Object:
    if not isinstance(obj, dict) or (obj.get("apiVersion"), obj.get("kind")) != kind:
        raise ConfigFileError(f"{where}: not {kind[1]} of {kind[0]}")
    return obj


def _settings(where: str, obj: Object) -> PodSecuritySettings:
    defaults, exemptions = obj.get("defaults") or {}, obj.get("exemptions") or {}
    levels: dict[str, tuple[str, str]] = {}
    for mode in MODES:
        level, version = str(defaults.get(mode) or "privileged"), str(defaults.get(f"{mode}-version") or "latest")
        if level not in LEVELS:
            raise ConfigFileError(f'{where}: defaults.{mode}: "{level}" must be one of {", ".join(LEVELS)}')
        if not VERSION.fullmatch(version):
            raise ConfigFileError(f'{where}: defaults.{mode}-version: "{version}" must be "latest" or "v1.x"')
        levels[mode] = (level, version)
    names = {key: frozenset(map(str, exemptions.get(key) or ())) for key in ("usernames", "runtimeClasses", "namespaces")}
    return PodSecuritySettings(levels, names["usernames"], names["runtimeClasses"], names["namespaces"])
