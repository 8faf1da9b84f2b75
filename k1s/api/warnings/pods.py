"""Pods and pod templates.

pod: a Pod | template: a PodTemplateSpec under a field path | pod_status: the addresses that a kubelet reports.
Called by: table.py, workloads.py. Never does: change the object.
Source: upstream pkg/api/pod/warnings.go, pkg/registry/core/pod/strategy.go.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from k1s.api import names
from k1s.api.meta import Object
from k1s.api.warnings.addresses import for_ip
from k1s.api.warnings.nodes import deprecated_label, node_selector, node_selector_term
from k1s.api.warnings.volumes import claim_spec, fractional, removed_source

_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": 'non-functional in v1.16+; use the "priorityClassName" field instead',
    "security.alpha.kubernetes.io/sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
}
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_OLD_SECCOMP = 'non-functional in v1.27+; use the "seccompProfile" field instead'
_OLD_APPARMOR = 'deprecated since v1.30; use the "appArmorProfile" field instead'
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_NULL_SELECTOR = "a null labelSelector results in matching no pod"


def pod(obj: Object, old: Object | None) -> list[str]:
    """A new pod; upstream says nothing on updates, they are mostly written by machines."""
    if old is not None:
        return []
    out = []
    messages = names.dns1123_label((obj.get("metadata") or {}).get("name") or "")
    if messages:
        text = "this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended"
        out.append(f"metadata.name: {text}: [{' '.join(messages)}]")
    return out + _pod("", obj.get("spec") or {}, obj.get("metadata") or {}, is_template=False)


def template(prefix: str, value: Object | None) -> list[str]:
    """A PodTemplateSpec; `prefix` is its path with a dot at the end."""
    if not value:
        return []
    return _pod(prefix, value.get("spec") or {}, value.get("metadata") or {}, is_template=True)


def pod_status(obj: Object, old: Object | None) -> list[str]:
    out, status = [], obj.get("status") or {}
    for key in ("podIPs", "hostIPs"):
        for index, entry in enumerate(status.get(key) or ()):
            out += for_ip(f"status.{key}[{index}].ip", entry.get("ip"))
    return out


def _pod(prefix: str, spec: Object, meta: Object, *, is_template: bool) -> list[str]:
    annotations = meta.get("annotations") or {}
    out = _placement(prefix, spec)
    out += [f"{prefix}metadata.annotations[{key}]: {text}" for key, text in _ANNOTATIONS.items() if key in annotations]
    out += _volumes(prefix, spec.get("volumes") or ())
    out += _lists(prefix, spec)
    out += fractional(f"{prefix}spec.overhead", spec.get("overhead"), "memory", "ephemeral-storage")
    out += _profiles(prefix, spec, annotations, is_template=is_template)
    for at, container in _containers(f"{prefix}spec", spec):
        for which in ("limits", "requests"):
            amounts = (container.get("resources") or {}).get(which)
            out += fractional(f"{at}.resources.{which}", amounts, "memory", "ephemeral-storage")
        out += _env(at, container.get("env") or ())
    out += _ports(f"{prefix}spec", spec)
    grace = spec.get("terminationGracePeriodSeconds")
    if isinstance(grace, int) and grace < 0:
        text = "must be >= 0; negative values are invalid and will be treated as 1"
        out.append(f"{prefix}spec.terminationGracePeriodSeconds: {text}")
    return out + _pod_affinity(f"{prefix}spec.affinity", spec.get("affinity") or {})


def _containers(at: str, spec: Object) -> Iterator[tuple[str, Object]]:
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(key) or ()):
            yield f"{at}.{key}[{index}]", container


def _placement(prefix: str, spec: Object) -> list[str]:
    """Node labels that have a newer name."""
    out = node_selector(f"{prefix}spec.nodeSelector", spec.get("nodeSelector"))
    node = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    at = f"{prefix}spec.affinity.nodeAffinity"
    for index, term in enumerate((node.get(_REQUIRED) or {}).get("nodeSelectorTerms") or ()):
        out += node_selector_term(f"{at}.{_REQUIRED}.nodeSelectorTerms[{index}]", term)
    for index, term in enumerate(node.get(_PREFERRED) or ()):
        out += node_selector_term(f"{at}.{_PREFERRED}[{index}].preference", term.get("preference") or {}, values=True)
    for index, constraint in enumerate(spec.get("topologySpreadConstraints") or ()):
        here, key = f"{prefix}spec.topologySpreadConstraints[{index}]", constraint.get("topologyKey")
        if deprecated_label(key):
            out.append(f"{here}.topologyKey: {key} is {deprecated_label(key)}")
        if constraint.get("labelSelector") is None:
            out.append(f"{here}.labelSelector: {_NULL_SELECTOR}")
    return out


def _pod_affinity(at: str, affinity: Object) -> list[str]:
    out = []
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(kind) or {}
        for index, term in enumerate(terms.get(_REQUIRED) or ()):
            if term.get("labelSelector") is None:
                out.append(f"{at}.{kind}.{_REQUIRED}[{index}].labelSelector: {_NULL_SELECTOR}")
        for index, term in enumerate(terms.get(_PREFERRED) or ()):
            if (term.get("podAffinityTerm") or {}).get("labelSelector") is None:
                out.append(f"{at}.{kind}.{_PREFERRED}[{index}].podAffinityTerm.labelSelector: {_NULL_SELECTOR}")
    return out


def _volumes(prefix: str, volumes: Any) -> list[str]:
    out = []
    for index, volume in enumerate(volumes):
        at = f"{prefix}spec.volumes[{index}]"
        out += removed_source(at, volume)
        if volume.get("gitRepo"):
            out.append(f"{at}.gitRepo: deprecated in v1.11, and disabled by default in v1.33+")
        claim = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
        if claim:
            out += claim_spec(f"{at}.ephemeral.volumeClaimTemplate.spec", claim.get("spec") or {})
    return out + _projected(prefix, volumes)


def _projected(prefix: str, volumes: Any) -> list[str]:
    """Files that lie where a service account's token is to lie."""
    sources = [(i, part) for i, v in enumerate(volumes) for part in (v.get("projected") or {}).get("sources") or ()]
    tokens = {(part.get("serviceAccountToken") or {}).get("path") for _, part in sources} - {None}
    out = []
    for index, part in sources if tokens else ():
        at = f"{prefix}spec.volumes[{index}].projected.sources"
        for key, shown in (("configMap", "configMap"), ("secret", "secrets"), ("downwardAPI", "downwardAPI")):
            for number, item in enumerate((part.get(key) or {}).get("items") or ()):
                if item.get("path") in tokens:
                    text = f"has duplicated path with ServiceAccountToken {json.dumps(item['path'])}"
                    out.append(f"{at}.{shown}[{number}]: {text}")
        path = (part.get("clusterTrustBundle") or {}).get("path")
        if path in tokens:
            out.append(f"{at}.ClusterTrustBundle: has duplicated path with ServiceAccountToken {json.dumps(path)}")
    return out


