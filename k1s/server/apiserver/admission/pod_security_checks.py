"""The checks of the Pod Security Standards: baseline and restricted.

Owns: one function per check, and the wording. Called by: admission/pod_security. Never does: know namespaces.
Source: upstream pod-security-admission/policy, version latest of v1.37.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Spec = dict[str, Any]

_BASELINE_CAPABILITIES = frozenset(
    {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
        *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    }
)
LATEST = 1 << 30
_MINOR = "\0minor"
# Name -> since which minor version it is allowed.
_SYSCTLS = {
    "kernel.shm_rmid_forced": 0,
    "net.ipv4.ip_local_port_range": 0,
    "net.ipv4.ip_unprivileged_port_start": 0,
    "net.ipv4.tcp_syncookies": 0,
    "net.ipv4.ping_group_range": 0,
    "net.ipv4.ip_local_reserved_ports": 27,
    "net.ipv4.tcp_keepalive_time": 29,
    "net.ipv4.tcp_fin_timeout": 29,
    "net.ipv4.tcp_keepalive_intvl": 29,
    "net.ipv4.tcp_keepalive_probes": 29,
    "net.ipv4.tcp_rmem": 32,
    "net.ipv4.tcp_wmem": 32,
}
_SELINUX_TYPES = {"": 0, "container_t": 0, "container_init_t": 0, "container_kvm_t": 0, "container_engine_t": 31}
_VOLUMES = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"}
)


def violations(pod: dict[str, Any], level: str, version: str = "latest") -> list[str]:
    """`reason (detail)` for every check of the level that the pod (or pod template) fails. `version`: latest or v1.<minor>."""
    if level == "privileged":
        return []
    minor = LATEST if version == "latest" else int(version.removeprefix("v1."))
    # Checks look up what changed with the versions under a key that no pod has.
    spec = {**(pod.get("spec") or {}), _MINOR: minor}
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    out = []
    for reason, check in _chosen(level, minor):
        details = list(check(spec, annotations))
        if details:
            out.append(f"{reason} ({'; '.join(details)})")
    return out


def _containers(spec: Spec) -> Iterator[tuple[str, Spec, Spec]]:
    """(name, container, its securityContext)"""
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(key) or ():
            yield str(container.get("name")), container, container.get("securityContext") or {}


def _named(what: str, names: Iterable[str]) -> str:
    """`container "a"`, `containers "a", "b"`."""
    listed = list(names)
    return f"{what}{'s' if len(listed) > 1 else ''} " + ", ".join(f'"{name}"' for name in listed)


def _offending(spec: Spec, bad: Callable[[Spec, Spec], bool]) -> list[str]:
    return [name for name, container, context in _containers(spec) if bad(container, context)]


def _windows(spec: Spec) -> bool:
    """Since v1.25 the checks that mean nothing to Windows leave its pods alone."""
    return spec[_MINOR] >= 25 and (spec.get("os") or {}).get("name") == "windows"


# Baseline


def _host_namespaces(spec: Spec, _: Spec) -> Iterator[str]:
    set_ones = [f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    if set_ones:
        yield ", ".join(set_ones)


def _privileged(spec: Spec, _: Spec) -> Iterator[str]:
    bad = _offending(spec, lambda _c, s: bool(s.get("privileged")))
    if bad:
        yield f"{_named('container', bad)} must not set securityContext.privileged=true"


def _capabilities(spec: Spec, _: Spec) -> Iterator[str]:
    bad, added = [], set()
    for name, _container, context in _containers(spec):
        extra = [c for c in (context.get("capabilities") or {}).get("add") or () if c not in _BASELINE_CAPABILITIES]
        if extra:
            bad.append(name)
            added.update(extra)
    if bad:
        listed = ", ".join(f'"{c}"' for c in sorted(added))
        yield f"{_named('container', bad)} must not include {listed} in securityContext.capabilities.add"


def _host_paths(spec: Spec, _: Spec) -> Iterator[str]:
    bad = [str(v.get("name")) for v in spec.get("volumes") or () if v.get("hostPath") is not None]
    if bad:
        yield _named("volume", bad)


def _host_ports(spec: Spec, _: Spec) -> Iterator[str]:
    used: dict[str, list[str]] = {}
    for name, container, _context in _containers(spec):
        ports = [str(p["hostPort"]) for p in container.get("ports") or () if p.get("hostPort")]
        if ports:
            used[name] = ports
    if used:
        ports = sorted({p for each in used.values() for p in each}, key=int)
        uses = "use" if len(used) > 1 else "uses"
        yield f"{_named('container', used)} {uses} hostPort{'s' if len(ports) > 1 else ''} {', '.join(ports)}"


def _host_probes(spec: Spec, _: Spec) -> Iterator[str]:
    for name, container, _context in _containers(spec):
        handlers = [(key, container.get(key)) for key in ("livenessProbe", "readinessProbe", "startupProbe")]
        handlers += [(f"lifecycle.{key}", value) for key, value in (container.get("lifecycle") or {}).items()]
        for key, handler in handlers:
            for action in ("httpGet", "tcpSocket"):
                host = ((handler or {}).get(action) or {}).get("host")
                if host:
                    yield f'container "{name}" must not set {key}.{action}.host="{host}"'


def _apparmor(spec: Spec, annotations: Spec) -> Iterator[str]:
    def bad(profile: Spec | None) -> bool:
        return (profile or {}).get("type") not in (None, "RuntimeDefault", "Localhost")

    if bad((spec.get("securityContext") or {}).get("appArmorProfile")):
        yield 'pod must not set AppArmor profile type to "Unconfined"'
    names = _offending(spec, lambda _c, s: bad(s.get("appArmorProfile")))
    if names:
        yield f'{_named("container", names)} must not set AppArmor profile type to "Unconfined"'
    prefix = "container.apparmor.security.beta.kubernetes.io/"
    for key, value in sorted(annotations.items()):
        if key.startswith(prefix) and not (value in ("", "runtime/default") or value.startswith("localhost/")):
            yield f'annotation "{key}"="{value}"'


def _selinux(spec: Spec, _: Spec) -> Iterator[str]:
    holders: list[tuple[str, Spec]] = [("pod", (spec.get("securityContext") or {}).get("seLinuxOptions") or {})]
    holders += [(f'container "{n}"', s.get("seLinuxOptions") or {}) for n, _c, s in _containers(spec)]
    for who, options in holders:
        faults = []
        if _SELINUX_TYPES.get(options.get("type") or "", LATEST + 1) > spec[_MINOR]:
            faults.append(f'type "{options["type"]}"')
        faults += [f"{key} may not be set" for key in ("user", "role") if options.get(key)]
        if faults:
            yield f"{who} set forbidden securityContext.seLinuxOptions: {'; '.join(faults)}"


def _proc_mount(spec: Spec, _: Spec) -> Iterator[str]:
    bad = _offending(spec, lambda _c, s: s.get("procMount") not in (None, "Default"))
    if bad:
        yield f'{_named("container", bad)} must not set securityContext.procMount to "Unmasked"'


def _seccomp_baseline(spec: Spec, _: Spec) -> Iterator[str]:
    def unconfined(context: Spec) -> bool:
        return (context.get("seccompProfile") or {}).get("type") == "Unconfined"

    text = 'must not set securityContext.seccompProfile.type to "Unconfined"'
    if unconfined(spec.get("securityContext") or {}):
        yield f"pod {text}"
    bad = _offending(spec, lambda _c, s: unconfined(s))
    if bad:
        yield f"{_named('container', bad)} {text}"


def _sysctls(spec: Spec, _: Spec) -> Iterator[str]:
    names = [str(s.get("name")) for s in (spec.get("securityContext") or {}).get("sysctls") or ()]
    bad = [name for name in names if _SYSCTLS.get(name.replace("/", "."), LATEST + 1) > spec[_MINOR]]
    if bad:
        yield ", ".join(bad)


def _host_process(spec: Spec, _: Spec) -> Iterator[str]:
    text = "must not set securityContext.windowsOptions.hostProcess=true"
    if ((spec.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess"):
        yield f"pod {text}"
    bad = _offending(spec, lambda _c, s: bool((s.get("windowsOptions") or {}).get("hostProcess")))
    if bad:
        yield f"{_named('container', bad)} {text}"


# Restricted


def _escalation(spec: Spec, _: Spec) -> Iterator[str]:
    if _windows(spec):
        return
    bad = _offending(spec, lambda _c, s: s.get("allowPrivilegeEscalation") is not False)
    if bad:
        yield f"{_named('container', bad)} must set securityContext.allowPrivilegeEscalation=false"


def _drop_all(spec: Spec, _: Spec) -> Iterator[str]:
    if _windows(spec):
        return
    bad = _offending(spec, lambda _c, s: "ALL" not in ((s.get("capabilities") or {}).get("drop") or ()))
    if bad:
        yield f'{_named("container", bad)} must set securityContext.capabilities.drop=["ALL"]'
    adding, added = [], set()
    for name, _container, context in _containers(spec):
        extra = [c for c in (context.get("capabilities") or {}).get("add") or () if c != "NET_BIND_SERVICE"]
        if extra:
            adding.append(name)
            added.update(extra)
    if adding:
        listed = ", ".join(f'"{c}"' for c in sorted(added))
        yield f"{_named('container', adding)} must not include {listed} in securityContext.capabilities.add"


def _volume_types(spec: Spec, _: Spec) -> Iterator[str]:
    bad: dict[str, str] = {}
    for volume in spec.get("volumes") or ():
        kind = next((key for key, value in volume.items() if key != "name" and value is not None), "unknown")
        if kind not in _VOLUMES:
            bad[str(volume.get("name"))] = kind
    if bad:
        kinds = sorted(set(bad.values()))
        uses = "use" if len(bad) > 1 else "uses"
        listed = ", ".join(f'"{kind}"' for kind in kinds)
        yield f"{_named('volume', bad)} {uses} restricted volume type{'s' if len(kinds) > 1 else ''} {listed}"


def _non_root(spec: Spec, _: Spec) -> Iterator[str]:
    pod = (spec.get("securityContext") or {}).get("runAsNonRoot")
    text = "must not set securityContext.runAsNonRoot=false"
    explicit = _offending(spec, lambda _c, s: s.get("runAsNonRoot") is False)
    if explicit:
        yield f"{_named('container', explicit)} {text}"
    implicit = _offending(spec, lambda _c, s: s.get("runAsNonRoot") is None)
    if pod is False and implicit:
        yield f"pod {text}"
    elif pod is None and implicit:
        yield f"pod or {_named('container', implicit)} must set securityContext.runAsNonRoot=true"


def _user(spec: Spec, _: Spec) -> Iterator[str]:
    if (spec.get("securityContext") or {}).get("runAsUser") == 0:
        yield "pod must not set runAsUser=0"
    bad = _offending(spec, lambda _c, s: s.get("runAsUser") == 0)
    if bad:
        yield f"{_named('container', bad)} must not set runAsUser=0"


def _seccomp_restricted(spec: Spec, _: Spec) -> Iterator[str]:
    if _windows(spec):
        return
    good = ("RuntimeDefault", "Localhost")

    def kind(context: Spec) -> str | None:
        return (context.get("seccompProfile") or {}).get("type")

    pod = kind(spec.get("securityContext") or {})
    text = 'must not set securityContext.seccompProfile.type to "Unconfined"'
    explicit = _offending(spec, lambda _c, s: kind(s) not in (None, *good))
    if explicit:
        yield f"{_named('container', explicit)} {text}"
    implicit = _offending(spec, lambda _c, s: kind(s) is None)
    if implicit and pod not in (None, *good):
        yield f"pod {text}"
    elif implicit and pod is None:
        wanted = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        yield f"pod or {_named('container', implicit)} {wanted}"


_Check = Callable[[Spec, Spec], Iterator[str]]
# In upstream's order: the words before the detail, the check, since which minor version of Kubernetes it is made.
_COMMON: tuple[tuple[str, _Check, int], ...] = (
    ("forbidden AppArmor profiles", _apparmor, 0),
    ("non-default capabilities", _capabilities, 0),
    ("host namespaces", _host_namespaces, 0),
    ("hostPath volumes", _host_paths, 0),
    ("hostPort", _host_ports, 0),
    ("probe or lifecycle host", _host_probes, 34),
    ("privileged", _privileged, 0),
    ("procMount", _proc_mount, 0),
    ("seLinuxOptions", _selinux, 0),
    ("seccompProfile", _seccomp_baseline, 0),
    ("forbidden sysctls", _sysctls, 0),
    ("hostProcess", _host_process, 0),
)
_RESTRICTED: tuple[tuple[str, _Check, int], ...] = (
    ("allowPrivilegeEscalation != false", _escalation, 8),
    ("unrestricted capabilities", _drop_all, 22),
    ("restricted volume types", _volume_types, 0),
    ("runAsNonRoot != true", _non_root, 0),
    ("runAsUser=0", _user, 23),
    ("seccompProfile", _seccomp_restricted, 19),
)
# A check of restricted that says all that one of baseline says.
_STRICTER: dict[_Check, _Check] = {
    _host_paths: _volume_types,
    _capabilities: _drop_all,
    _seccomp_baseline: _seccomp_restricted,
}


def _chosen(level: str, minor: int) -> list[tuple[str, _Check]]:
    """The checks of a level as they were in version 1.`minor`."""
    baseline = [(words, check) for words, check, since in _COMMON if minor >= since]
    if level == "baseline":
        return baseline
    restricted = [(words, check) for words, check, since in _RESTRICTED if minor >= since]
    there = {check for _, check in restricted}
    return [(words, check) for words, check in baseline if _STRICTER.get(check) not in there] + restricted
