"""The API's machinery as client libraries rely on it: watches, chunks, tables, validation, collections, garbage, quotas."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from .api import APPLY, JSON_PATCH, STRATEGIC, Api, Refused
from .conftest import Cluster, eventually

BUSYBOX = "docker.io/library/busybox:1.36"
Object = dict[str, Any]


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Iterator[Api]:
    made = Api(cluster)
    yield made
    made.close()


@pytest.fixture
def here(cluster: Cluster, namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}"


def config_map(name: str, **labels: str) -> Object:
    return {"metadata": {"name": name, "labels": labels}, "data": {"a": "1"}}


def refused(code: int, call: Any, *arguments: Any, **options: Any) -> Object:
    with pytest.raises(Refused) as caught:
        call(*arguments, **options)
    assert caught.value.code == code, caught.value
    return caught.value.status


def events(watch: Iterator[tuple[str, Object]], count: int) -> list[tuple[str, str]]:
    seen = []
    for kind, obj in watch:
        if kind != "BOOKMARK":
            seen.append((kind, obj["metadata"]["name"]))
        if len(seen) == count:
            break
    return seen


def test_watch_resumes_and_follows_labels(api: Api, here: str) -> None:
    maps = f"{here}/configmaps"
    first = api.post(maps, config_map("m", watched="yes"))
    start = first["metadata"]["resourceVersion"]
    api.patch(f"{maps}/m", {"data": {"a": "2"}})
    api.patch(f"{maps}/m", {"metadata": {"labels": {"watched": "no"}}})
    api.patch(f"{maps}/m", {"data": {"a": "3"}})
    api.patch(f"{maps}/m", {"metadata": {"labels": {"watched": "yes"}}})
    api.delete(f"{maps}/m")
    expected = [(kind, "m") for kind in ("MODIFIED", "DELETED", "ADDED", "DELETED")]
    assert events(api.watch(maps, labelSelector="watched=yes", resourceVersion=start), 4) == expected
    # All watchers see the same order.
    one, two = (list(api.watch(maps, 1, resourceVersion=start, timeoutSeconds=1)) for _ in range(2))
    assert [o["metadata"]["resourceVersion"] for _, o in one] == [o["metadata"]["resourceVersion"] for _, o in two]


def test_watch_list_sends_what_is_there_then_a_bookmark(api: Api, here: str) -> None:
    api.post(f"{here}/configmaps", config_map("m"))
    seen = []
    query: Any = {"sendInitialEvents": "true", "allowWatchBookmarks": "true", "resourceVersionMatch": "NotOlderThan"}
    for kind, obj in api.watch(f"{here}/configmaps", labelSelector="!x", **query):
        seen.append(kind)
        if kind == "BOOKMARK":
            assert obj["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"
            break
    assert seen[-1] == "BOOKMARK" and "ADDED" in seen


def test_chunks_and_a_token_of_another_world(api: Api, here: str) -> None:
    for index in range(7):
        api.post(f"{here}/podtemplates", {
            "metadata": {"name": f"t{index}"},
            "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}},
        })  # fmt: skip
    names: list[str] = []
    token, versions = "", set()
    while True:
        page = api.get(f"{here}/podtemplates", limit=3, **({"continue": token} if token else {}))
        names += [item["metadata"]["name"] for item in page["items"]]
        versions.add(page["metadata"]["resourceVersion"])
        token = page["metadata"].get("continue", "")
        if not token:
            break
        left = page["metadata"].get("remainingItemCount")
        assert left == 7 - len(names)
    assert names == [f"t{i}" for i in range(7)] and len(versions) == 1
    refused(400, api.get, f"{here}/podtemplates", limit=3, **{"continue": "nonsense"})


def test_tables(api: Api, here: str) -> None:
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    _, pods = api.call("GET", f"{here}/pods", accept=table)
    assert pods["kind"] == "Table" and pods["columnDefinitions"][0]["name"] == "Name"
    api.post(f"{here}/podtemplates", {
        "metadata": {"name": "t"}, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}},
    })  # fmt: skip
    _, one = api.call("GET", f"{here}/podtemplates/t", accept=table)
    assert one["rows"][0]["cells"][0] == "t" and one["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert refused(406, api.call, "POST", path, review, accept=table)["reason"] == "NotAcceptable"


def test_field_validation(api: Api, here: str, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    good: Any = {
        "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template, "replicas": 0},
    }
    bad: Object = {**good, "spec": {**good["spec"], "unknownField": "x"}}
    text = refused(400, api.post, path, bad, fieldValidation="Strict")["message"]
    assert 'strict decoding error: unknown field "spec.unknownField"' in text
    twice = json.dumps(good).replace('"replicas": 0', '"replicas": 0, "replicas": 1')
    assert 'duplicate field "spec.replicas"' in refused(400, api.post, path, twice, fieldValidation="Strict")["message"]
    headers, _ = api.call("POST", path, bad, fieldValidation="Warn")
    assert headers["Warning"] == '299 - "unknown field \\"spec.unknownField\\""'
    headers, _ = api.call("PATCH", f"{path}/d", {"spec": {"foo": 1}}, kind=STRATEGIC, fieldValidation="Ignore")
    assert headers["Warning"] is None
    assert "foo" in refused(422, api.patch, f"{path}/d", {"spec": {"foo": 1}}, fieldValidation="Strict")["message"]
    applied = {"apiVersion": "apps/v1", "kind": "Deployment", **bad}
    text = refused(400, api.patch, f"{path}/d", applied, APPLY, fieldManager="m", fieldValidation="Strict")["message"]
    assert "unknownField" in text
    assert api.delete(f"{path}/d")["status"] == "Success"


def test_discovery(api: Api) -> None:
    groups = api.get("/apis")["groups"]
    for group in groups:
        assert group["preferredVersion"] in group["versions"]
        for version in group["versions"]:
            resources = api.get(f"/apis/{version['groupVersion']}")
            assert resources["groupVersion"] == version["groupVersion"] and resources["resources"]
    wanted = {"apps", "batch", "autoscaling", "policy", "node.k8s.io", "coordination.k8s.io", "events.k8s.io"}
    wanted |= {"flowcontrol.apiserver.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "discovery.k8s.io"}
    assert wanted <= {g["name"] for g in groups}
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    _, together = api.call("GET", "/apis", accept=accept)
    assert together["kind"] == "APIGroupDiscoveryList" and len(together["items"]) == len(groups)
    api.get("/openapi/v2")
    assert "apis/apps/v1" in api.get("/openapi/v3")["paths"]


def test_events_in_both_groups(api: Api, here: str, namespace: str) -> None:
    regarding = {"kind": "Pod", "namespace": namespace, "name": "p"}
    api.post(f"{here}/events", {
        "metadata": {"name": "core", "labels": {"t": "1"}}, "involvedObject": regarding, "reason": "R", "message": "m",
        "type": "Normal", "source": {"component": "c"}, "count": 1,
    })  # fmt: skip
    new = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    stamp = "2026-11-01T10:00:00.123456Z"
    api.post(new, {
        "metadata": {"name": "new", "labels": {"t": "1"}}, "regarding": regarding, "reason": "R", "note": "n",
        "type": "Normal", "action": "Do", "reportingController": "c", "reportingInstance": "i", "eventTime": stamp,
    })  # fmt: skip
    assert {e["metadata"]["name"] for e in api.get(new, labelSelector="t=1")["items"]} == {"core", "new"}
    assert api.get(f"{new}/core")["note"] == "m"
    series = {"count": 2, "lastObservedTime": stamp}
    assert api.patch(f"{new}/new", {"series": series})["series"] == series
    assert api.get(f"{here}/events", fieldSelector="reason=R,involvedObject.name=p")["items"]
    api.delete(new, labelSelector="t=1")
    assert api.get(f"{here}/events", labelSelector="t=1")["items"] == []


def test_collections_dry_runs_and_status_writes(api: Api, here: str, namespace: str) -> None:
    for name in ("a", "b", "c"):
        api.post(f"{here}/secrets", {"metadata": {"name": name, "labels": {"x": "y" if name != "c" else "z"}}})
    api.delete(f"{here}/secrets", labelSelector="x=y", dryRun="All")
    assert len(api.get(f"{here}/secrets", labelSelector="x")["items"]) == 3
    api.delete(f"{here}/secrets", labelSelector="x=y")
    assert [s["metadata"]["name"] for s in api.get(f"{here}/secrets", labelSelector="x")["items"]] == ["c"]
    api.post(f"{here}/configmaps", config_map("dry"), dryRun="All")
    refused(404, api.get, f"{here}/configmaps/dry")
    condition = {"type": "StatusPatched", "status": "True", "reason": "E2E", "message": "m"}
    patched = api.patch(f"/api/v1/namespaces/{namespace}/status", {"status": {"conditions": [condition]}})
    assert patched["status"]["conditions"][0]["type"] == "StatusPatched"
    operations = [{"op": "add", "path": "/metadata/annotations", "value": {"k": "v"}}]
    assert api.patch(f"/api/v1/namespaces/{namespace}", operations, JSON_PATCH)["metadata"]["annotations"] == {"k": "v"}


@pytest.mark.parametrize(("policy", "survives"), [("Background", False), ("Foreground", False), ("Orphan", True)], ids=str)
def test_garbage(api: Api, here: str, policy: str, survives: bool) -> None:
    owner = api.post(f"{here}/configmaps", config_map("owner"))["metadata"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["uid"], "blockOwnerDeletion": True}
    api.post(f"{here}/configmaps", {"metadata": {"name": "child", "ownerReferences": [reference]}})
    api.delete(f"{here}/configmaps/owner", {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy})

    def names() -> set[str]:
        return {m["metadata"]["name"] for m in api.get(f"{here}/configmaps")["items"]} - {"kube-root-ca.crt"}

    eventually(lambda: names() == ({"child"} if survives else set()), 15)
    if survives:
        eventually(lambda: not api.get(f"{here}/configmaps/child")["metadata"].get("ownerReferences"), 5)


def test_garbage_in_a_circle(api: Api, here: str) -> None:
    maps = [api.post(f"{here}/configmaps", config_map(name))["metadata"] for name in ("one", "two", "three")]
    for index, meta in enumerate(maps):
        other = maps[(index + 1) % 3]
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": other["name"], "uid": other["uid"]}
        api.patch(f"{here}/configmaps/{meta['name']}", {"metadata": {"ownerReferences": [reference]}})
    api.delete(f"{here}/configmaps/one")
    eventually(lambda: len(api.get(f"{here}/configmaps")["items"]) == 1, 15, "the circle is gone")


QUOTA_OBJECTS: list[tuple[str, Object]] = [
    ("configmaps", config_map("q")),
    ("secrets", {"metadata": {"name": "q"}}),
    ("services", {"metadata": {"name": "q"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}),
    ("persistentvolumeclaims", {
        "metadata": {"name": "q"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}},
    }),
    ("replicationcontrollers", {"metadata": {"name": "q"}, "spec": {"replicas": 0, "selector": {"a": "b"}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
    }}}),
]  # fmt: skip


def test_quota_follows_every_kind(api: Api, here: str) -> None:
    before = len(api.get(f"{here}/configmaps")["items"])
    hard = {plural: "5" for plural, _ in QUOTA_OBJECTS} | {"services.nodeports": "1", "requests.storage": "2Gi", "pods": "1"}
    hard |= {"count/configmaps": "9", "requests.cpu": "1", "services.loadbalancers": "0"}
    api.post(f"{here}/resourcequotas", {"metadata": {"name": "quota"}, "spec": {"hard": hard}})

    def used() -> Any:
        return api.get(f"{here}/resourcequotas/quota").get("status", {}).get("used", {})

    eventually(lambda: used().get("configmaps") == str(before), 10)
    for plural, body in QUOTA_OBJECTS:
        api.post(f"{here}/{plural}", body)
    expected = {plural: "1" for plural, _ in QUOTA_OBJECTS} | {"configmaps": str(before + 1), "services.nodeports": "1"}
    expected |= {"requests.storage": "1Gi", "count/configmaps": str(before + 1)}
    eventually(lambda: {k: used().get(k) for k in expected} == expected, 10)
    second = {"metadata": {"name": "q2"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}
    text = refused(403, api.post, f"{here}/services", second)["message"]
    assert (
        "exceeded quota: quota, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1"
        in text
    )
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": BUSYBOX}]}}
    assert "must specify requests.cpu" in refused(403, api.post, f"{here}/pods", pod)["message"]
    for plural, _ in QUOTA_OBJECTS:
        api.delete(f"{here}/{plural}/q")
    eventually(lambda: (used().get("secrets"), used().get("requests.storage")) == ("0", "0"), 15)


def test_quota_scopes(api: Api, here: str) -> None:
    for scope in ("BestEffort", "NotBestEffort", "Terminating", "NotTerminating"):
        spec = {"hard": {"pods": "5"}, "scopes": [scope]}
        api.post(f"{here}/resourcequotas", {"metadata": {"name": scope.lower()}, "spec": spec})
    pod = {"metadata": {"name": "p"}, "spec": {
        "schedulerName": "nobody", "activeDeadlineSeconds": 3600, "containers": [{"name": "c", "image": "i"}],
    }}  # fmt: skip
    eventually(lambda: all(q.get("status", {}).get("used") for q in api.get(f"{here}/resourcequotas")["items"]), 10)
    api.post(f"{here}/pods", pod)

    def used() -> Any:
        return {q["metadata"]["name"]: q["status"]["used"]["pods"] for q in api.get(f"{here}/resourcequotas")["items"]}

    expected = {"besteffort": "1", "notbesteffort": "0", "terminating": "1", "notterminating": "0"}
    eventually(lambda: used() == expected, 10)
    api.delete(f"{here}/pods/p", gracePeriodSeconds=0)
    eventually(lambda: set(used().values()) == {"0"}, 10)


def test_limit_range(api: Api, here: str) -> None:
    limit = {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "min": {"cpu": "50m"},
             "max": {"cpu": "1"}}  # fmt: skip
    api.post(f"{here}/limitranges", {"metadata": {"name": "l"}, "spec": {"limits": [limit]}})
    time.sleep(0.3)
    pod = {"metadata": {"name": "p"}, "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "i"}]}}
    made = api.post(f"{here}/pods", pod)["spec"]["containers"][0]["resources"]
    assert made == {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}
    pod["metadata"] = {"name": "big"}
    pod["spec"] = {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "2"}}}]}
    text = refused(403, api.post, f"{here}/pods", pod)["message"]
    assert "minimum cpu usage per Container is 50m, but request is 10m" in text
    assert "maximum cpu usage per Container is 1, but limit is 2" in text


def test_namespace_deletion_in_order(api: Api, cluster: Cluster) -> None:
    api.post("/api/v1/namespaces", {"metadata": {"name": "going"}})
    here = "/api/v1/namespaces/going"
    eventually(lambda: api.get(f"{here}/serviceaccounts/default"), 5)
    held = {"metadata": {"name": "p", "finalizers": ["example.com/hold"]},
            "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "i"}]}}  # fmt: skip
    api.post(f"{here}/pods", held)
    api.post(f"{here}/configmaps", config_map("last"))
    api.delete(here)
    eventually(lambda: api.get(here)["status"]["phase"] == "Terminating", 5)
    eventually(lambda: api.get(f"{here}/pods/p")["metadata"].get("deletionTimestamp"), 10)
    time.sleep(1)
    assert api.get(f"{here}/configmaps/last")["metadata"].get("deletionTimestamp") is None, "pods go first"
    refused(403, api.post, f"{here}/configmaps", config_map("late"))
    conditions = {c["type"]: c["status"] for c in api.get(here)["status"].get("conditions") or []}
    assert conditions.get("NamespaceContentRemaining") == "True", conditions
    api.patch(f"{here}/pods/p", {"metadata": {"finalizers": None}})

    def gone() -> bool:
        try:
            api.get(here)
        except Refused as error:
            return error.code == 404
        return False

    eventually(gone, 30)
