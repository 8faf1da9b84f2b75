"""Security contexts of pods and containers.

Called by: pod.py, containers.py. Never does: Pod Security Standards (admission does).
"""

from __future__ import annotations

import re
from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, one_of

_SYSCTL = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL_NAME = re.compile(rf"({_SYSCTL}[\./])*{_SYSCTL}\Z")
_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")


def _id(errs: Errors, field: str, value: Any) -> None:
    if isinstance(value, int):
        errs.extend(invalid_value(field, value, message) for message in names.group_id(value))


def _profile(errs: Errors, field: str, profile: Object | None, what: str) -> None:
    """A seccomp or AppArmor profile."""
    if profile is None:
        return
    kind, local = profile.get("type"), profile.get("localhostProfile")
    one_of(errs, f"{field}.type", kind, _PROFILES, needed=True)
    if kind == "Localhost":
        if not local:
            errs.append(required(f"{field}.localhostProfile", f"must be set when {what} type is Localhost"))
        elif what == "seccomp" and (local.startswith("/") or ".." in local.split("/")):
            text = "must be a relative path" if local.startswith("/") else "must not contain '..'"
            errs.append(invalid_value(f"{field}.localhostProfile", local, text))
    elif local is not None:
        errs.append(invalid_value(f"{field}.localhostProfile", local, f"can only be set when {what} type is Localhost"))


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
        elif spec.get("hostNetwork") and name.replace("/", ".").startswith("net."):
            errs.append(invalid_value(at, name, "may not be specified when 'hostNetwork' is true"))
        elif spec.get("hostIPC") and name.replace("/", ".").startswith(("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")):
            errs.append(invalid_value(at, name, "may not be specified when 'hostIPC' is true"))
        seen.add(name)


def pod_context(errs: Errors, field: str, context: Object | None, spec: Object) -> None:
    """PodSecurityContext."""
    if not context:
        return
    for key in ("fsGroup", "runAsUser", "runAsGroup"):
        _id(errs, f"{field}.{key}", context.get(key))
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        _id(errs, f"{field}.supplementalGroups[{index}]", group)
    _sysctls(errs, f"{field}.sysctls", context.get("sysctls"), spec)
    one_of(errs, f"{field}.fsGroupChangePolicy", context.get("fsGroupChangePolicy"), ("Always", "OnRootMismatch"))
    one_of(errs, f"{field}.supplementalGroupsPolicy", context.get("supplementalGroupsPolicy"), ("Merge", "Strict"))
    one_of(errs, f"{field}.seLinuxChangePolicy", context.get("seLinuxChangePolicy"), ("MountOption", "Recursive"))
    _profile(errs, f"{field}.seccompProfile", context.get("seccompProfile"), "seccomp")
    _profile(errs, f"{field}.appArmorProfile", context.get("appArmorProfile"), "AppArmor")


def host_users(errs: Errors, field: str, spec: Object) -> None:
    """A pod in a user namespace of its own shares no other of the host's, except, by its gate, the network."""
    if spec.get("hostUsers") is not False:
        return
    for key in ("hostPID", "hostIPC", "hostNetwork"):
        if spec.get(key):
            errs.append(forbidden_field(f"{field}.{key}", "when `hostUsers` is false"))
    for index, container in enumerate(spec.get("containers") or ()):
        if container.get("volumeDevices"):
            errs.append(forbidden_field(f"{field}.containers[{index}].volumeDevices", "when `hostUsers` is false"))


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
    _profile(errs, f"{field}.seccompProfile", context.get("seccompProfile"), "seccomp")
    _profile(errs, f"{field}.appArmorProfile", context.get("appArmorProfile"), "AppArmor")
    if context.get("allowPrivilegeEscalation") is False:
        prefix = "cannot set `allowPrivilegeEscalation` to false and "
        if context.get("privileged"):
            errs.append(invalid_value(field, context, f"{prefix}`privileged` to true"))
        added = (context.get("capabilities") or {}).get("add") or ()
        if "CAP_SYS_ADMIN" in added:
            errs.append(invalid_value(field, context, f"{prefix}`capabilities.Add` CAP_SYS_ADMIN"))
