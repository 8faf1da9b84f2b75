"""A container's environment: pure.

Owns: env, envFrom, the variables of services. Called by: config. Never does: I/O: what it needs is handed in as Sources.
Golden-tested. Source: pkg/kubelet/kubelet_pods.go (makeEnvironmentVariables), pkg/kubelet/envvars.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from k1s.agent.containers.expand import expand
from k1s.agent.containers.fields import FieldUnknown, field_value, resource_value

Object = dict[str, Any]
# (kind, name) -> the ConfigMap or Secret of the pod's namespace; None if there is none.
Lookup = Callable[[str, str], Object | None]


class ConfigFault(Exception):
    """The container cannot be configured (CreateContainerConfigError); the message is kubelet's."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What the environment is made from."""

    lookup: Lookup
    services: tuple[Object, ...] = ()
    host_ips: tuple[str, ...] = ()
    pod_ips: tuple[str, ...] = ()
    allocatable: Mapping[str, int] = field(default_factory=dict)


def build(pod: Object, container: Object, sources: Sources) -> dict[str, str]:
    """Name -> value, in order. Raises ConfigFault."""
    from_services = service_variables(pod, sources.services)
    out: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        out.update(_env_from(source, sources, pod["metadata"]["namespace"]))
    for entry in container.get("env") or []:
        name = entry["name"]
        if entry.get("valueFrom"):
            value = _value_from(pod, container, entry["valueFrom"], sources)
            if value is None:
                continue  # an optional source that is not there
            out[name] = value
        else:
            out[name] = expand(entry.get("value") or "", {**from_services, **out})
    return {**out, **{name: value for name, value in from_services.items() if name not in out}}


def _env_from(source: Object, sources: Sources, namespace: str) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    for field_name, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
        reference = source.get(field_name)
        if reference is None:
            continue
        found = sources.lookup(kind, reference["name"])
        if found is None:
            if reference.get("optional"):
                return {}
            raise ConfigFault(f'{kind.lower()} "{reference["name"]}" not found')
        return {prefix + key: value for key, value in sorted(texts(kind, found).items()) if _usable(prefix + key)}
    return {}


def _usable(name: str) -> bool:
    return bool(name) and "=" not in name and all(" " <= c <= "~" for c in name)


def texts(kind: str, obj: Object) -> dict[str, str]:
    """The string data of a ConfigMap or Secret."""
    if kind == "ConfigMap":
        return dict(obj.get("data") or {})
    return {key: base64.b64decode(value or "").decode(errors="replace") for key, value in (obj.get("data") or {}).items()}


def _value_from(pod: Object, container: Object, source: Object, sources: Sources) -> str | None:
    namespace = pod["metadata"]["namespace"]
    try:
        if "fieldRef" in source:
            path = source["fieldRef"]["fieldPath"]
            return field_value(pod, path, host_ips=sources.host_ips, pod_ips=sources.pod_ips)
        if "resourceFieldRef" in source:
            return resource_value(pod, container["name"], source["resourceFieldRef"], sources.allocatable)
    except FieldUnknown as error:
        raise ConfigFault(str(error)) from error
    for field_name, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        reference = source.get(field_name)
        if reference is None:
            continue
        name, key, optional = reference["name"], reference["key"], bool(reference.get("optional"))
        found = sources.lookup(kind, name)
        if found is None:
            if optional:
                return None
            raise ConfigFault(f'{kind.lower()} "{name}" not found')
        values = texts(kind, found)
        if key not in values:
            if optional:
                return None
            what = "ConfigMap" if kind == "ConfigMap" else "Secret"
            raise ConfigFault(f"couldn't find key {key} in {what} {namespace}/{name}")
        return values[key]
    raise ConfigFault(f"environment source {', '.join(source) or 'without a reference'} is not supported")


def service_variables(pod: Object, services: Iterable[Object]) -> dict[str, str]:
    """Variables of the services of the pod's namespace (unless it wants none), and of the API's own always."""
    namespace = pod["metadata"]["namespace"]
    links = pod["spec"].get("enableServiceLinks", True)
    chosen: dict[str, Object] = {}
    for service in services:
        meta = service["metadata"]
        if service["spec"].get("clusterIP") in (None, "", "None") or not service["spec"].get("ports"):
            continue
        if (meta["namespace"], meta["name"]) == ("default", "kubernetes"):
            chosen.setdefault("kubernetes", service)
        elif meta["namespace"] == namespace and links:
            chosen[meta["name"]] = service
    out: dict[str, str] = {}
    for name in sorted(chosen):
        out.update(_of_service(name, chosen[name]["spec"]))
    return out


def _of_service(name: str, spec: Object) -> dict[str, str]:
    prefix, address, ports = name.upper().replace("-", "_"), spec["clusterIP"], spec["ports"]
    out = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0]["port"])}
    for port in ports:
        if port.get("name"):
            out[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
    host = f"[{address}]" if ":" in address else address
    for index, port in enumerate(ports):
        protocol = port.get("protocol") or "TCP"
        url = f"{protocol.lower()}://{host}:{port['port']}"
        if index == 0:
            out[f"{prefix}_PORT"] = url
        base = f"{prefix}_PORT_{port['port']}_{protocol.upper()}"
        out.update({base: url, f"{base}_PROTO": protocol.lower(), f"{base}_PORT": str(port["port"]), f"{base}_ADDR": address})
    return out
