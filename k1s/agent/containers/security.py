"""securityContext of pod and container as CRI has it: pure.

Owns: the merge of both levels, namespaces, capabilities, seccomp, masked paths. Called by: config, sandbox. Never does: I/O.
Source: pkg/securitycontext/util.go, pkg/kubelet/kuberuntime/security_context.go.
"""

from __future__ import annotations

from typing import Any

from k1s.agent.containers.env import ConfigFault
from k1s.cri.runtime import Image

Object = dict[str, Any]

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_INHERITED = ("runAsUser", "runAsGroup", "runAsNonRoot", "seLinuxOptions", "seccompProfile", "appArmorProfile")


def effective(pod: Object, container: Object) -> Object:
    """The container's context with the pod's where it says nothing."""
    level = pod["spec"].get("securityContext") or {}
    inherited = {name: level[name] for name in _INHERITED if level.get(name) is not None}
    return {**inherited, **{k: v for k, v in (container.get("securityContext") or {}).items() if v is not None}}


def namespaces(pod: Object, *, target: str = "") -> Object:
    """NamespaceOption; `target` is the id of the container whose processes an ephemeral one shall see."""
    spec = pod["spec"]
    options = {
        "network": "NODE" if spec.get("hostNetwork") else "POD",
        "ipc": "NODE" if spec.get("hostIPC") else "POD",
        "pid": "NODE" if spec.get("hostPID") else "POD" if spec.get("shareProcessNamespace") else "CONTAINER",
    }
    if spec.get("hostUsers") is False:
        raise ConfigFault("user namespaces (hostUsers: false) are not supported by this node yet")
    if target and options["pid"] == "CONTAINER":
        return {**options, "pid": "TARGET", "target_id": target}
    return options


def container_context(pod: Object, container: Object, image: Image, *, target: str = "") -> Object:
    """LinuxContainerSecurityContext. Raises ConfigFault where runAsNonRoot forbids the image's user."""
    context = effective(pod, container)
    level = pod["spec"].get("securityContext") or {}
    _check_non_root(pod, container, context, image)
    privileged = bool(context.get("privileged"))
    out: Object = {
        "namespace_options": namespaces(pod, target=target),
        "privileged": privileged,
        "readonly_rootfs": bool(context.get("readOnlyRootFilesystem")),
        "no_new_privs": context.get("allowPrivilegeEscalation") is False,
        "seccomp": profile(context.get("seccompProfile")),
    }
    user, group = context.get("runAsUser"), context.get("runAsGroup")
    if user is not None:
        out["run_as_user"] = {"value": user}
    elif image.uid is not None:
        out["run_as_user"] = {"value": image.uid}
    elif image.username:
        out["run_as_username"] = image.username
    else:
        out["run_as_user"] = {"value": 0}
    if group is not None:
        out["run_as_group"] = {"value": group}
    groups = list(level.get("supplementalGroups") or [])
    if level.get("fsGroup") is not None:
        groups.append(level["fsGroup"])
    if groups:
        out["supplemental_groups"] = groups
    if level.get("supplementalGroupsPolicy"):
        out["supplemental_groups_policy"] = level["supplementalGroupsPolicy"]
    capabilities = context.get("capabilities") or {}
    if capabilities:
        out["capabilities"] = {
            "add_capabilities": list(capabilities.get("add") or []),
            "drop_capabilities": list(capabilities.get("drop") or []),
        }
    if context.get("seLinuxOptions"):
        out["selinux_options"] = selinux(context["seLinuxOptions"])
    if context.get("procMount", "Default") == "Default" and not privileged:
        out["masked_paths"], out["readonly_paths"] = list(MASKED_PATHS), list(READONLY_PATHS)
    return out


def profile(wanted: Object | None) -> Object:
    """SecurityProfile for seccomp; none wanted means unconfined, as kubelet's default is."""
    kind = (wanted or {}).get("type") or "Unconfined"
    if kind == "Localhost":
        return {"profile_type": "Localhost", "localhost_ref": f"/var/lib/kubelet/seccomp/{(wanted or {})['localhostProfile']}"}
    return {"profile_type": kind}


def selinux(options: Object) -> Object:
    return {name: options[name] for name in ("user", "role", "type", "level") if options.get(name)}


def _check_non_root(pod: Object, container: Object, context: Object, image: Image) -> None:
    if not context.get("runAsNonRoot"):
        return
    meta = pod["metadata"]
    where = f'(pod: "{meta["name"]}_{meta["namespace"]}({meta["uid"]})", container: {container["name"]})'
    user = context.get("runAsUser")
    if user is not None:
        if user == 0:
            raise ConfigFault(f"container's runAsUser breaks non-root policy {where}")
        return
    if image.uid == 0 or (image.uid is None and not image.username):
        raise ConfigFault(f"container has runAsNonRoot and image will run as root {where}")
    if image.uid is None:
        fault = f"container has runAsNonRoot and image has non-numeric user ({image.username})"
        raise ConfigFault(f"{fault}, cannot verify user is non-root {where}")
