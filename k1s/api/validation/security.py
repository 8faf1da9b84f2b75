"""Security contexts of pods and containers.

Called by: pod.py, containers.py. Never does: Pod Security Standards (admission does).
Source: upstream validatePodSpecSecurityContext, ValidateSecurityContext, validateHostUsers.
"""

from __future__ import annotations

import re
from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, not_supported, required, too_long
from k1s.api.meta import Object
from k1s.api.validation.mounts import local_path
from k1s.api.validation.rules import Errors, one_of
from k1s.api.validation.windows import options, visit

_SYSCTL = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL_NAME = re.compile(rf"({_SYSCTL}[\./])*{_SYSCTL}\Z")
_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_MAX_PROFILE = 4095
_IPC = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")


def _id(errs: Errors, field: str, value: Any) -> None:
    if isinstance(value, int):
        errs.extend(invalid_value(field, value, message) for message in names.group_id(value))


def seccomp(errs: Errors, field: str, profile: Object | None) -> None:
    """SeccompProfile."""
    if profile is None:
        return
    kind, local = profile.get("type"), profile.get("localhostProfile")
    if not kind:
        errs.append(required(f"{field}.type", "type is required when seccompProfile is set"))
    elif kind not in _PROFILES:
        errs.append(not_supported(f"{field}.type", kind, _PROFILES))
    if kind != "Localhost":
        if local is not None:
            text = "can only be set when seccomp type is Localhost"
            errs.append(invalid_value(f"{field}.localhostProfile", profile, text))
    elif local is None:
        errs.append(required(f"{field}.localhostProfile", "must be set when seccomp type is Localhost"))
    else:
        local_path(errs, f"{field}.localhostProfile", local)


def app_armor(errs: Errors, field: str, profile: Object | None) -> None:
    """AppArmorProfile."""
    if profile is None:
        return
    kind, local, at = profile.get("type"), profile.get("localhostProfile"), f"{field}.localhostProfile"
    if kind == "Localhost":
        if not local:
            errs.append(required(at, "must be set when AppArmor type is Localhost"))
        elif local != local.strip():
            errs.append(invalid_value(at, local, "must not be padded with whitespace"))
        if len(local or "") > _MAX_PROFILE:
            errs.append(too_long(at, _MAX_PROFILE))
    elif not kind:
        errs.append(required(f"{field}.type", "type is required when appArmorProfile is set"))
    elif kind not in _PROFILES:
        errs.append(not_supported(f"{field}.type", kind, _PROFILES))
    elif local is not None:
        errs.append(invalid_value(at, local, "can only be set when AppArmor type is Localhost"))


def _sysctls(errs: Errors, field: str, sysctls: Any, spec: Object) -> None:
    seen: set[str] = set()
    for index, sysctl in enumerate(sysctls or ()):
        at, name = f"{field}[{index}].name", sysctl.get("name") or ""
        if not name:
            errs.append(required(at))
        elif len(name) > 253 or not _SYSCTL_NAME.match(name):
            text = f"must have at most 253 characters and match regex ^({_SYSCTL}[\\./])*{_SYSCTL}$"
            errs.append(invalid_value(at, name, text))
        elif name in seen:
            errs.append(duplicate(at, name))
        dotted = name.replace("/", ".")
        if spec.get("hostNetwork") and dotted.startswith("net."):
            errs.append(invalid_value(at, name, "may not be specified when 'hostNetwork' is true"))
        elif spec.get("hostIPC") and dotted.startswith(_IPC):
            errs.append(invalid_value(at, name, "may not be specified when 'hostIPC' is true"))
        seen.add(name)


def pod_context(errs: Errors, field: str, context: Object | None, spec: Object) -> None:
    """PodSecurityContext."""
    context = context or {}
    for key in ("fsGroup", "runAsUser", "runAsGroup"):
        _id(errs, f"{field}.{key}", context.get(key))
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        _id(errs, f"{field}.supplementalGroups[{index}]", group)
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        text = "ShareProcessNamespace and HostPID cannot both be enabled"
        errs.append(invalid_value(f"{field}.shareProcessNamespace", True, text))
    _sysctls(errs, f"{field}.sysctls", context.get("sysctls"), spec)
    one_of(errs, f"{field}.fsGroupChangePolicy", context.get("fsGroupChangePolicy"), ("Always", "OnRootMismatch"))
    seccomp(errs, f"{field}.seccompProfile", context.get("seccompProfile"))
    options(errs, f"{field}.windowsOptions", context.get("windowsOptions"))
    app_armor(errs, f"{field}.appArmorProfile", context.get("appArmorProfile"))
    one_of(errs, f"{field}.supplementalGroupsPolicy", context.get("supplementalGroupsPolicy"), ("Merge", "Strict"))
    one_of(errs, f"{field}.seLinuxChangePolicy", context.get("seLinuxChangePolicy"), ("MountOption", "Recursive"))


def host_users(errs: Errors, field: str, spec: Object) -> None:
    """A pod in a user namespace of its own shares no other of the host's."""
    if spec.get("hostUsers") is not False:
        return
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            errs.append(forbidden_field(f"{field}.{key}", "when `hostUsers` is false"))
    for at, container in visit(field, spec):
        if container.get("volumeDevices"):
            errs.append(forbidden_field(f"{at}.volumeDevices", "when `hostUsers` is false"))


def container_context(errs: Errors, field: str, context: Object | None, *, host_users: bool = True) -> None:
    """SecurityContext of a container."""
    if not context:
        return
    for key in ("runAsUser", "runAsGroup"):
        _id(errs, f"{field}.{key}", context.get(key))
    mount = context.get("procMount")
    one_of(errs, f"{field}.procMount", mount, ("Default", "Unmasked"))
    if mount == "Unmasked" and host_users:
        errs.append(invalid_value(f"{field}.procMount", mount, "`hostUsers` must be false to use `Unmasked`"))
    seccomp(errs, f"{field}.seccompProfile", context.get("seccompProfile"))
    if context.get("allowPrivilegeEscalation") is False:
        prefix = "cannot set `allowPrivilegeEscalation` to false and "
        if context.get("privileged"):
            errs.append(invalid_value(field, context, f"{prefix}`privileged` to true"))
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            errs.append(invalid_value(field, context, f"{prefix}`capabilities.Add` CAP_SYS_ADMIN"))
    options(errs, f"{field}.windowsOptions", context.get("windowsOptions"))
    app_armor(errs, f"{field}.appArmorProfile", context.get("appArmorProfile"))
