"""Defaults of resource.k8s.io (dynamic resource allocation). Called by: table.py. Never does: allocate."""

from __future__ import annotations

from k1s.api.meta import Object


def _request(request: Object) -> None:
    if not request.get("allocationMode"):
        request["allocationMode"] = "ExactCount"
    if request["allocationMode"] == "ExactCount" and not request.get("count"):
        request["count"] = 1
    for toleration in request.get("tolerations") or ():
        if not toleration.get("operator"):
            toleration["operator"] = "Equal"


def _claim_spec(spec: Object) -> None:
    for request in (spec.get("devices") or {}).get("requests") or ():
        if request.get("exactly") is not None:
            _request(request["exactly"])
        for choice in request.get("firstAvailable") or ():
            _request(choice)


def resource_claim(obj: Object) -> None:
    _claim_spec(obj.setdefault("spec", {}))
    obj.setdefault("status", {})


def resource_claim_template(obj: Object) -> None:
    template = obj.setdefault("spec", {})
    _claim_spec(template.setdefault("spec", {}))
