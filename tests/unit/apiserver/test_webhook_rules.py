"""Which requests a webhook is asked about: rules, selectors, match policy, conditions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.apiserver.conftest import CMS, DEPLOYMENTS, config_map, deployment
from tests.unit.apiserver.webhook_server import Hooks, patching, webhooks

Object = dict[str, Any]
HPA_V1 = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"


@pytest.fixture
async def hooks(tmp_path: Path) -> AsyncIterator[Hooks]:
    async with webhooks(tmp_path) as hooks:
        yield hooks


def _rule(resources: str = "*", **more: Any) -> Object:
    return {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources.split(","), **more}


@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        (_rule("deployments"), ["", "", ""]),
        (_rule("deployments/scale"), ["scale"]),
        (_rule("deployments/*"), ["", "", "scale", ""]),
        (_rule("*/scale"), ["scale"]),
        (_rule("*/*"), ["", "", "scale", ""]),
        (_rule("*"), ["", "", ""]),
        (_rule("pods,deployments"), ["", "", ""]),
        (_rule("deployments", operations=["CREATE", "DELETE"]), ["", ""]),
        (_rule("deployments", apiGroups=["extensions"]), []),
        (_rule("deployments", apiVersions=["v2"]), []),
        (_rule("deployments", scope="Cluster"), []),
        (_rule("deployments", scope="Namespaced"), ["", "", ""]),
    ],
)
async def test_rules(hooks: Hooks, rule: Object, asked: list[str]) -> None:
    await hooks.validating(hooks.hook("/v", rules=[rule]))
    made = await hooks.api.ok("POST", DEPLOYMENTS, deployment("d"))
    await hooks.api.ok("PUT", f"{DEPLOYMENTS}/d", made | {"spec": {**made["spec"], "paused": True}})
    scale = await hooks.api.ok("GET", f"{DEPLOYMENTS}/d/scale")
    await hooks.api.ok("PUT", f"{DEPLOYMENTS}/d/scale", {**scale, "spec": {"replicas": 5}})
    await hooks.api.ok("DELETE", f"{DEPLOYMENTS}/d")
    assert [body["request"].get("subResource", "") for body in hooks.server.bodies] == asked
    for body in hooks.server.bodies:
        if body["request"].get("subResource"):
            assert body["request"]["object"]["kind"] == body["request"]["kind"]["kind"] == "Scale"


@pytest.mark.parametrize(
    ("selector", "times"),
    [({}, 1), ({"matchLabels": {"team": "a"}}, 1), ({"matchLabels": {"team": "b"}}, 0)],
)
async def test_namespace_selector(hooks: Hooks, selector: Object, times: int) -> None:
    await hooks.validating(hooks.hook("/v", namespaceSelector=selector))
    await hooks.api.ok("POST", CMS, config_map("a"))
    assert len(hooks.calls) == times


async def test_a_namespace_is_selected_by_its_own_labels(hooks: Hooks) -> None:
    await hooks.validating(hooks.hook("/v", rules=[_rule("namespaces")], namespaceSelector={"matchLabels": {"team": "z"}}))
    space: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "z", "labels": {"team": "z"}}}
    await hooks.api.ok("POST", "/api/v1/namespaces", space)
    assert hooks.calls == ["/v"] and hooks.asked()["namespace"] == "z"
    other = {**space, "metadata": {"name": "y"}}
    await hooks.api.ok("POST", "/api/v1/namespaces", other)
    assert hooks.calls == ["/v"]


async def test_object_selector_takes_the_old_object_or_the_new(hooks: Hooks) -> None:
    await hooks.validating(hooks.hook("/v", objectSelector={"matchLabels": {"watch": "me"}}))
    obj = config_map("a")
    await hooks.api.ok("POST", CMS, obj)
    assert hooks.calls == []
    labelled = {**obj, "metadata": {"name": "a", "labels": {"watch": "me"}}}
    await hooks.api.ok("PUT", f"{CMS}/a", labelled)
    await hooks.api.ok("PUT", f"{CMS}/a", obj)
    assert len(hooks.calls) == 2


def _autoscaler() -> Object:
    spec = {
        "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
        "maxReplicas": 3,
        "targetCPUUtilizationPercentage": 70,
    }
    return {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": spec}


async def test_equivalent_versions_are_converted_there_and_back(hooks: Hooks) -> None:
    hooks.on["/m"] = lambda _: patching(
        {"op": "replace", "path": "/spec/metrics/0/resource/target/averageUtilization", "value": 50}
    )
    rule = _rule("horizontalpodautoscalers", apiVersions=["v2"])
    await hooks.mutating(hooks.hook("/m", rules=[rule]), hooks.hook("/exact", rules=[rule], matchPolicy="Exact"))
    made = await hooks.api.ok("POST", HPA_V1, _autoscaler())
    assert hooks.calls == ["/m"] and made["spec"]["targetCPUUtilizationPercentage"] == 50
    asked = hooks.asked()
    assert asked["kind"]["version"] == "v2" and asked["requestKind"]["version"] == "v1"
    assert asked["object"]["apiVersion"] == "autoscaling/v2"


async def test_the_object_comes_in_the_version_of_the_request_if_a_rule_has_it(hooks: Hooks) -> None:
    await hooks.validating(hooks.hook("/v", rules=[_rule("horizontalpodautoscalers", apiVersions=["v1", "v2"])]))
    await hooks.api.ok("POST", HPA_V1, _autoscaler())
    assert hooks.asked()["object"]["apiVersion"] == "autoscaling/v1"
    assert hooks.asked()["object"]["spec"]["targetCPUUtilizationPercentage"] == 70


async def test_match_conditions(hooks: Hooks) -> None:
    conditions = [{"name": "not-me", "expression": "object.metadata.name != 'me'"}]
    await hooks.validating(hooks.hook("/v", matchConditions=conditions))
    await hooks.api.ok("POST", CMS, config_map("me"))
    assert hooks.calls == []
    await hooks.api.ok("POST", CMS, config_map("you"))
    assert hooks.calls == ["/v"]


async def test_a_custom_resource_that_is_stored_in_a_former_version(hooks: Hooks) -> None:
    schema = {
        "openAPIV3Schema": {
            "type": "object",
            "properties": {"data": {"type": "object", "additionalProperties": {"type": "string"}}},
        }
    }
    versions = [{"name": name, "served": True, "storage": name == "v1", "schema": schema} for name in ("v1", "v2")]
    names = {"plural": "boxes", "kind": "Box"}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "boxes.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": versions},
    }
    crds, boxes = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/example.com/v1/namespaces/default/boxes"
    await hooks.api.ok("POST", crds, crd)
    await hooks.api.ok(
        "POST", boxes, {"apiVersion": "example.com/v1", "kind": "Box", "metadata": {"name": "a"}, "data": {"x": "1"}}
    )
    rule = _rule("boxes", apiGroups=["example.com"], apiVersions=["v1"], operations=["UPDATE", "DELETE"])

    def mark(request: Object) -> Object:
        if request["object"] is None:
            return {"allowed": True}
        return patching({"op": "add", "path": "/data/seen", "value": request["object"]["apiVersion"]})

    hooks.on["/m"] = mark
    await hooks.mutating(hooks.hook("/m", rules=[rule]))
    made = await hooks.api.ok("GET", f"{crds}/boxes.example.com")
    made["spec"]["versions"][0]["storage"], made["spec"]["versions"][1]["storage"] = False, True
    await hooks.api.ok("PUT", f"{crds}/boxes.example.com", made)
    patched = await hooks.api.ok("PATCH", f"{boxes}/a", {"data": {"y": "2"}}, type="application/merge-patch+json")
    assert patched["data"] == {"x": "1", "y": "2", "seen": "example.com/v1"} and patched["apiVersion"] == "example.com/v1"
    asked = hooks.asked()
    assert asked["oldObject"]["apiVersion"] == asked["object"]["apiVersion"] == "example.com/v1"
    other = await hooks.api.ok(
        "PATCH", f"{boxes.replace('v1', 'v2')}/a", {"data": {"y": "3"}}, type="application/merge-patch+json"
    )
    assert other["apiVersion"] == "example.com/v2" and other["data"]["y"] == "3"
    await hooks.api.ok("DELETE", f"{boxes}/a")
    assert hooks.asked()["oldObject"]["apiVersion"] == "example.com/v1"
