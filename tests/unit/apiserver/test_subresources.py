"""scale, binding, eviction, ephemeral containers, resize, approval; services' addresses and ports."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.conftest import DEPLOYMENTS, PODS, SERVICES, Api, deployment, pod

MERGE = "application/merge-patch+json"
Object = dict[str, Any]


async def test_scale(api: Api) -> None:
    await api.ok("POST", DEPLOYMENTS, deployment("d", 2))
    scale = await api.ok("GET", f"{DEPLOYMENTS}/d/scale")
    assert scale["kind"] == "Scale" and scale["spec"]["replicas"] == 2 and scale["status"]["selector"] == "app=d"
    scale["spec"]["replicas"] = 4
    assert (await api.ok("PUT", f"{DEPLOYMENTS}/d/scale", scale))["spec"]["replicas"] == 4
    assert (await api("PUT", f"{DEPLOYMENTS}/d/scale", scale)).status == 409
    patched = await api.ok("PATCH", f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 0}}, type=MERGE)
    assert patched["spec"]["replicas"] == 0
    assert (await api.ok("GET", f"{DEPLOYMENTS}/d"))["metadata"]["generation"] == 3
    bad = await api("PATCH", f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": -1}}, type=MERGE)
    assert bad.status == 422
    bad = await api("PATCH", f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": "x"}}, type=MERGE)
    assert bad.status == 422 and "cannot unmarshal string" in bad.json["message"]
    other = {**patched, "metadata": {**patched["metadata"], "uid": "other"}}
    answer = await api("PUT", f"{DEPLOYMENTS}/d/scale", other)
    assert answer.status == 409 and answer.json["message"].startswith(
        'Operation cannot be fulfilled on deployments/scale.apps "d": Precondition failed: UID in precondition: other, UID in '
    )


def binding(name: str, node: str) -> Object:
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": node}}


async def test_binding(api: Api) -> None:
    await api.ok("POST", PODS, pod("p"))
    await api.ok("PATCH", f"{PODS}/p/status", {"status": {"nominatedNodeName": "n1"}}, type=MERGE)
    stale = binding("p", "n1")
    stale["metadata"]["resourceVersion"] = "1"
    refused = await api("POST", f"{PODS}/p/binding", stale)
    assert refused.status == 409 and "Precondition failed: ResourceVersion in precondition: 1," in refused.json["message"]
    assert (await api("POST", f"{PODS}/p/binding?dryRun=All", binding("p", "n1"))).status == 201
    assert "nodeName" not in (await api.ok("GET", f"{PODS}/p"))["spec"]
    assert (await api("POST", f"{PODS}/p/binding", binding("p", "n1"))).status == 201
    bound = await api.ok("GET", f"{PODS}/p")
    assert bound["spec"]["nodeName"] == "n1"
    assert "nominatedNodeName" not in bound["status"]
    scheduled = bound["status"]["conditions"][0]
    assert scheduled["type"] == "PodScheduled" and scheduled["status"] == "True"
    again = await api("POST", f"{PODS}/p/binding", binding("p", "n2"))
    assert again.status == 409 and 'already assigned to node "n1"' in again.json["message"]
    assert (await api("POST", f"{PODS}/q/binding", binding("q", "n"))).status == 404
    assert (await api("POST", f"{PODS}/p/binding", binding("p", ""))).status == 422


async def test_the_old_bindings_collection(api: Api) -> None:
    await api.ok("POST", PODS, pod("p"))
    assert (await api("POST", "/api/v1/namespaces/default/bindings", binding("p", "n1"))).status == 201
    assert (await api.ok("GET", f"{PODS}/p"))["spec"]["nodeName"] == "n1"


async def _running(api: Api, name: str) -> None:
    await api.ok("POST", PODS, pod(name, nodeName="n"))
    status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    await api.ok("PATCH", f"{PODS}/{name}/status", status, type=MERGE)


async def test_eviction_asks_the_budget(api: Api) -> None:
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    await _running(api, "p")
    selector = {"matchLabels": {"app": "p"}}
    await api.ok("POST", budgets, {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": selector}})
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    early = await api("POST", f"{PODS}/p/eviction", eviction)
    assert early.status == 429 and "still being processed" in early.json["details"]["causes"][0]["message"]
    status: Object = {
        "observedGeneration": 1,
        "disruptionsAllowed": 0,
        "currentHealthy": 1,
        "desiredHealthy": 1,
        "expectedPods": 1,
    }
    await api.ok("PATCH", f"{budgets}/b/status", {"status": status}, type=MERGE)
    refused = await api("POST", f"{PODS}/p/eviction", eviction)
    assert refused.status == 429
    assert refused.json["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
    await api.ok("PATCH", f"{budgets}/b/status", {"status": {"disruptionsAllowed": 1}}, type=MERGE)
    dry = await api("POST", f"{PODS}/p/eviction?dryRun=All", eviction)
    assert dry.status == 201 and not (await api.ok("GET", f"{PODS}/p"))["metadata"].get("deletionTimestamp")
    assert (await api("POST", f"{PODS}/p/eviction", eviction)).status == 201
    evicted = await api.ok("GET", f"{PODS}/p")
    assert evicted["metadata"]["deletionTimestamp"]
    why = next(c for c in evicted["status"]["conditions"] if c["type"] == "DisruptionTarget")
    assert (why["status"], why["reason"]) == ("True", "EvictionByEvictionAPI")
    taken = (await api.ok("GET", f"{budgets}/b"))["status"]
    assert taken["disruptionsAllowed"] == 0 and list(taken["disruptedPods"]) == ["p"]


async def test_eviction_without_a_budget(api: Api) -> None:
    await _running(api, "p")
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}, "deleteOptions": {"gracePeriodSeconds": 0}}
    assert (await api("POST", f"{PODS}/p/eviction", body)).status == 201
    assert (await api("GET", f"{PODS}/p")).status == 404


async def test_ephemeral_containers_only_grow(api: Api) -> None:
    await _running(api, "p")
    debug = {"name": "debug", "image": "busybox", "targetContainerName": "c"}
    path = f"{PODS}/p/ephemeralcontainers"
    strategic = "application/strategic-merge-patch+json"
    made = await api.ok("PATCH", path, {"spec": {"ephemeralContainers": [debug]}}, type=strategic)
    assert made["spec"]["ephemeralContainers"][0]["name"] == "debug"
    gone = await api("PATCH", path, {"spec": {"ephemeralContainers": None}}, type=MERGE)
    assert gone.status == 422
    clash = await api("PATCH", path, {"spec": {"ephemeralContainers": [{**debug, "name": "c"}]}}, type=strategic)
    assert clash.status == 422 and "Duplicate value" in clash.json["message"]
    by_main = await api("PATCH", f"{PODS}/p", {"spec": {"ephemeralContainers": [{**debug, "name": "e"}]}}, type=strategic)
    assert by_main.status == 422


async def test_resize(api: Api) -> None:
    resources = {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}
    await api.ok("POST", PODS, pod("p", nodeName="n", containers=[{"name": "c", "image": "i", "resources": resources}]))
    patch = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "150m"}}}]}}
    strategic = "application/strategic-merge-patch+json"
    assert (await api("PATCH", f"{PODS}/p", patch, type=strategic)).status == 422
    resized = await api.ok("PATCH", f"{PODS}/p/resize", patch, type=strategic)
    assert resized["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "150m"}
    assert resized["metadata"]["generation"] == 2


async def test_services_get_addresses_and_ports(api: Api) -> None:
    ports = [{"port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    ports[0]["name"] = "http"
    made = await api.ok("POST", SERVICES, {"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": ports}})
    spec = made["spec"]
    assert spec["clusterIP"].startswith("10.43.") and spec["clusterIPs"] == [spec["clusterIP"]]
    numbers = [p["nodePort"] for p in spec["ports"]]
    assert len(set(numbers)) == 2 and all(30000 <= n <= 32767 for n in numbers)
    taken = {"metadata": {"name": "b"}, "spec": {"clusterIP": spec["clusterIP"], "ports": [{"port": 1}]}}
    answer = await api("POST", SERVICES, taken)
    assert answer.status == 422 and "provided IP is already allocated" in answer.json["message"]
    taken = {"metadata": {"name": "b"}, "spec": {"type": "NodePort", "ports": [{"port": 1, "nodePort": numbers[0]}]}}
    answer = await api("POST", SERVICES, taken)
    assert answer.status == 422 and "provided port is already allocated" in answer.json["message"]
    outside = {"metadata": {"name": "b"}, "spec": {"clusterIP": "1.2.3.4", "ports": [{"port": 1}]}}
    assert "not in the valid range" in (await api("POST", SERVICES, outside)).json["message"]
    back = await api.ok("PATCH", f"{SERVICES}/a", {"spec": {"type": "ClusterIP"}}, type=MERGE)
    assert back["spec"]["clusterIP"] == spec["clusterIP"] and all("nodePort" not in p for p in back["spec"]["ports"])


async def test_reserved_addresses_are_for_those_who_name_them(api: Api) -> None:
    dns = {"metadata": {"name": "dns"}, "spec": {"clusterIP": "10.43.0.10", "ports": [{"port": 53}]}}
    assert (await api.ok("POST", SERVICES, dns))["spec"]["clusterIP"] == "10.43.0.10"
    headless = {"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 53}]}}
    assert (await api.ok("POST", SERVICES, headless))["spec"]["clusterIPs"] == ["None"]
    external = {"metadata": {"name": "e"}, "spec": {"type": "ExternalName", "externalName": "example.com"}}
    assert "clusterIP" not in (await api.ok("POST", SERVICES, external))["spec"]
    await api.ok("DELETE", f"{SERVICES}/dns")
    assert (await api.ok("POST", SERVICES, dns))["spec"]["clusterIP"] == "10.43.0.10"


async def test_signing_requests_say_who_asked(api: Api) -> None:
    path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    spec = {"request": "aGk=", "signerName": "example.com/s", "usages": ["client auth"], "username": "somebody-else"}
    answer = await api("POST", path, {"metadata": {"name": "c"}, "spec": spec})
    if answer.status == 422:
        return  # validation wants a real request; who asked is checked where one is made
    assert answer.json["spec"]["username"] == "admin"
    condition = {"type": "Approved", "status": "True", "reason": "r"}
    sneaky = await api.ok("PATCH", f"{path}/c/status", {"status": {"conditions": [condition]}}, type=MERGE)
    assert not sneaky["status"].get("conditions")
    approved = await api.ok("PATCH", f"{path}/c/approval", {"status": {"conditions": [condition]}}, type=MERGE)
    assert approved["status"]["conditions"][0]["type"] == "Approved"


@pytest.mark.parametrize(
    ("address", "proxied"),
    [
        ("10.42.0.5", True),
        ("fd00:42::5", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("169.254.169.254", False),
        ("fe80::1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("localhost", False),
    ],
)
def test_addresses_that_a_pod_does_not_have(address: str, proxied: bool) -> None:
    from k1s.server.apiserver.subresources.proxy import _is_proxyable

    assert _is_proxyable(address) == proxied
