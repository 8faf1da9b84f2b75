"""Defaults of flowcontrol.apiserver.k8s.io. Called by: table.py. Never does: the built-in priority levels (bootstrap)."""

from __future__ import annotations

from typing import Any

from k1s.api.meta import Object


def _set(obj: Object, **values: Any) -> None:
    for key, value in values.items():
        if not obj.get(key):
            obj[key] = value


def flow_schema(obj: Object) -> None:
    _set(obj.setdefault("spec", {}), matchingPrecedence=1000)
    obj.setdefault("status", {})


def priority_level(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    exempt, limited = spec.get("exempt"), spec.get("limited")
    if exempt is None and spec.get("type") == "Exempt":
        exempt = spec["exempt"] = {}
    for part, shares in ((exempt, 0), (limited, 30)):
        if part is None:
            continue
        if part.get("nominalConcurrencyShares") is None:
            part["nominalConcurrencyShares"] = shares
        if part.get("lendablePercent") is None:
            part["lendablePercent"] = 0
    queuing = ((limited or {}).get("limitResponse") or {}).get("queuing")
    if queuing is not None:
        _set(queuing, queues=64, handSize=8, queueLengthLimit=50)
    obj.setdefault("status", {})
