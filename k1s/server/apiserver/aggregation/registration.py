"""What an APIService says, and the ones that the server makes for the groups it serves itself.

Owns: Remote (a parsed APIService with a service), local_service, the condition Available. Called by: aggregation/app.
Never does: I/O. Source: kube-aggregator's autoregister and apiserver packages.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from k1s.api.meta import condition
from k1s.server.apiserver.group_order import priority

Object = dict[str, Any]

AUTOMANAGED = "kube-aggregator.kubernetes.io/automanaged"
AVAILABLE = "Available"
LOCAL = (True, "Local", "Local APIServices are always available")
PASSED = (True, "Passed", "all checks passed")

# status, reason, message
Verdict = tuple[bool, str, str]


@dataclass(frozen=True, slots=True)
class Remote:
    """One version of a group that a Service serves."""

    name: str
    group: str
    version: str
    namespace: str
    service: str
    port: int
    ca: bytes
    insecure: bool
    priority: tuple[int, int]
    available: bool

    @property
    def server_name(self) -> str:
        return f"{self.service}.{self.namespace}.svc"

    @property
    def path(self) -> str:
        return f"/apis/{self.group}/{self.version}"


def remote_of(obj: Mapping[str, Any]) -> Remote | None:
    """None for a Local one."""
    spec = obj.get("spec") or {}
    service = spec.get("service")
    if not service:
        return None
    found = condition(obj, AVAILABLE)
    return Remote(
        name=obj["metadata"]["name"],
        group=spec.get("group") or "",
        version=spec.get("version") or "",
        namespace=service.get("namespace") or "",
        service=service.get("name") or "",
        port=int(service.get("port") or 443),
        ca=base64.b64decode(spec.get("caBundle") or ""),
        insecure=bool(spec.get("insecureSkipTLSVerify")),
        priority=(int(spec.get("groupPriorityMinimum") or 0), int(spec.get("versionPriority") or 0)),
        available=found is not None and found.get("status") == "True",
    )


def local_name(group: str, version: str) -> str:
    return f"{version}.{group}"


def local_service(group: str, version: str, automanaged: str, now: str) -> Object:
    """The APIService of a version that this server serves. `automanaged`: onstart (built in) or true (custom resources)."""
    of_group, of_version = priority(group, version)
    spec: Object = {"version": version, "groupPriorityMinimum": of_group, "versionPriority": of_version}
    if group:
        spec["group"] = group
    obj: Object = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {
            "name": local_name(group, version),
            "uid": str(uuid.uuid4()),
            "creationTimestamp": now,
            "labels": {AUTOMANAGED: automanaged},
        },
        "spec": spec,
    }
    set_available(obj, LOCAL, now)
    return obj


def set_available(obj: Object, verdict: Verdict, now: str) -> bool:
    """Put the condition in; whether that changed anything."""
    holds, reason, message = verdict
    status = obj.setdefault("status", {})
    old = condition(obj, AVAILABLE)
    value = "True" if holds else "False"
    if old is not None and (old.get("status"), old.get("reason"), old.get("message")) == (value, reason, message):
        return False
    since = old["lastTransitionTime"] if old is not None and old.get("status") == value else now
    new = {"type": AVAILABLE, "status": value, "lastTransitionTime": since, "reason": reason, "message": message}
    status["conditions"] = [*(c for c in status.get("conditions") or () if c.get("type") != AVAILABLE), new]
    return True
