"""Containers of a pod: names, images, ports, mounts, restart rules; and what init and ephemeral containers may not have.

Called by: pod.py. Never does: the pod's other fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, not_found_field, required, too_long, too_many
from k1s.api.meta import Object
from k1s.api.validation.env import env, env_from
from k1s.api.validation.mounts import volume_devices, volume_mounts
from k1s.api.validation.probes import lifecycle, probes
from k1s.api.validation.resources import requirements
from k1s.api.validation.rules import Errors, named, one_of, port, strings
from k1s.api.validation.security import container_context

_PULL = ("Always", "IfNotPresent", "Never")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_NOT_EPHEMERAL = (
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
)
_EPHEMERAL = "cannot be set for an Ephemeral Container"


@dataclass(slots=True)
class PodContext:
    """What the containers of one pod are checked against."""

    spec: Object
    volumes: dict[str, Object]
    claims: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    host_ports: set[str] = field(default_factory=set)
    template: bool = False

    @property
    def grace(self) -> int | None:
        value = self.spec.get("terminationGracePeriodSeconds")
        return value if isinstance(value, int) else None

    @property
    def os_name(self) -> str | None:
        return (self.spec.get("os") or {}).get("name")


def _image(errs: Errors, at: str, container: Object, *, template: bool) -> None:
    image = container.get("image")
    if not image:
        errs.append(required(f"{at}.image"))
    elif image != image.strip() and not template:
        errs.append(invalid_value(f"{at}.image", image, "must not have leading or trailing whitespace"))


def _ports(errs: Errors, at: str, ports: Any) -> None:
    seen: set[str] = set()
    for index, entry in enumerate(ports or ()):
        here = f"{at}[{index}]"
        name = entry.get("name")
        if name:
            before = len(errs)
            strings(errs, f"{here}.name", name, names.port_name)
            if name in seen and len(errs) == before:
                errs.append(duplicate(f"{here}.name", name))
            seen.add(name)
        number, host = entry.get("containerPort") or 0, entry.get("hostPort") or 0
        if not number:
            errs.append(required(f"{here}.containerPort"))
        else:
            port(errs, f"{here}.containerPort", number)
        if host:
            port(errs, f"{here}.hostPort", host)
        one_of(errs, f"{here}.protocol", entry.get("protocol"), _PROTOCOLS, needed=True)


def _host_ports(errs: Errors, at: str, container: Object, taken: set[str]) -> None:
    for index, entry in enumerate(container.get("ports") or ()):
        if not entry.get("hostPort"):
            continue
        key = f"{entry.get('protocol')}/{entry.get('hostIP') or ''}/{entry['hostPort']}"
        if key in taken:
            errs.append(duplicate(f"{at}.ports[{index}].hostPort", key))
        taken.add(key)


def host_network_ports(errs: Errors, at: str, spec: Object, *, template: bool) -> None:
    """On the host's network a container's port is the host's; templates may leave that to the pods made from them."""
    for index, container in enumerate(spec.get("containers") or ()) if spec.get("hostNetwork") else ():
        for number, entry in enumerate(container.get("ports") or ()):
            host = entry.get("hostPort") or 0
            if host != (entry.get("containerPort") or 0) and (host or not template):
                text = "must match `containerPort` when `hostNetwork` is true"
                errs.append(invalid_value(f"{at}.containers[{index}].ports[{number}].hostPort", host, text))


def _resize_policy(errs: Errors, at: str, policies: Any, spec: Object) -> None:
    """Faults stand at the list, as upstream has them; only what is there twice stands at its entry."""
    seen: set[Any] = set()
    for index, policy in enumerate(policies or ()):
        resource, restart = policy.get("resourceName"), policy.get("restartPolicy")
        if resource in seen:
            errs.append(duplicate(f"{at}[{index}]", resource))
        seen.add(resource)
        one_of(errs, at, resource, ("cpu", "memory"), needed=True)
        one_of(errs, at, restart, ("NotRequired", "RestartContainer"), needed=True)
        if spec.get("restartPolicy") == "Never" and restart != "NotRequired":
            errs.append(invalid_value(at, restart or "", "must be 'NotRequired' when `restartPolicy` is 'Never'"))


