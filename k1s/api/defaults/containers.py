"""Defaults of one container: pull policy, termination message, ports, env, probes, lifecycle hooks.

Called by: pod.py, for containers, init containers and ephemeral containers.
Never does: anything that only a Pod (not a template) gets.
"""

from __future__ import annotations

from typing import Any

from k1s.api.defaults.resources import canonical, canonical_requirements
from k1s.api.meta import Object


def pull_policy(image: Any) -> str:
    """Always for :latest or no tag at all; a digest or another tag stands still."""
    if not isinstance(image, str):
        return "IfNotPresent"
    name, at, _ = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return "Always" if tag == "latest" or (not tag and not at) else "IfNotPresent"


def container(obj: Object) -> None:
    """One container of a pod or template."""
    if not obj.get("imagePullPolicy"):
        obj["imagePullPolicy"] = pull_policy(obj.get("image"))
    if not obj.get("terminationMessagePath"):
        obj["terminationMessagePath"] = "/dev/termination-log"
    if not obj.get("terminationMessagePolicy"):
        obj["terminationMessagePolicy"] = "File"
    if obj.get("resources") is None:
        obj["resources"] = {}
    else:
        canonical_requirements(obj["resources"])
    for port in obj.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    for variable in obj.get("env") or ():
        source = variable.get("valueFrom")
        if source:
            _env_source(source)
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        if obj.get(key) is not None:
            probe(obj[key])
    lifecycle = obj.get("lifecycle")
    if lifecycle:
        for key in ("postStart", "preStop"):
            http = (lifecycle.get(key) or {}).get("httpGet")
            if http is not None:
                http_get(http)


def _env_source(source: Object) -> None:
    if source.get("fieldRef") is not None:
        field_ref(source["fieldRef"])
    if source.get("resourceFieldRef") is not None:
        resource_field_ref(source["resourceFieldRef"])
    file_key = source.get("fileKeyRef")
    if file_key is not None and file_key.get("optional") is None:
        file_key["optional"] = False


def field_ref(ref: Object) -> None:
    if not ref.get("apiVersion"):
        ref["apiVersion"] = "v1"


def resource_field_ref(ref: Object) -> None:
    ref["divisor"] = canonical(ref["divisor"]) if ref.get("divisor") is not None else "0"


def http_get(action: Object) -> None:
    if not action.get("path"):
        action["path"] = "/"
    if not action.get("scheme"):
        action["scheme"] = "HTTP"


_PROBE = (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3))


def probe(obj: Object) -> None:
    for key, value in _PROBE:
        if not obj.get(key):
            obj[key] = value
    if obj.get("httpGet") is not None:
        http_get(obj["httpGet"])
    grpc = obj.get("grpc")
    if grpc is not None and grpc.get("service") is None:
        grpc["service"] = ""
