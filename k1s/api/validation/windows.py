"""What only Windows pods may say, and what they may not.

options: windowsOptions of a security context | host_process: HostProcess pods | os_rules: fields that belong to the other system.
Called by: pod.py, security.py. Never does: run on Windows; objects for such nodes are kept and checked like all others.
Source: upstream validateWindowsSecurityContextOptions, validateWindowsHostProcessPod, validateLinux, validateWindows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from k1s.api import names
from k1s.api.errors import forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, strings

_MAX_SPEC = 64 * 1024
_MAX_DOMAIN, _MAX_USER = 256, 104
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NETBIOS = re.compile(r'[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}\Z')
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_BAD_USER = re.compile(r'["/\\:;|=,+*?<>@\[\]]')
_DOTS_ONLY = re.compile(r"[. ]+\Z")
_NOT_WINDOWS = "cannot be set for a windows pod"
_NOT_LINUX = "windows options cannot be set for a linux pod"
_POD_FIELDS = ("hostUsers", "hostPID", "hostIPC", "shareProcessNamespace")
_POD_CONTEXT = (
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
)
_CONTAINER_CONTEXT = (
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
)


def options(errs: Errors, field: str, value: Object | None) -> None:
    """WindowsSecurityContextOptions."""
    if not value:
        return
    if value.get("gmsaCredentialSpecName") is not None:
        strings(errs, f"{field}.gmsaCredentialSpecName", value["gmsaCredentialSpecName"], names.dns1123_subdomain)
    spec = value.get("gmsaCredentialSpec")
    if spec is not None:
        if not spec:
            errs.append(invalid_value(f"{field}.gmsaCredentialSpec", spec, "gmsaCredentialSpec cannot be an empty string"))
        elif len(spec) > _MAX_SPEC:
            errs.append(invalid_value(f"{field}.gmsaCredentialSpec", spec, "gmsaCredentialSpec size must be under 64 KiB"))
    user = value.get("runAsUserName")
    if user is not None:
        errs.extend(invalid_value(f"{field}.runAsUserName", user, text) for text in _user_name(user))


def _user_name(value: str) -> list[str]:
    if not value:
        return ["runAsUserName cannot be an empty string"]
    if _CONTROL.search(value):
        return ["runAsUserName cannot contain control characters"]
    parts = value.split("\\")
    if len(parts) > 2:
        return ["runAsUserName cannot contain more than one backslash"]
    user, out = parts[-1], []
    domain = parts[0] if len(parts) == 2 else None
    if domain is not None and len(domain) >= _MAX_DOMAIN:
        out.append(f"runAsUserName's Domain length must be under {_MAX_DOMAIN} characters")
    if domain is not None and not (_NETBIOS.match(domain) or _DOMAIN.match(domain)):
        out.append("runAsUserName's Domain doesn't match the NetBios nor the DNS format")
    if not user:
        out.append("runAsUserName's User cannot be empty")
    elif len(user) > _MAX_USER:
        out.append(f"runAsUserName's User length must not be longer than {_MAX_USER} characters")
    if _DOTS_ONLY.match(user):
        out.append("runAsUserName's User cannot contain only periods or spaces")
    if _BAD_USER.search(user):
        out.append("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]")
    return out


def visit(at: str, spec: Object) -> Iterator[tuple[str, Object]]:
    """Every container of a pod spec with its path, in upstream's order."""
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(key) or ()):
            yield f"{at}.{key}[{index}]", container


def _says_host_process(context: Object | None) -> bool | None:
    return ((context or {}).get("windowsOptions") or {}).get("hostProcess")


def host_process(errs: Errors, at: str, spec: Object) -> None:
    """All containers or none, and then on the host's network."""
    pod = _says_host_process(spec.get("securityContext"))
    total = hosted = 0
    for here, container in visit(at, spec):
        total += 1
        own = _says_host_process(container.get("securityContext"))
        if pod is not None and own is not None and pod != own:
            text = f"pod hostProcess value must be identical if both are specified, was {str(pod).lower()}"
            errs.append(invalid_value(f"{here}.securityContext.windowsOptions.hostProcess", own, text))
        hosted += bool(own or (own is None and pod))
    if not hosted:
        return
    if hosted != total:
        text = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
        errs.append(invalid_value(at, "", text))
    if not spec.get("hostNetwork"):
        text = "hostNetwork must be true if pod contains any hostProcess containers"
        errs.append(invalid_value(f"{at}.hostNetwork", False, text))


def os_rules(errs: Errors, at: str, spec: Object) -> None:
    """spec.os, and that nothing is said that the other system would have to understand."""
    os = spec.get("os")
    if os is None:
        return
    name = os.get("name")
    if not name:
        errs.append(required(f"{at}.os.name", "cannot be empty"))
    elif name not in ("linux", "windows"):
        errs.append(not_supported(f"{at}.os", name, ("linux", "windows")))
    elif name == "linux":
        _linux(errs, at, spec)
    else:
        _windows(errs, at, spec)


def _linux(errs: Errors, at: str, spec: Object) -> None:
    for here, holder in ((at, spec), *visit(at, spec)):
        if (holder.get("securityContext") or {}).get("windowsOptions") is not None:
            errs.append(forbidden_field(f"{here}.securityContext.windowsOptions", _NOT_LINUX))


def _windows(errs: Errors, at: str, spec: Object) -> None:
    # Where Go keeps a plain bool, false is the same as absent.
    said = {key: spec.get(key) for key in _POD_FIELDS}
    for key in ("hostPID", "hostIPC"):
        said[key] = said[key] or None
    errs.extend(forbidden_field(f"{at}.{key}", _NOT_WINDOWS) for key, value in said.items() if value is not None)
    context = spec.get("securityContext") or {}
    for key in _POD_CONTEXT:
        if context.get(key) is not None and (key != "sysctls" or context[key]):
            errs.append(forbidden_field(f"{at}.securityContext.{key}", _NOT_WINDOWS))
    for here, container in visit(at, spec):
        own = container.get("securityContext") or {}
        fields = [key for key in _CONTAINER_CONTEXT if own.get(key) is not None]
        errs.extend(forbidden_field(f"{here}.securityContext.{key}", _NOT_WINDOWS) for key in fields)
