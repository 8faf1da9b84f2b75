"""Reading requests: paths, Accept, protobuf, flow control, discovery, health; and what no client may break."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import orjson
import pytest

from k1s.api.catalog import builtin_catalog
from k1s.api.errors import ApiError
from k1s.api.protobuf import decode_protobuf
from k1s.base.http import Headers, Request
from k1s.server.apiserver.attributes import RequestInfo
from k1s.server.apiserver.negotiation import accepted
from k1s.server.apiserver.registry import Registry
from k1s.server.apiserver.request_info import parse
from tests.unit.apiserver.conftest import CMS, Api, config_map, running

CATALOG = builtin_catalog()

# method, path with query -> verb, group, plural, namespace, name, subresource
INFOS = [
    ("GET", "/api/v1/pods", "list", "", "pods", "", "", ""),
    ("GET", "/api/v1/namespaces/n/pods", "list", "", "pods", "n", "", ""),
    ("GET", "/api/v1/namespaces/n/pods?watch=true", "watch", "", "pods", "n", "", ""),
    ("GET", "/api/v1/namespaces/n/pods?watch=0", "list", "", "pods", "n", "", ""),
    ("GET", "/api/v1/namespaces/n/pods/p", "get", "", "pods", "n", "p", ""),
    ("HEAD", "/api/v1/namespaces/n/pods/p", "get", "", "pods", "n", "p", ""),
    ("POST", "/api/v1/namespaces/n/pods/p/exec", "create", "", "pods", "n", "p", "exec"),
    ("PUT", "/apis/apps/v1/namespaces/n/deployments/d/scale", "update", "apps", "deployments", "n", "d", "scale"),
    ("PATCH", "/apis/apps/v1/namespaces/n/deployments/d", "patch", "apps", "deployments", "n", "d", ""),
    ("DELETE", "/api/v1/namespaces/n/pods", "deletecollection", "", "pods", "n", "", ""),
    ("DELETE", "/api/v1/namespaces/n/pods/p", "delete", "", "pods", "n", "p", ""),
    ("GET", "/api/v1/namespaces", "list", "", "namespaces", "", "", ""),
    ("GET", "/api/v1/namespaces/n", "get", "", "namespaces", "n", "n", ""),
    ("PUT", "/api/v1/namespaces/n/finalize", "update", "", "namespaces", "n", "n", "finalize"),
    ("PUT", "/api/v1/namespaces/n/status", "update", "", "namespaces", "n", "n", "status"),
    ("GET", "/api/v1/watch/namespaces/n/pods/p", "watch", "", "pods", "n", "p", ""),
    ("GET", "/api/v1/watch/pods", "watch", "", "pods", "", "", ""),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name=x", "list", "", "pods", "", "x", ""),
    ("GET", "/api/v1/nodes/n/proxy/a/b", "get", "", "nodes", "", "n", "proxy"),
    ("GET", "/apis/example.com/v1/wibbles", "list", "example.com", "wibbles", "", "", ""),
]


def _request(method: str, target: str, **headers: str) -> Request:
    path, _, query = target.partition("?")
    pairs = [tuple(part.split("=", 1)) for part in query.split("&") if part]
    return Request(method, path, pairs, Headers((k.replace("_", "-"), v) for k, v in headers.items()))  # type: ignore[arg-type]


@pytest.mark.parametrize("row", INFOS, ids=[f"{r[0]} {r[1]}" for r in INFOS])
def test_request_info(row: tuple[str, ...]) -> None:
    info = parse(_request(row[0], row[1]), CATALOG)
    assert info.is_resource
    assert (info.verb, info.group, info.plural, info.namespace, info.name, info.subresource) == row[2:]


@pytest.mark.parametrize("path", ["/", "/healthz", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/version"])
def test_paths_that_are_no_resources(path: str) -> None:
    info = parse(_request("GET", path), CATALOG)
    assert not info.is_resource and info.verb == "get" and info.resource is None


def test_the_tail_of_a_proxy() -> None:
    assert parse(_request("GET", "/api/v1/namespaces/proxy/pods/p:80/proxy/a/proxy/b"), CATALOG).tail == "/a/proxy/b"


def test_proxies_pass_options_on() -> None:
    async def proxied(*_: object) -> None: ...

    registry = Registry({("", "pods", "proxy"): proxied})  # type: ignore[dict-item]
    path = "/api/v1/namespaces/d/pods/p"
    assert registry.find(parse(_request("OPTIONS", f"{path}/proxy/"), CATALOG)) is proxied
    with pytest.raises(ApiError) as refused:
        registry.find(parse(_request("OPTIONS", path), CATALOG))
    assert refused.value.code == 405


TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
ACCEPTS: list[tuple[str, tuple[bool, str] | None]] = [
    ("", (False, "")),
    ("*/*", (False, "")),
    ("application/vnd.kubernetes.protobuf,application/json", (False, "")),
    ("application/vnd.kubernetes.protobuf", None),
    ("text/html", None),
    ("text/html, */*;q=0.1", (False, "")),
    ("application/yaml", (True, "")),
    ("application/json;q=0.5,application/yaml", (True, "")),
    (TABLE, (False, "Table")),
    (f"{TABLE},application/json", (False, "Table")),
    ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", (False, "Table")),
    ("application/json;as=Wibble;v=v1;g=meta.k8s.io", None),
    ("application/json;stream=watch", (False, "")),
    ("application/json;q=wibble", None),
]


@pytest.mark.parametrize(("accept", "expected"), ACCEPTS)
def test_negotiation(accept: str, expected: tuple[bool, str] | None) -> None:
    request = _request("GET", "/x", Accept=accept) if accept else _request("GET", "/x")
    if expected is None:
        with pytest.raises(ApiError) as refusal:
            accepted(request, "Table")
        assert refusal.value.code == 406
    else:
        media = accepted(request, "Table")
        assert (media.yaml, media.as_) == expected


# `kubectl create namespace foo`, as kubectl 1.37 sends it.
NAMESPACE = bytes.fromhex(
    "6b3873000a0f0a02763112094e616d657370616365121b0a130a03666f6f12001a0022002a0032003800420012001a020a001a002200"
)


def test_protobuf() -> None:
    obj = decode_protobuf(NAMESPACE)
    assert obj == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "foo"}, "spec": {}, "status": {}}


@pytest.mark.parametrize("cut", range(0, len(NAMESPACE), 3))
async def test_broken_protobuf_is_the_clients_fault(api: Api, cut: int) -> None:
    answer = await api("POST", "/api/v1/namespaces", NAMESPACE[:cut], type="application/vnd.kubernetes.protobuf")
    assert answer.status in (201, 400, 422), answer.raw


async def test_protobuf_through_the_api(api: Api) -> None:
    answer = await api("POST", "/api/v1/namespaces", NAMESPACE, type="application/vnd.kubernetes.protobuf")
    assert answer.status == 201 and answer.json["status"]["phase"] == "Active"


WRONG: list[Any] = [None, 1, -1, 1.5, True, "x", [], {}, [[]], {"a": {"b": None}}]


@pytest.mark.parametrize("kind", ["Pod", "Deployment", "Service", "Node", "Secret", "Job", "Role", "CustomResourceDefinition"])
async def test_wrong_types_are_never_our_fault(api: Api, kind: str) -> None:
    resource = next(r for r in CATALOG if r.kind == kind)
    path = resource.path("default" if resource.namespaced else "")
    for field in ("metadata", "spec", "status", "data", "stringData", "rules", "type"):
        for value in WRONG:
            body = {"metadata": {"name": "x"}, field: value}
            answer = await api("POST", f"{path}?dryRun=All", body)
            assert answer.status < 500, (field, value, answer.raw)
    for field in ("containers", "template", "selector", "ports", "versions", "names", "podCIDRs", "taints", "volumes"):
        for value in WRONG:
            answer = await api("POST", f"{path}?dryRun=All", {"metadata": {"name": "x"}, "spec": {field: value}})
            assert answer.status < 500, (field, value, answer.raw)


async def test_a_defect_is_answered_500_and_logged_once(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("boom")

    api.server.hub.cache = broken  # type: ignore[method-assign, assignment]
    with caplog.at_level(logging.ERROR):
        answer = await api("GET", f"{CMS}/a")
    assert answer.status == 500 and answer.json["reason"] == "InternalError"
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1


async def test_health(api: Api) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/readyz/ping"):
        assert (await api("GET", path)).raw == b"ok"
    assert b"[+]ping ok" in (await api("GET", "/readyz?verbose")).raw
    api.server.add_check("thing", lambda: "broken")
    answer = await api("GET", "/readyz")
    assert answer.status == 500 and b"[-]thing failed: reason withheld\n" in answer.raw
    assert (await api("GET", "/readyz?exclude=thing")).status == 200
    assert (await api("GET", "/readyz/none")).status == 404


async def test_version_and_metrics(api: Api) -> None:
    assert (await api.ok("GET", "/version"))["minor"] == "37"
    await api("GET", CMS)
    text = (await api("GET", "/metrics")).raw.decode()
    labels = 'verb="LIST",dry_run="",group="",version="v1",resource="configmaps",subresource="",scope="namespace"'
    assert f'apiserver_request_total{{{labels},component="apiserver",code="200"}} 1' in text


async def test_discovery(api: Api) -> None:
    core = await api.ok("GET", "/api/v1")
    rows = {r["name"]: r for r in core["resources"]}
    assert rows["pods"]["shortNames"] == ["po"] and rows["pods/eviction"]["group"] == "policy"
    groups = await api.ok("GET", "/apis")
    assert "apps" in [g["name"] for g in groups["groups"]]
    assert (await api.ok("GET", "/apis/autoscaling"))["preferredVersion"]["version"] == "v2"
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    answer = await api("GET", "/apis", Accept=accept)
    assert answer.content_type == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    assert answer.json["kind"] == "APIGroupDiscoveryList"
    again = await api("GET", "/apis", Accept=accept, If_None_Match=answer.headers["ETag"])
    assert again.status == 304
    assert (await api("GET", "/apis/none")).status == 404 and (await api("GET", "/apis/apps/v9")).status == 404


async def test_openapi(api: Api) -> None:
    index = await api.ok("GET", "/openapi/v3")
    url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
    document = await api.ok("GET", url)
    path = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
    operation = document["paths"][path]["patch"]
    assert operation["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert "fieldValidation" in [p["name"] for p in operation["parameters"]]
    schemas = document["components"]["schemas"]
    assert (
        "io.k8s.api.core.v1.Container" in schemas and "null" not in orjson.dumps(schemas["io.k8s.api.core.v1.Container"]).decode()
    )
    assert (await api("GET", "/openapi/v3/apis/none/v1")).status == 404


async def test_other_parts_add_paths_and_handlers() -> None:
    from k1s.base.http import Response

    async def hello(request: Request) -> Response:
        return Response(200, request.path.encode(), "text/plain")

    async def review(request: Request, info: object, user: object, server: object) -> Response:
        return Response(201, b"{}")

    handlers = {("authentication.k8s.io", "tokenreviews", ""): review}
    async with running(paths={"/cacerts": hello, "/v1-k1s/": hello}, open_paths=("/cacerts",), handlers=handlers) as api:
        assert (await api("GET", "/cacerts")).raw == b"/cacerts"
        assert (await api("POST", "/v1-k1s/join")).raw == b"/v1-k1s/join"
        assert (await api("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {})).status == 201
        assert (await api("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})).status == 404


async def test_readers_see_their_own_writes_under_load(api: Api) -> None:
    async def one(number: int) -> None:
        name = f"c{number}"
        made = await api.ok("POST", CMS, config_map(name))
        assert (await api.ok("GET", f"{CMS}/{name}")) == made
        assert name in [i["metadata"]["name"] for i in (await api.ok("GET", CMS))["items"]]

    await asyncio.gather(*(one(number) for number in range(30)))


async def test_creating_by_put_or_apply_needs_the_right_to_create(api: Api) -> None:
    from k1s.api.errors import forbidden
    from k1s.server.apiserver.attributes import UserInfo

    async def no_creating(user: UserInfo, info: RequestInfo) -> None:
        if info.verb == "create":
            raise forbidden(info.plural, info.group, info.name, "no")

    api.server.authorizer.authorize = no_creating  # type: ignore[method-assign]
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}}
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l"
    assert (await api("PUT", path, lease)).status == 403
    assert (await api("PATCH", f"{path}?fieldManager=m", lease, type="application/apply-patch+yaml")).status == 403
    assert (await api("GET", path)).status == 404


async def test_metrics_that_are_looked_up(api: Api) -> None:
    await api.ok("POST", CMS, config_map("a"))
    watch = await api.watch(f"{CMS}?watch=1")
    text = (await api("GET", "/metrics")).raw.decode()
    assert 'apiserver_storage_objects{resource="configmaps"} 1' in text
    assert 'apiserver_watchers{resource="configmaps"} 1' in text
    await watch.close()


ODD: list[Any] = [1, 1.5, True, "x", [[]], {"a": 1}]
OPTIONS = {"kind": "DeleteOptions", "apiVersion": "v1"}
EVICTION = {"apiVersion": "policy/v1", "kind": "Eviction"}


@pytest.mark.parametrize("value", ODD, ids=repr)
async def test_odd_bodies_of_subresources_and_deletions(api: Api, value: Any) -> None:
    await api.ok("POST", CMS, config_map("a"))
    pods = CMS.replace("configmaps", "pods")
    await api.ok("POST", pods, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    cases = [
        ("DELETE", f"{CMS}/a?dryRun=All", {**OPTIONS, key: value}) for key in ("dryRun", "preconditions", "gracePeriodSeconds")
    ]
    cases += [
        ("POST", f"{pods}/p/eviction?dryRun=All", {**EVICTION, key: value}) for key in ("metadata", "deleteOptions", "kind")
    ]
    cases += [("POST", f"{pods}/p/binding?dryRun=All", {"metadata": {"name": "p"}, "target": value})]
    for method, target, body in cases:
        answer = await api(method, target, body)
        assert answer.status < 500, (body, answer.raw)


async def test_what_is_the_clusters_lies_below_no_namespace() -> None:
    """Whoever may do everything in a namespace is let through by the authorizer: there must be nothing to find."""
    async with running() as api:
        await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "n"}})
        for resource in {(r.group, r.version, r.plural) for r in CATALOG if not r.namespaced}:
            group, version, plural = resource
            root = f"/apis/{group}/{version}" if group else f"/api/{version}"
            paths = [("GET", ""), ("GET", "?watch=1"), ("POST", ""), ("DELETE", "")]
            paths += [(method, f"/x{sub}") for method in ("GET", "PUT", "PATCH", "DELETE") for sub in ("", "/status")]
            for method, tail in (*paths, ("GET", "/x/proxy/y"), ("PUT", "/x/approval")):
                for way in ("", "/watch"):
                    answer = await api(method, f"{root}{way}/namespaces/n/{plural}{tail}", {"metadata": {"name": "x"}})
                    assert answer.status in (404, 405) and "could not find the requested" in answer.raw.decode(), (method, tail)
        for path in ("/api/v1/namespaces/n", "/api/v1/namespaces/n/status"):
            assert (await api("GET", path)).json["metadata"]["name"] == "n"
        assert (await api("GET", "/api/v1/namespaces/n/namespaces/kube-system")).status == 404


async def test_a_custom_resource_of_the_cluster_lies_below_no_namespace() -> None:
    row = next(r for r in CATALOG if r.plural == "nodes")
    info = RequestInfo(
        True, "", "list", "example.com", "v1", "things", "", "n", "", replace(row, group="example.com", custom=True)
    )
    with pytest.raises(ApiError) as refused:
        Registry({}).find(info)
    assert refused.value.code == 404
