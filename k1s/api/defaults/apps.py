"""Defaults of apps/v1. Called by: table.py. Never does: copy labels or selectors from templates (apps/v1 does not)."""

from __future__ import annotations

from typing import Any

from k1s.api.defaults.pod import template
from k1s.api.defaults.volumes import claim
from k1s.api.meta import Object


def _rolling(spec: Object, key: str, **values: Any) -> None:
    """The strategy under `key`: RollingUpdate unless said, with its parameters."""
    strategy = spec.setdefault(key, {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] != "RollingUpdate":
        return
    rolling = strategy.get("rollingUpdate")
    if rolling is None:
        rolling = strategy["rollingUpdate"] = dict(values)
    for name, value in values.items():
        if rolling.get(name) is None:
            rolling[name] = value


def _number(spec: Object, key: str, value: int) -> None:
    if spec.get(key) is None:
        spec[key] = value


def deployment(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    template(spec)
    _number(spec, "replicas", 1)
    _rolling(spec, "strategy", maxUnavailable="25%", maxSurge="25%")
    _number(spec, "revisionHistoryLimit", 10)
    _number(spec, "progressDeadlineSeconds", 600)
    obj.setdefault("status", {})


def replica_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    template(spec)
    _number(spec, "replicas", 1)
    obj.setdefault("status", {}).setdefault("replicas", 0)


def daemon_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    template(spec)
    _rolling(spec, "updateStrategy", maxUnavailable=1, maxSurge=0)
    _number(spec, "revisionHistoryLimit", 10)
    status = obj.setdefault("status", {})
    for key in ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"):
        status.setdefault(key, 0)


def stateful_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    template(spec)
    if not spec.get("podManagementPolicy"):
        spec["podManagementPolicy"] = "OrderedReady"
    strategy = spec.setdefault("updateStrategy", {})
    # A RollingUpdate that says no parameters keeps none; only an absent type brings them.
    if not strategy.get("type") or strategy.get("rollingUpdate") is not None:
        _rolling(spec, "updateStrategy", partition=0)
    policy = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    for key in ("whenDeleted", "whenScaled"):
        if not policy.get(key):
            policy[key] = "Retain"
    _number(spec, "replicas", 1)
    _number(spec, "revisionHistoryLimit", 10)
    for item in spec.get("volumeClaimTemplates") or ():
        item.setdefault("apiVersion", "v1")
        item.setdefault("kind", "PersistentVolumeClaim")
        claim(item)
    status = obj.setdefault("status", {})
    status.setdefault("replicas", 0)
    status.setdefault("availableReplicas", 0)