def _restart(errs: Errors, at: str, container: Object) -> None:
    """The container's own restart policy and its rules."""
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or []
    one_of(errs, f"{at}.restartPolicy", policy, ("Always", "Never", "OnFailure"))
    if rules and policy is None:
        errs.append(required(f"{at}.restartPolicy", "must specify restartPolicy when restart rules are used"))
    if len(rules) > 20:
        errs.append(too_long(f"{at}.restartPolicyRules", 20, "items"))
    for index, rule in enumerate(rules):
        here = f"{at}.restartPolicyRules[{index}]"
        one_of(errs, f"{here}.action", rule.get("action"), ("Restart", "RestartAllContainers"), needed=True)
        codes = rule.get("exitCodes")
        if codes is None:
            errs.append(required(f"{here}.exitCodes", "must be specified"))
            continue
        one_of(errs, f"{here}.exitCodes.operator", codes.get("operator"), ("In", "NotIn"), needed=True)
        if len(codes.get("values") or ()) > 255:
            errs.append(too_many(f"{here}.exitCodes.values", len(codes["values"]), 255))


def _common(errs: Errors, at: str, container: Object, pod: PodContext) -> None:
    """What every kind of container is checked for."""
    named(errs, f"{at}.name", container.get("name"), names.dns1123_label)
    _image(errs, at, container, template=pod.template)
    policy = container.get("terminationMessagePolicy")
    one_of(errs, f"{at}.terminationMessagePolicy", policy, ("FallbackToLogsOnError", "File"), needed=True)
    _ports(errs, f"{at}.ports", container.get("ports"))
    env(errs, f"{at}.env", container.get("env"))
    env_from(errs, f"{at}.envFrom", container.get("envFrom"))
    volume_mounts(errs, f"{at}.volumeMounts", container, pod.volumes)
    volume_devices(errs, f"{at}.volumeDevices", container, pod.volumes)
    one_of(errs, f"{at}.imagePullPolicy", container.get("imagePullPolicy"), _PULL, needed=True)
    requirements(errs, f"{at}.resources", container.get("resources"), claims=pod.claims)
    _resize_policy(errs, f"{at}.resizePolicy", container.get("resizePolicy"), pod.spec)
    alone = pod.spec.get("hostUsers") is False
    container_context(errs, f"{at}.securityContext", container.get("securityContext"), host_users=not alone)


def _once(errs: Errors, at: str, container: Object, pod: PodContext) -> None:
    name = container.get("name") or ""
    if name in pod.names:
        errs.append(duplicate(f"{at}.name", name))
    elif name:
        pod.names.add(name)


def containers(errs: Errors, at: str, items: Any, pod: PodContext) -> None:
    """spec.containers."""
    if not items:
        errs.append(required(at))
        return
    for index, container in enumerate(items):
        here = f"{at}[{index}]"
        _common(errs, here, container, pod)
        _once(errs, here, container, pod)
        lifecycle(errs, f"{here}.lifecycle", container.get("lifecycle"), pod.grace, pod.os_name)
        probes(errs, here, container)
        _restart(errs, here, container)
    for index, container in enumerate(items):
        _host_ports(errs, f"{at}[{index}]", container, pod.host_ports)


def init_containers(errs: Errors, at: str, items: Any, pod: PodContext) -> None:
    """spec.initContainers; one with restartPolicy Always is a sidecar and may have probes and hooks."""
    for index, container in enumerate(items or ()):
        here = f"{at}[{index}]"
        _common(errs, here, container, pod)
        _restart(errs, here, container)
        _once(errs, here, container, pod)
        # Init containers run one after the other: their host ports collide only with their own.
        _host_ports(errs, here, container, set())
        if container.get("restartPolicy") == "Always":
            lifecycle(errs, f"{here}.lifecycle", container.get("lifecycle"), pod.grace, pod.os_name)
            probes(errs, here, container)
            continue
        for key in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
            if container.get(key) is not None:
                errs.append(forbidden_field(f"{here}.{key}", "may not be set for init containers without restartPolicy=Always"))


def ephemeral_containers(errs: Errors, at: str, items: Any, pod: PodContext) -> None:
    """spec.ephemeralContainers; `pod.names` holds the names of all others."""
    others = {c.get("name") for key in ("containers", "initContainers") for c in pod.spec.get(key) or ()}
    for index, container in enumerate(items or ()):
        here = f"{at}[{index}]"
        _common(errs, here, container, pod)
        _once(errs, here, container, pod)
        target = container.get("targetContainerName")
        if target and target not in others:
            errs.append(not_found_field(f"{here}.targetContainerName", target))
        for key in _NOT_EPHEMERAL:
            if container.get(key):
                errs.append(forbidden_field(f"{here}.{key}", _EPHEMERAL))
        for number, mount in enumerate(container.get("volumeMounts") or ()):
            for key in ("subPath", "subPathExpr"):
                if mount.get(key):
                    errs.append(forbidden_field(f"{here}.volumeMounts[{number}].{key}", _EPHEMERAL))
