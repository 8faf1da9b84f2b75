"""Versions of one kind: there and back again."""

from __future__ import annotations

from typing import Any

from k1s.api.catalog import builtin, builtin_catalog
from k1s.api.clone import clone
from k1s.api.convert import convert

Object = dict[str, Any]

_CATALOG = builtin_catalog()
V1 = _CATALOG.by_kind("autoscaling", "v1", "HorizontalPodAutoscaler")
V2 = builtin("HorizontalPodAutoscaler")
CORE, EVENTS = builtin("Event", ""), builtin("Event", "events.k8s.io")


def there_and_back(obj: Object, source: Any, target: Any) -> Object:
    before = clone(obj)
    out = convert(convert(obj, source, target), target, source)
    assert obj == before, "what is converted does not change"
    return out


def hpa(**spec: Any) -> Object:
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": spec}


def cpu(percent: int) -> Object:
    return {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}


def test_cpu_target_is_a_field_in_v1() -> None:
    assert V1 is not None
    obj = hpa(maxReplicas=3, metrics=[cpu(80)])
    out = convert(obj, V2, V1)
    assert out["apiVersion"] == "autoscaling/v1"
    assert out["spec"] == {"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}
    assert "annotations" not in out["metadata"]
    assert there_and_back(obj, V2, V1) == obj


def test_the_rest_survives_in_annotations() -> None:
    obj = hpa(
        maxReplicas=3,
        metrics=[
            cpu(50),
            {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
            {
                "type": "Pods",
                "pods": {
                    "metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}},
                    "target": {"type": "AverageValue", "averageValue": "1"},
                },
            },
            {
                "type": "Object",
                "object": {
                    "metric": {"name": "m"},
                    "describedObject": {"kind": "Service", "name": "s", "apiVersion": "v1"},
                    "target": {"type": "Value", "value": "2"},
                },
            },
            {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "30"}}},
        ],
        behavior={"scaleDown": {"stabilizationWindowSeconds": 10}},
    )
    obj["metadata"]["annotations"] = {"mine": "x"}
    obj["status"] = {
        "currentReplicas": 1,
        "conditions": [{"type": "AbleToScale", "status": "True"}],
        "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7}}}],
    }
    assert V1 is not None
    v1 = convert(obj, V2, V1)
    assert v1["status"] == {"currentReplicas": 1, "currentCPUUtilizationPercentage": 7}
    assert there_and_back(obj, V2, V1) == obj


def test_events() -> None:
    obj = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "involvedObject": {"name": "p"},
        "message": "m",
        "count": 2,
        "source": {"component": "c"},
        "firstTimestamp": "t",
        "reportingComponent": "r",
        "type": "Normal",
    }
    new = convert(obj, CORE, EVENTS)
    assert (new["apiVersion"], new["note"], new["regarding"], new["deprecatedCount"]) == (
        "events.k8s.io/v1",
        "m",
        {"name": "p"},
        2,
    )
    assert new["reportingController"] == "r" and "message" not in new
    assert there_and_back(obj, CORE, EVENTS) == obj
