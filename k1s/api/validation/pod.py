"""Pods and pod templates.

pod_spec: all of spec | create: a new Pod | template: a PodTemplateSpec.
Called by: table.py, apps.py, batch.py. Never does: updates (pod_update.py).
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.containers import PodContext, containers, ephemeral_containers, init_containers
from k1s.api.validation.object_meta import label_map, template_meta
from k1s.api.validation.resources import pod_level
from k1s.api.validation.rules import MAX_INT32, Errors, in_range, one_of, quantities, strings
from k1s.api.validation.scheduling import affinity, scheduling_gates, tolerations, topology_spread
from k1s.api.validation.security import host_users, pod_context
from k1s.api.validation.volumes import volumes

_DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_RESTART_POLICIES = ("Always", "Never", "OnFailure")
_MAX_SEARCH_CHARS = 2048


def pod_spec(errs: Errors, at: str, spec: Object, *, template: bool = False) -> None:
    """Everything in a PodSpec."""
    claims = _claims(errs, f"{at}.resourceClaims", spec.get("resourceClaims"))
    pod = PodContext(spec, volumes(errs, f"{at}.volumes", spec.get("volumes")), claims, template=template)
    containers(errs, f"{at}.containers", spec.get("containers"), pod)
    init_containers(errs, f"{at}.initContainers", spec.get("initContainers"), pod)
    ephemeral_containers(errs, f"{at}.ephemeralContainers", spec.get("ephemeralContainers"), pod)
    pod_level(errs, f"{at}.resources", spec)
    one_of(errs, f"{at}.restartPolicy", spec.get("restartPolicy"), _RESTART_POLICIES, needed=True)
    one_of(errs, f"{at}.dnsPolicy", spec.get("dnsPolicy"), _DNS_POLICIES, needed=True)
    label_map(errs, f"{at}.nodeSelector", spec.get("nodeSelector"))
    pod_context(errs, f"{at}.securityContext", spec.get("securityContext"), spec)
    host_users(errs, at, spec)
    affinity(errs, f"{at}.affinity", spec.get("affinity"))
    _dns_config(errs, f"{at}.dnsConfig", spec)
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        strings(errs, f"{at}.readinessGates[{index}].conditionType", gate.get("conditionType") or "", names.qualified_name)
    scheduling_gates(errs, f"{at}.schedulingGates", spec.get("schedulingGates"))
    topology_spread(errs, f"{at}.topologySpreadConstraints", spec.get("topologySpreadConstraints"))
    tolerations(errs, f"{at}.tolerations", spec.get("tolerations"))
    _host_aliases(errs, f"{at}.hostAliases", spec.get("hostAliases"))
    _plain_fields(errs, at, spec)


_NAME_FIELDS = (
    ("serviceAccountName", names.dns1123_subdomain),
    ("nodeName", names.dns1123_subdomain),
    ("hostname", names.dns1123_label),
    ("subdomain", names.dns1123_label),
    ("priorityClassName", names.dns1123_subdomain),
    ("runtimeClassName", names.dns1123_subdomain),
)


def _plain_fields(errs: Errors, at: str, spec: Object) -> None:
    for key, check in _NAME_FIELDS:
        if spec.get(key):
            strings(errs, f"{at}.{key}", spec[key], check)
    if spec.get("activeDeadlineSeconds") is not None:
        in_range(errs, f"{at}.activeDeadlineSeconds", spec["activeDeadlineSeconds"], 1, MAX_INT32)
    one_of(errs, f"{at}.preemptionPolicy", spec.get("preemptionPolicy"), ("Never", "PreemptLowerPriority"))
    for name, amount in (spec.get("overhead") or {}).items():
        quantities(errs, f"{at}.overhead[{name}]", amount)
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        errs.append(
            invalid_value(f"{at}.shareProcessNamespace", True, "ShareProcessNamespace and HostPID cannot both be enabled")
        )
    os = spec.get("os")
    if os is not None:
        one_of(errs, f"{at}.os.name", os.get("name"), ("linux", "windows"), needed=True)
    override = spec.get("hostnameOverride")
    if override:
        strings(errs, f"{at}.hostnameOverride", override, names.dns1123_subdomain)
        if spec.get("hostNetwork"):
            errs.append(forbidden_field(f"{at}.hostnameOverride", "may not be specified when hostNetwork is true"))
        if spec.get("setHostnameAsFQDN"):
            errs.append(forbidden_field(f"{at}.hostnameOverride", "may not be specified when setHostnameAsFQDN is true"))


def _claims(errs: Errors, at: str, items: Any) -> set[str]:
    found: set[str] = set()
    for index, claim in enumerate(items or ()):
        here, name = f"{at}[{index}]", claim.get("name") or ""
        if not name:
            errs.append(required(f"{here}.name"))
        else:
            strings(errs, f"{here}.name", name, names.dns1123_label)
        if name in found:
            errs.append(duplicate(f"{here}.name", name))
        found.add(name)
        given = [key for key in ("resourceClaimName", "resourceClaimTemplateName") if claim.get(key) is not None]
        if not given:
            errs.append(invalid_value(here, claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
        elif len(given) > 1:
            text = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            errs.append(invalid_value(here, claim, text))
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


def create(errs: Errors, obj: Object) -> None:
    """A new Pod."""
    spec = obj.get("spec") or {}
    pod_spec(errs, "spec", spec)
    if spec.get("ephemeralContainers"):
        errs.append(forbidden_field("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        errs.append(forbidden_field("spec.nodeName", "cannot be set until all schedulingGates have been cleared"))


def template(errs: Errors, at: str, value: Object | None) -> None:
    """A PodTemplateSpec."""
    value = value or {}
    template_meta(errs, f"{at}.metadata", value.get("metadata"))
    spec = value.get("spec") or {}
    pod_spec(errs, f"{at}.spec", spec, template=True)
    if spec.get("ephemeralContainers"):
        errs.append(forbidden_field(f"{at}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template"))


def pod_template(errs: Errors, obj: Object) -> None:
    """The kind PodTemplate."""
    template(errs, "template", obj.get("template"))
