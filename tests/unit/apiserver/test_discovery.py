"""What upstream v1.37 serves without any flag: groups, versions, their order, and the small print of their rows."""

from __future__ import annotations

from tests.unit.apiserver.conftest import Api

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
# By priority, as upstream's aggregated discovery has them.
GROUPS = [
    "apiregistration.k8s.io/v1",
    "apps/v1",
    "events.k8s.io/v1",
    "authentication.k8s.io/v1",
    "authorization.k8s.io/v1",
    "autoscaling/v2",
    "autoscaling/v1",
    "batch/v1",
    "certificates.k8s.io/v1",
    "networking.k8s.io/v1",
    "policy/v1",
    "rbac.authorization.k8s.io/v1",
    "storage.k8s.io/v1",
    "admissionregistration.k8s.io/v1",
    "apiextensions.k8s.io/v1",
    "scheduling.k8s.io/v1",
    "coordination.k8s.io/v1",
    "node.k8s.io/v1",
    "discovery.k8s.io/v1",
    "flowcontrol.apiserver.k8s.io/v1",
    "resource.k8s.io/v1",
    "storagemigration.k8s.io/v1",
]
# As every cluster of upstream's shows them.
HASHES = {
    "configmaps": "qFsyl6wFWjQ=",
    "endpoints": "fWeeMqaN/OA=",
    "events": "r2yiGXH7wu8=",
    "namespaces": "Q3oi5N2YM8M=",
    "nodes": "XwShjMxG9Fs=",
    "pods": "xPOwRZ+Yhw8=",
    "secrets": "S6u1pOWzb84=",
    "serviceaccounts": "pbx9ZvyFpBE=",
    "services": "0/CO1lhkEBI=",
}
# Subresources with a kind of another group than their resource's.
FOREIGN = {
    ("", "pods", "eviction"): ("policy", "v1", "Eviction"),
    ("", "serviceaccounts", "token"): ("authentication.k8s.io", "v1", "TokenRequest"),
    ("", "replicationcontrollers", "scale"): ("autoscaling", "v1", "Scale"),
    ("apps", "deployments", "scale"): ("autoscaling", "v1", "Scale"),
    ("apps", "replicasets", "scale"): ("autoscaling", "v1", "Scale"),
    ("apps", "statefulsets", "scale"): ("autoscaling", "v1", "Scale"),
}


async def test_the_groups_and_their_order(api: Api) -> None:
    found = (await api.ok("GET", "/apis", Accept=AGGREGATED))["items"]
    assert [f"{item['metadata']['name']}/{v['version']}" for item in found for v in item["versions"]] == GROUPS
    legacy = (await api.ok("GET", "/apis"))["groups"]
    assert [version["groupVersion"] for group in legacy for version in group["versions"]] == GROUPS
    assert {group["name"]: group["preferredVersion"]["version"] for group in legacy}["autoscaling"] == "v2"


async def test_kinds_of_other_groups(api: Api) -> None:
    found = {}
    for root in ("/api", "/apis"):
        for item in (await api.ok("GET", root, Accept=AGGREGATED))["items"]:
            group, version = item["metadata"].get("name") or "", item["versions"][0]
            for row in version["resources"]:
                for sub in row.get("subresources") or ():
                    kind = sub["responseKind"]
                    # An empty group and version mean those of the resource.
                    if kind.get("group") and kind["group"] != group:
                        found[group, row["resource"], sub["subresource"]] = (kind["group"], kind["version"], kind["kind"])
    assert found == FOREIGN


async def test_the_hashes_of_storage_versions(api: Api) -> None:
    rows = {row["name"]: row for row in (await api.ok("GET", "/api/v1"))["resources"]}
    assert {name: rows[name].get("storageVersionHash") for name in HASHES} == HASHES
    # What is stored nowhere has none.
    assert [name for name in ("bindings", "componentstatuses", "pods/status") if "storageVersionHash" in rows[name]] == []
    assert (rows["componentstatuses"]["verbs"], rows["bindings"]["verbs"]) == (["get", "list"], ["create"])


async def test_the_versions_that_are_deprecated_say_so(api: Api) -> None:
    answer = await api("GET", "/api/v1/endpoints")
    assert answer.warnings == ['299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"']
    answer = await api("GET", "/api/v1/componentstatuses")
    assert answer.warnings == ['299 - "v1 ComponentStatus is deprecated in v1.19+"']
