"""Pods and pod templates.

pod_spec: all of spec | create: a new Pod | pod: any Pod | template: a PodTemplateSpec.
Called by: table.py, apps.py, batch.py, pod_update.py. Never does: updates (pod_update.py).
Source: upstream ValidatePodSpec, ValidatePodCreate, ValidatePodTemplateSpec.
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, required, too_long
from k1s.api.meta import Object
from k1s.api.validation.containers import (
    PodContext,
    containers,
    ephemeral_containers,
    host_network_ports,
    init_containers,
)
from k1s.api.validation.object_meta import annotation_map, label_map
from k1s.api.validation.pod_annotations import pod_annotations, profiles_match
from k1s.api.validation.resources import pod_level, requirements
from k1s.api.validation.rules import MAX_INT32, Check, Errors, in_range, one_of, strings
from k1s.api.validation.scheduling import affinity, scheduling_gates, tolerations, topology_spread
from k1s.api.validation.security import host_users, pod_context
from k1s.api.validation.volumes import volumes
from k1s.api.validation.windows import host_process, os_rules

_DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_RESTART_POLICIES = ("Always", "Never", "OnFailure")
_MAX_SEARCH_CHARS = 2048


def pod_spec(errs: Errors, at: str, spec: Object, *, template: bool = False, pod_name: str = "") -> None:
    """Everything in a PodSpec. `pod_name`: of the Pod, where it is one and has its name."""
    if spec.get("terminationGracePeriodSeconds") is None:
        errs.append(required(f"{at}.terminationGracePeriodSeconds"))
    found = volumes(errs, f"{at}.volumes", spec.get("volumes"), pod_name, template=template)
    claims = _claims(errs, f"{at}.resourceClaims", spec.get("resourceClaims"))
    pod = PodContext(spec, found, claims, template=template)
    containers(errs, f"{at}.containers", spec.get("containers"), pod)
    init_containers(errs, f"{at}.initContainers", spec.get("initContainers"), pod)
    ephemeral_containers(errs, f"{at}.ephemeralContainers", spec.get("ephemeralContainers"), pod)
    pod_level(errs, f"{at}.resources", spec)
    host_network_ports(errs, at, spec, template=template)
    one_of(errs, f"{at}.restartPolicy", spec.get("restartPolicy"), _RESTART_POLICIES, needed=True)
    one_of(errs, f"{at}.dnsPolicy", spec.get("dnsPolicy"), _DNS_POLICIES, needed=True)
    label_map(errs, f"{at}.nodeSelector", spec.get("nodeSelector"))
    pod_context(errs, f"{at}.securityContext", spec.get("securityContext"), spec)
    affinity(errs, f"{at}.affinity", spec.get("affinity"))
    _dns_config(errs, f"{at}.dnsConfig", spec)
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        strings(errs, f"{at}.readinessGates[{index}].conditionType", gate.get("conditionType") or "", names.qualified_name)
    scheduling_gates(errs, f"{at}.schedulingGates", spec.get("schedulingGates"))
    topology_spread(errs, f"{at}.topologySpreadConstraints", spec.get("topologySpreadConstraints"))
    host_process(errs, at, spec)
    host_users(errs, at, spec)
    _plain_fields(errs, at, spec)
    requirements(errs, f"{at}.overhead", {"limits": spec.get("overhead")} if spec.get("overhead") else None)
    os_rules(errs, at, spec)
    _hostname_override(errs, at, spec)


_NAME_FIELDS = (
    ("serviceAccountName", names.dns1123_subdomain),
    ("nodeName", names.dns1123_subdomain),
)
_MORE_NAME_FIELDS = (
    ("priorityClassName", names.dns1123_subdomain),
    ("runtimeClassName", names.dns1123_subdomain),
)


def _plain_fields(errs: Errors, at: str, spec: Object) -> None:
    _named_fields(errs, at, spec, _NAME_FIELDS)
    if spec.get("activeDeadlineSeconds") is not None:
        in_range(errs, f"{at}.activeDeadlineSeconds", spec["activeDeadlineSeconds"], 1, MAX_INT32)
    _named_fields(errs, at, spec, (("hostname", names.dns1123_label), ("subdomain", names.dns1123_label)))
    tolerations(errs, f"{at}.tolerations", spec.get("tolerations"))
    _host_aliases(errs, f"{at}.hostAliases", spec.get("hostAliases"))
    _named_fields(errs, at, spec, _MORE_NAME_FIELDS)
    policy = spec.get("preemptionPolicy")
    if policy is not None:
        one_of(errs, f"{at}.preemptionPolicy", policy, ("Never", "PreemptLowerPriority"), needed=True)


def _named_fields(errs: Errors, at: str, spec: Object, fields: tuple[tuple[str, Check], ...]) -> None:
    for key, check in fields:
        # Go keeps the runtime class as a pointer: an empty name is one, and wrong.
        if spec.get(key) or (key == "runtimeClassName" and spec.get(key) is not None):
            strings(errs, f"{at}.{key}", spec[key], check)


def _hostname_override(errs: Errors, at: str, spec: Object) -> None:
    override, field = spec.get("hostnameOverride"), f"{at}.hostnameOverride"
    if override is None:
        return
    if len(override) > 64:
        errs.append(too_long(field, 64))
    strings(errs, field, override, names.dns1123_subdomain)
    if spec.get("hostNetwork"):
        errs.append(forbidden_field(field, "may not be specified when hostNetwork is true"))
    if spec.get("setHostnameAsFQDN"):
        errs.append(forbidden_field(field, "may not be specified when setHostnameAsFQDN is true"))


def _claims(errs: Errors, at: str, items: Any) -> set[str]:
    found: set[str] = set()
    for index, claim in enumerate(items or ()):
        here, name = f"{at}[{index}]", claim.get("name") or ""
        if not name:
            errs.append(required(f"{here}.name"))
        elif name in found:
            errs.append(duplicate(f"{here}.name", name))
        else:
            strings(errs, f"{here}.name", name, names.dns1123_label)
            found.add(name)
        given = [key for key in ("resourceClaimName", "resourceClaimTemplateName") if claim.get(key) is not None]
        if len(given) > 1:
            text = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            errs.append(invalid_value(here, claim, text))
        if not given:
            errs.append(invalid_value(here, claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
        for key in given:
            strings(errs, f"{here}.{key}", claim[key], names.dns1123_subdomain)
    return found


def _dns_config(errs: Errors, at: str, spec: Object) -> None:
    config = spec.get("dnsConfig")
    servers = (config or {}).get("nameservers") or []
    if spec.get("dnsPolicy") == "None":
        if config is None:
            errs.append(required(at, "must provide `dnsConfig` when `dnsPolicy` is None"))
            return
        if not servers:
            errs.append(required(f"{at}.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None"))
            return
    if not config:
        return
    if len(servers) > 3:
        errs.append(invalid_value(f"{at}.nameservers", servers, "must not have more than 3 nameservers"))
    for index, server in enumerate(servers):
        strings(errs, f"{at}.nameservers[{index}]", server, names.ip_address)
    searches = config.get("searches") or []
    if len(searches) > 32:
        errs.append(invalid_value(f"{at}.searches", searches, "must not have more than 32 search paths"))
    if len(" ".join(searches)) > _MAX_SEARCH_CHARS:
        text = "must not have more than 2048 characters (including spaces) in the search list"
        errs.append(invalid_value(f"{at}.searches", searches, text))
    for index, search in enumerate(searches):
        # A lone dot, a trailing dot and underscores are fine in search lists.
        if search != ".":
            trimmed = search.removesuffix(".")
            strings(errs, f"{at}.searches[{index}]", trimmed, names.dns1123_subdomain_with_underscore)
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            errs.append(required(f"{at}.options[{index}]", "must not be empty"))


def _host_aliases(errs: Errors, at: str, items: Any) -> None:
    for index, alias in enumerate(items or ()):
        here = f"{at}[{index}]"
        strings(errs, f"{here}.ip", alias.get("ip") or "", names.ip_address)
        for number, host in enumerate(alias.get("hostnames") or ()):
            strings(errs, f"{here}.hostnames[{number}]", host, names.dns1123_subdomain)


def pod(errs: Errors, obj: Object) -> None:
    """metadata.annotations and spec of a Pod, new or changed."""
    spec, meta = obj.get("spec") or {}, obj.get("metadata") or {}
    pod_spec(errs, "spec", spec, pod_name=meta.get("name") or "")
    if spec.get("serviceAccountName"):
        return
    for index, volume in enumerate(spec.get("volumes") or ()):
        for number, part in enumerate((volume.get("projected") or {}).get("sources") or ()):
            if part.get("serviceAccountToken") is not None:
                at = f"spec.volumes[{index}].projected.sources[{number}].serviceAccountToken"
                errs.append(forbidden_field(at, "must not be specified when serviceAccountName is not set"))


def create(errs: Errors, obj: Object) -> None:
    """A new Pod."""
    spec, notes = obj.get("spec") or {}, (obj.get("metadata") or {}).get("annotations")
    pod_annotations(errs, "metadata.annotations", notes, spec)
    pod(errs, obj)
    if spec.get("ephemeralContainers"):
        errs.append(forbidden_field("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        errs.append(forbidden_field("spec.nodeName", "cannot be set until all schedulingGates have been cleared"))
    profiles_match(errs, "spec", notes, spec)


def template(errs: Errors, at: str, value: Object | None) -> None:
    """A PodTemplateSpec; the paths of its labels and annotations lack their `metadata`, as upstream's do."""
    meta, spec = (value or {}).get("metadata") or {}, (value or {}).get("spec") or {}
    label_map(errs, f"{at}.labels", meta.get("labels"))
    annotation_map(errs, f"{at}.annotations", meta.get("annotations"))
    pod_annotations(errs, f"{at}.annotations", meta.get("annotations"), spec)
    pod_spec(errs, f"{at}.spec", spec, template=True)
    profiles_match(errs, f"{at}.spec", meta.get("annotations"), spec)
    if spec.get("ephemeralContainers"):
        errs.append(forbidden_field(f"{at}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template"))


def pod_template(errs: Errors, obj: Object) -> None:
    """The kind PodTemplate."""
    template(errs, "template", obj.get("template"))