def _lists(prefix: str, spec: Object) -> list[str]:
    """Entries that hide one another when lists are merged by key."""
    out = []
    for field, key, word in (("hostAliases", "ip", "ip"), ("imagePullSecrets", "name", "name")):
        seen: set[Any] = set()
        for index, item in enumerate(spec.get(field) or ()):
            value = item.get(key) or ""
            if value in seen:
                out.append(f"{prefix}spec.{field}[{index}].{key}: duplicate {word} {json.dumps(value)}")
            seen.add(value)
    for index, item in enumerate(spec.get("imagePullSecrets") or ()):
        if not item.get("name"):
            out.append(f'{prefix}spec.imagePullSecrets[{index}].name: invalid empty name ""')
    return out


def _profiles(prefix: str, spec: Object, annotations: Object, *, is_template: bool) -> list[str]:
    """Annotations of the time before seccompProfile and appArmorProfile."""
    if not annotations:
        return []
    out, at = [], f"{prefix}metadata.annotations"
    context = spec.get("securityContext") or {}
    if context.get("seccompProfile") is None and _SECCOMP_POD in annotations:
        out.append(f"{at}[{_SECCOMP_POD}]: {_OLD_SECCOMP}")
    for _, container in _containers("", spec):
        own, name = container.get("securityContext") or {}, container.get("name") or ""
        key = f"{_SECCOMP_CONTAINER}{name}"
        if own.get("seccompProfile") is None and key in annotations:
            out.append(f"{at}[{key}]: {_OLD_SECCOMP}")
        key = f"{_APPARMOR}{name}"
        confined = context.get("appArmorProfile") is not None or own.get("appArmorProfile") is not None
        if is_template and not confined and key in annotations:
            out.append(f"{at}[{key}]: {_OLD_APPARMOR}")
    return out


def _env(at: str, variables: Any) -> list[str]:
    seen: set[Any] = set()
    out = []
    for index, variable in enumerate(variables):
        name = variable.get("name")
        if name in seen:
            value, reference = variable.get("value") or "", f"$({name})"
            if variable.get("valueFrom") is not None or value == reference or reference not in value:
                text = f"hides previous definition of {json.dumps(name)}, which may be dropped when using apply"
                out.append(f"{at}.env[{index}]: {text}")
        seen.add(name)
    return out


def _ports(at: str, spec: Object) -> list[str]:
    """One port of one protocol twice in a pod."""
    out: list[str] = []
    known: dict[tuple[Any, Any], list[tuple[str, Object]]] = {}
    for here, container in _containers(at, spec):
        for index, port in enumerate(container.get("ports") or ()):
            place = f"{here}.ports[{index}]"
            if port.get("hostIP") and not port.get("hostPort"):
                out.append(f"{place}: hostIP set without hostPort: {_shown(port)}")
            others = known.setdefault((port.get("containerPort"), port.get("protocol")), [])
            for other_place, other in others:
                text = _clash(port, other)
                if text:
                    out.append(f"{place}: {text} port definition with {other_place}")
            others.append((place, port))
    return out


def _clash(port: Object, other: Object) -> str:
    mine, theirs = port.get("hostPort") or 0, other.get("hostPort") or 0
    my_ip, their_ip = port.get("hostIP") or "", other.get("hostIP") or ""
    if my_ip == their_ip and mine == theirs:
        return "duplicate"
    if not mine or not theirs:
        return "overlapping"
    if mine == theirs and bool(my_ip) != bool(their_ip):
        return "dangerously ambiguous"
    return ""


def _shown(port: Object) -> str:
    """A container port as Go prints the struct."""
    keys = (("Name", "name", ""), ("HostPort", "hostPort", 0), ("ContainerPort", "containerPort", 0))
    more = (("Protocol", "protocol", ""), ("HostIP", "hostIP", ""))
    return "{" + " ".join(f"{name}:{port.get(key) or empty}" for name, key, empty in (*keys, *more)) + "}"
