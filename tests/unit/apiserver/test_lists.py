"""Lists: consistent, selected, in pages that survive writes, as tables, compressed."""

from __future__ import annotations

import gzip

import orjson

from k1s.api.catalog import builtin
from tests.unit.apiserver.conftest import CMS, PODS, Api, config_map, pod


async def _fill(api: Api, count: int, prefix: str = "c") -> None:
    for number in range(count):
        body = config_map(f"{prefix}{number}", n=str(number))
        body["metadata"]["labels"] = {"parity": "even" if number % 2 == 0 else "odd"}
        await api.ok("POST", CMS, body)


async def test_list_is_consistent_with_writes(api: Api) -> None:
    await _fill(api, 3)
    listed = await api.ok("GET", CMS)
    assert listed["kind"] == "ConfigMapList" and [i["metadata"]["name"] for i in listed["items"]] == ["c0", "c1", "c2"]
    assert int(listed["metadata"]["resourceVersion"]) == api.store.revision
    assert (await api.ok("GET", "/api/v1/configmaps"))["items"] == listed["items"]
    assert (await api.ok("GET", CMS.replace("default", "defaul")))["items"] == []


async def test_selectors(api: Api) -> None:
    await _fill(api, 4)
    for query, names in {
        "labelSelector=parity=even": ["c0", "c2"],
        "labelSelector=parity!%3Deven": ["c1", "c3"],
        "labelSelector=parity%20in%20(odd)": ["c1", "c3"],
        "fieldSelector=metadata.name%3Dc3": ["c3"],
        "fieldSelector=metadata.name!%3Dc3,metadata.namespace=default": ["c0", "c1", "c2"],
        "fieldSelector=metadata.namespace%3Dother": [],
    }.items():
        listed = await api.ok("GET", f"{CMS}?{query}")
        assert [i["metadata"]["name"] for i in listed["items"]] == names, query


async def test_pod_fields(api: Api) -> None:
    await api.ok("POST", PODS, pod("a"))
    await api.ok("POST", PODS, pod("b", nodeName="n1"))
    found = await api.ok("GET", f"{PODS}?fieldSelector=spec.nodeName%3Dn1,status.phase!%3DFailed")
    assert [i["metadata"]["name"] for i in found["items"]] == ["b"]
    found = await api.ok("GET", f"{PODS}?fieldSelector=spec.nodeName%3D")
    assert [i["metadata"]["name"] for i in found["items"]] == ["a"]


async def test_pages_show_one_moment(api: Api) -> None:
    await _fill(api, 5)
    page = await api.ok("GET", f"{CMS}?limit=2")
    assert [i["metadata"]["name"] for i in page["items"]] == ["c0", "c1"]
    assert page["metadata"]["remainingItemCount"] == 3
    await api.ok("DELETE", f"{CMS}/c3")
    await api.ok("POST", CMS, config_map("c2a"))
    version, names = page["metadata"]["resourceVersion"], []
    token = page["metadata"]["continue"]
    while token:
        page = await api.ok("GET", f"{CMS}?limit=2&continue={token}")
        names += [i["metadata"]["name"] for i in page["items"]]
        assert page["metadata"]["resourceVersion"] == version
        token = page["metadata"].get("continue")
    assert names == ["c2", "c3", "c4"]


async def test_tokens_expire_and_offer_another(api: Api) -> None:
    await _fill(api, 3)
    page = await api.ok("GET", f"{CMS}?limit=1")
    await api.ok("POST", CMS, config_map("new"))
    await api.clock.advance(301)
    answer = await api("GET", f"{CMS}?limit=5&continue={page['metadata']['continue']}")
    assert answer.status == 410 and answer.json["reason"] == "Expired"
    rest = await api.ok("GET", f"{CMS}?limit=5&continue={answer.json['metadata']['continue']}")
    assert [i["metadata"]["name"] for i in rest["items"]] == ["c1", "c2", "new"]


async def test_exact_and_future_versions(api: Api) -> None:
    await _fill(api, 2)
    at = api.store.revision
    await _fill(api, 2, "d")
    old = await api.ok("GET", f"{CMS}?resourceVersion={at}&resourceVersionMatch=Exact")
    assert len(old["items"]) == 2 and old["metadata"]["resourceVersion"] == str(at)
    fresh = await api.ok("GET", f"{CMS}?resourceVersion={at}&resourceVersionMatch=NotOlderThan")
    assert len(fresh["items"]) == 4
    await api.store.compact(at + 1)
    api.server.hub.cache(builtin("ConfigMap")).begin(api.store.revision)
    gone = await api("GET", f"{CMS}?resourceVersion={at}&resourceVersionMatch=Exact")
    assert gone.status == 410


async def test_a_version_that_never_comes(api: Api) -> None:
    answer = await api("GET", f"{CMS}?resourceVersion=999999")
    assert answer.status == 504 and answer.json["message"].startswith("Timeout: Too large resource version: 999999, current: ")
    assert answer.json["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


async def test_tables(api: Api) -> None:
    await api.ok("POST", PODS, pod("a"))
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    answer = await api("GET", PODS, Accept=accept)
    table = answer.json
    assert table["kind"] == "Table" and table["columnDefinitions"][0]["name"] == "Name"
    assert table["rows"][0]["cells"][0] == "a" and table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    one = (await api("GET", f"{PODS}/a?includeObject=Object", Accept=accept)).json
    assert one["kind"] == "Table" and one["rows"][0]["object"]["kind"] == "Pod"
    none = (await api("GET", f"{PODS}?includeObject=None", Accept=accept)).json
    assert none["rows"][0]["object"] is None
    bad = await api("GET", f"{PODS}?includeObject=Wibble", Accept=accept)
    assert bad.status == 400


async def test_metadata_only(api: Api) -> None:
    await api.ok("POST", PODS, pod("a"))
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    listed = (await api("GET", PODS, Accept=accept)).json
    assert listed["kind"] == "PartialObjectMetadataList" and "spec" not in listed["items"][0]


async def test_large_lists_are_compressed_and_shared(api: Api) -> None:
    for number in range(4):
        await api.ok("POST", CMS, config_map(f"big{number}", x="y" * 50_000))
    plain = await api("GET", CMS)
    packed = await api("GET", CMS, Accept_Encoding="gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert orjson.loads(gzip.decompress(packed.raw)) == plain.json
    assert (await api("GET", CMS, Accept_Encoding="gzip")).raw is packed.raw
    await api.ok("POST", CMS, config_map("one-more"))
    assert len((await api("GET", CMS)).json["items"]) == 5


async def test_a_value_in_the_wrong_place_is_not_taken_for_a_label(api: Api) -> None:
    body = config_map("a", parity="even")
    await api.ok("POST", CMS, body)
    for query in ("labelSelector=parity%3Deven", "labelSelector=parity%20in%20(even)"):
        assert (await api.ok("GET", f"{CMS}?{query}"))["items"] == []
    tricky = pod("p", nodeName="n1", containers=[{"name": "c", "image": "i", "env": [{"name": "nodeName", "value": "n2"}]}])
    await api.ok("POST", PODS, tricky)
    assert (await api.ok("GET", f"{PODS}?fieldSelector=spec.nodeName%3Dn2"))["items"] == []
    assert len((await api.ok("GET", f"{PODS}?fieldSelector=spec.nodeName%3Dn1,metadata.name%3Dp"))["items"]) == 1
