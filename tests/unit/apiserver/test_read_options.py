"""resourceVersion x resourceVersionMatch x limit x continue, of lists and watches: what is answered, and in which words."""

from __future__ import annotations

import base64
from urllib.parse import quote

import orjson
import pytest

from k1s.api.catalog import builtin
from k1s.api.protobuf import decode_protobuf
from k1s.base.http import Stream
from tests.unit.apiserver.conftest import CMS, PODS, Api, Object, config_map, pod

# query -> status and what the message holds; "{now}" is the current revision.
_INT = "strconv.ParseInt: parsing"
_UINT = 'resourceVersion: Invalid value: "{}": strconv.ParseUint: parsing "{}": '
LISTS = [
    ("limit=abc", 400, f'{_INT} "abc": invalid syntax'),
    ("limit=", 400, f'{_INT} "": invalid syntax'),
    ("limit=99999999999999999999", 400, f'{_INT} "99999999999999999999": value out of range'),
    ("limit=-1", 200, ""),
    ("timeoutSeconds=x", 400, f'{_INT} "x": invalid syntax'),
    ("resourceVersion=abc", 400, "invalid resource version: " + _UINT.format("abc", "abc") + "invalid syntax"),
    ("resourceVersion=-1", 400, "invalid resource version: "),
    ("resourceVersion=%C2%B2", 400, "invalid syntax"),
    ("resourceVersion=99999999999999999999", 400, "value out of range"),
    ("resourceVersionMatch=Exact", 422, "resourceVersionMatch is forbidden unless resourceVersion is provided"),
    ("resourceVersion=0&resourceVersionMatch=Exact", 422, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'),
    ("resourceVersion=0&resourceVersionMatch=NotOlderThan", 200, ""),
    ("resourceVersion=0&resourceVersionMatch=NotOlderThan&limit=1", 200, ""),
    ("resourceVersion=1&resourceVersionMatch=x", 422, 'Unsupported value: "x": supported values: "Exact", "NotOlderThan", ""'),
    ("resourceVersion={now}&resourceVersionMatch=Exact&continue=x", 422, "is forbidden when continue is provided"),
    ("sendInitialEvents=true", 422, "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
    ("sendInitialEvents=false", 422, "sendInitialEvents is forbidden for list"),
    ("continue=%21%21", 400, "invalid continue token: continue key is not valid: "),
    ("continue=e30", 400, 'continue key is not valid: server does not recognize this encoded version ""'),
    ("resourceVersion=999999", 504, "Timeout: Too large resource version: 999999, current: "),
    ("resourceVersion=999999&resourceVersionMatch=Exact", 504, "Timeout: Too large resource version: 999999, current: "),
    ("labelSelector=a%20b", 400, "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
    ("fieldSelector=nope", 400, "invalid selector: 'nope'; can't understand 'nope'"),
    ("fieldSelector=spec.x%3D1", 400, '"spec.x" is not a known field selector: only "metadata.name", "metadata.namespace"'),
]
WATCHES = [
    ("timeoutSeconds=x", 400, f'{_INT} "x": invalid syntax'),
    ("resourceVersion=abc", 400, _UINT.format("abc", "abc") + "invalid syntax"),
    (
        "resourceVersionMatch=NotOlderThan",
        422,
        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
    ),
    ("resourceVersionMatch=Exact&resourceVersion=1", 422, 'Unsupported value: "Exact": supported values: "NotOlderThan"'),
    ("sendInitialEvents=true", 422, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
    ("sendInitialEvents=false", 422, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
    (
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x",
        422,
        "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
    ),
    ("fieldSelector=x%3D1", 400, '"x" is not a known field selector'),
]


@pytest.mark.parametrize(("query", "status", "message"), LISTS)
async def test_list_options(api: Api, query: str, status: int, message: str) -> None:
    await api.ok("POST", CMS, config_map("a"))
    answer = await api("GET", f"{CMS}?{query.replace('{now}', str(api.store.revision))}")
    assert answer.status == status, answer.raw
    assert message in answer.json.get("message", ""), answer.raw
    if status == 422:
        assert answer.json["message"].startswith('ListOptions.meta.k8s.io "" is invalid: ')
        assert answer.json["details"]["group"] == "meta.k8s.io" and answer.json["details"]["causes"]
    if status == 504:
        assert answer.json["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge" and answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize(("query", "status", "message"), WATCHES)
async def test_watch_options(api: Api, query: str, status: int, message: str) -> None:
    answer = await api("GET", f"{CMS}?watch=1&{query}")
    assert answer.status == status and message in answer.json["message"], answer.raw


async def test_a_limit_makes_a_version_exact(api: Api) -> None:
    """KEP-1904: resourceVersion with limit and without resourceVersionMatch."""
    await api.ok("POST", CMS, config_map("a"))
    at = api.store.revision
    await api.ok("POST", CMS, config_map("b"))
    old = await api.ok("GET", f"{CMS}?limit=10&resourceVersion={at}")
    assert [i["metadata"]["name"] for i in old["items"]] == ["a"] and old["metadata"]["resourceVersion"] == str(at)
    for query in (f"resourceVersion={at}", f"limit=10&resourceVersion={at}&resourceVersionMatch=NotOlderThan"):
        fresh = await api.ok("GET", f"{CMS}?{query}")
        assert len(fresh["items"]) == 2 and int(fresh["metadata"]["resourceVersion"]) == api.store.revision
    whole = await api.ok("GET", f"{CMS}?limit=1&resourceVersion=0")
    assert len(whole["items"]) == 2 and "continue" not in whole["metadata"]


async def test_pages_of_the_past_do_not_need_the_ring(api: Api) -> None:
    """What memory no longer knows is read from the log, in pages too; a compacted revision is refused in upstream's words."""
    for name in "abcde":
        body = config_map(name)
        body["metadata"]["labels"] = {"odd": "yes" if name in "ace" else "no"}
        await api.ok("POST", CMS, body)
    page = await api.ok("GET", f"{CMS}?limit=2")
    selected = await api.ok("GET", f"{CMS}?limit=1&labelSelector=odd%3Dyes")
    assert "remainingItemCount" not in selected["metadata"] and selected["metadata"]["continue"]
    at, token = page["metadata"]["resourceVersion"], page["metadata"]["continue"]
    await api.ok("DELETE", f"{CMS}/d")
    await api.ok("PUT", f"{CMS}/c", config_map("c", changed="1"))
    resource = api.server.catalog.by_plural("", "v1", "configmaps")
    assert resource is not None
    for _ in range(2):
        rest = await api.ok("GET", f"{CMS}?limit=2&continue={token}")
        assert [i["metadata"]["name"] for i in rest["items"]] == ["c", "d"] and rest["metadata"]["remainingItemCount"] == 1
        assert "data" not in rest["items"][0] and rest["metadata"]["resourceVersion"] == at
        more = await api.ok("GET", f"{CMS}?limit=2&labelSelector=odd%3Dyes&continue={selected['metadata']['continue']}")
        assert [i["metadata"]["name"] for i in more["items"]] == ["c", "e"] and "continue" not in more["metadata"]
        api.server.hub.cache(resource).begin(api.store.revision)
    await api.store.compact(api.store.revision)
    gone = await api("GET", f"{CMS}?resourceVersion={at}&resourceVersionMatch=Exact")
    assert gone.status == 410 and gone.json["message"] == "The resourceVersion for the provided list is too old."
    gone = await api("GET", f"{CMS}?limit=2&continue={token}")
    assert gone.status == 410 and gone.json["reason"] == "Expired"
    assert gone.json["message"].startswith("The provided continue parameter is too old to display a consistent list result.")
    rest = await api.ok("GET", f"{CMS}?limit=1&continue={gone.json['metadata']['continue']}")
    assert [i["metadata"]["name"] for i in rest["items"]] == ["c"] and rest["items"][0]["data"] == {"changed": "1"}
    assert int(rest["metadata"]["resourceVersion"]) > int(at) and rest["metadata"]["remainingItemCount"] == 1


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ({"v": "meta.k8s.io/v1", "rv": 0, "start": "a"}, "incorrect encoded start resourceVersion (version meta.k8s.io/v1)"),
        ({"v": "meta.k8s.io/v1", "rv": 1}, "encoded start key empty (version meta.k8s.io/v1)"),
        ({"v": "meta.k8s.io/v1", "rv": 1, "start": "../secrets"}, "continue key is not valid: ../secrets"),
        ({"v": "v9", "rv": 1, "start": "a"}, 'server does not recognize this encoded version "v9"'),
        ({"v": "meta.k8s.io/v1", "rv": "1", "start": "a"}, "continue key is not valid: json: "),
        ([1], "continue key is not valid: json: "),
    ],
)
async def test_bad_tokens(api: Api, token: Object, message: str) -> None:
    text = base64.urlsafe_b64encode(orjson.dumps(token)).decode().rstrip("=")
    answer = await api("GET", f"{CMS}?continue={text}")
    assert (
        answer.status == 400
        and answer.json["message"].startswith("invalid continue token: ")
        and message in answer.json["message"]
    )


async def test_a_token_and_a_version_exclude_each_other(api: Api) -> None:
    for name in "ab":
        await api.ok("POST", CMS, config_map(name))
    token = (await api.ok("GET", f"{CMS}?limit=1"))["metadata"]["continue"]
    answer = await api("GET", f"{CMS}?continue={token}&resourceVersion=1")
    assert (answer.status, answer.json["message"]) == (400, "specifying resource version is not allowed when using continue")
    assert len((await api.ok("GET", f"{CMS}?continue={token}&resourceVersion=0"))["items"]) == 1


async def test_get_at_a_version(api: Api) -> None:
    made = await api.ok("POST", CMS, config_map("a"))
    for version in ("", "0", "1", made["metadata"]["resourceVersion"]):
        assert (await api("GET", f"{CMS}/a?resourceVersion={version}")).status == 200
    assert (await api("GET", f"{CMS}/a?resourceVersion=x")).status == 400
    late = await api("GET", f"{CMS}/a?resourceVersion=99999")
    assert late.status == 504 and late.json["reason"] == "Timeout"


FORMS = "application/json;as={};g=meta.k8s.io;v={}"
ACCEPTED = [
    ("text/html", 406, "accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"),
    ("application/json;as=Table;g=meta.k8s.io;v=v2", 406, "only the following"),
    ("application/json;as=Table;v=v1", 406, "only the following"),
    ("application/json;as=Nonsense;g=meta.k8s.io;v=v1,application/json", 200, "ConfigMapList"),
    ("text/html, application/*;q=0.1", 200, "ConfigMapList"),
    ("application/json;q=0", 406, "only the following"),
    ("*/*;q=0.5, application/yaml;q=0.4", 200, '{"kind":"ConfigMapList"'),
    ("*/*, application/yaml", 200, "kind: ConfigMapList"),
    ("application/vnd.kubernetes.protobuf, application/json", 200, "ConfigMapList"),
    (FORMS.format("PartialObjectMetadata", "v1"), 406, "you requested PartialObjectMetadata, but the requested object is a list"),
    (FORMS.format("PartialObjectMetadataList", "v1beta1"), 200, '"apiVersion":"meta.k8s.io/v1beta1"'),
    (FORMS.format("Table", "v1beta1"), 200, '{"kind":"Table","apiVersion":"meta.k8s.io/v1beta1"'),
    ("application/json;pretty=1", 200, '{\n  "kind": "ConfigMapList"'),
]


@pytest.mark.parametrize(("accept", "status", "holds"), ACCEPTED)
async def test_forms_of_a_list(api: Api, accept: str, status: int, holds: str) -> None:
    await api.ok("POST", CMS, config_map("a"))
    answer = await api("GET", CMS, Accept=accept)
    assert answer.status == status and holds in answer.raw.decode(), answer.raw


async def test_forms_of_a_watch(api: Api) -> None:
    await api.ok("POST", CMS, config_map("a"))
    refused = await api("GET", f"{CMS}?watch=1", Accept="application/yaml")
    assert refused.status == 406
    assert b"accepted: application/json;stream=watch,\n  application/vnd.kubernetes.protobuf;stream=watch" in refused.raw
    assert (await (await api.watch(f"{CMS}?watch=1", Accept="application/json;stream=watch")).next())["type"] == "ADDED"
    assert (await api("GET", f"{CMS}?watch=1", Accept="application/json;stream=other")).status == 406
    for version in ("v1", "v1beta1"):
        for kind in ("Table", "PartialObjectMetadata"):
            watch = await api.watch(f"{CMS}?watch=1", Accept=FORMS.format(kind, version))
            seen = (await watch.next())["object"]
            assert (seen["kind"], seen["apiVersion"]) == (kind, f"meta.k8s.io/{version}")
            if kind == "Table":
                assert seen["rows"][0]["object"]["apiVersion"] == f"meta.k8s.io/{version}"
    # A streamed list is never a table: the client takes the next form, or lists.
    streamed = f"{CMS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1"
    assert (await api("GET", streamed, Accept=FORMS.format("Table", "v1"))).status == 406
    watch = await api.watch(streamed, Accept=FORMS.format("Table", "v1") + ",application/json")
    assert (await watch.next())["object"]["kind"] == "ConfigMap"


async def test_the_blueprint_of_a_streamed_list(api: Api) -> None:
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1"
    for accept, kind in (
        ("application/json", "ConfigMapList"),
        (FORMS.format("PartialObjectMetadata", "v1"), "PartialObjectMetadataList"),
    ):
        mark = await (await api.watch(f"{CMS}?{query}", Accept=accept)).next()
        notes = mark["object"]["metadata"]["annotations"]
        empty = orjson.loads(base64.b64decode(notes["kubernetes.io/initial-events-list-blueprint"]))
        assert notes["k8s.io/initial-events-end"] == "true" and empty["kind"] == kind and empty["items"] == []


async def test_without_initial_events(api: Api) -> None:
    await api.ok("POST", CMS, config_map("a"))
    watch = await api.watch(f"{CMS}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan")
    assert await watch.quiet()
    await api.ok("POST", CMS, config_map("b"))
    assert await watch.some(1) == [("ADDED", "b")]


async def test_humans_get_lines(api: Api) -> None:
    await api.ok("POST", CMS, config_map("a"))
    one = f"{CMS}/a"
    for target, headers, lines in [
        (one, {"User-Agent": "curl/8.0"}, True),
        (one, {"User-Agent": "Mozilla/5.0 (X11)"}, True),
        (f"{one}?pretty=false", {"User-Agent": "Wget/1"}, False),
        (f"{one}?pretty=true", {}, True),
        (f"{one}?pretty=T", {}, True),
        (f"{one}?pretty=yes", {}, False),
        (CMS, {"User-Agent": "curl/8.0"}, True),
        ("/apis", {"User-Agent": "curl/8.0"}, True),
        (f"{CMS}/none", {"User-Agent": "curl/8.0"}, True),
        (one, {}, False),
    ]:
        answer = await api("GET", target, **{name.replace("-", "_"): value for name, value in headers.items()})
        assert (b"\n" in answer.raw) is lines, (target, headers)


async def test_faults_as_yaml(api: Api) -> None:
    answer = await api("GET", f"{CMS}/none", Accept="application/yaml")
    assert answer.status == 404 and answer.content_type == "application/yaml" and b"reason: NotFound" in answer.raw
    discovery = await api("GET", "/api/v1", Accept="application/yaml")
    assert discovery.content_type == "application/yaml" and b"kind: APIResourceList" in discovery.raw


@pytest.mark.parametrize(
    ("accept", "packed"),
    [
        ("gzip", True),
        ("gzip, deflate", True),
        ("deflate, gzip;q=1.0", True),
        ("gzip;q=0", False),
        ("deflate", False),
        ("identity, gzip; q=0.0", False),
    ],
)
async def test_gzip_as_the_client_wants_it(api: Api, accept: str, packed: bool) -> None:
    await api.ok("POST", CMS, config_map("big", x="y" * 200_000))
    for target in (CMS, f"{CMS}/big"):
        answer = await api("GET", target, Accept_Encoding=accept)
        assert ("Content-Encoding" in answer.headers) is packed


async def test_paths_that_are_none(api: Api) -> None:
    for path in ("/nope", "/apis/no.group/v1/things", "/apis/no.group"):
        answer = await api("GET", path)
        assert (answer.status, answer.raw) == (404, b"404 page not found\n"), path
    for path in ("/api/v1/nonsense", "/api/v9", "/api/v2/pods", "/apis/apps/v7", "/apis/apps/v7/deployments"):
        answer = await api("GET", path)
        assert answer.status == 404 and answer.json["message"] == "the server could not find the requested resource"
    assert (await api("GET", f"{CMS}/")).json["kind"] == "ConfigMapList"
    assert (await api("POST", "/api/v1/watch/configmaps", {})).status == 405


@pytest.mark.parametrize(
    ("path", "selector", "message"),
    [
        ("/api/v1/pods", "spec.nodename=a", "field label not supported: spec.nodename"),
        ("/api/v1/nodes", "metadata.namespace=a", "field label not supported: metadata.namespace"),
        (
            "/apis/apps/v1/deployments",
            "status.phase=a",
            '"status.phase" is not a known field selector: only "metadata.name", "metadata',
        ),
        ("/api/v1/pods", "a=b=c", "invalid field selector: unescaped character in value: ="),
        (
            "/api/v1/watch/namespaces/default/configmaps/a",
            "metadata.name=b",
            "fieldSelector metadata.name doesn't match requested name",
        ),
    ],
)
async def test_field_selectors_that_are_refused(api: Api, path: str, selector: str, message: str) -> None:
    answer = await api("GET", f"{path}?fieldSelector={quote(selector)}")
    assert answer.status == 400 and message in answer.json["message"]


async def test_selectors_read_an_object_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """5,000 objects of which 50 are wanted are decoded when they are first looked at, not again with every list."""
    for number in range(20):
        body = pod(f"p{number}")
        body["metadata"]["labels"]["odd"] = str(number % 2)
        await api.ok("POST", PODS, body)
    query = f"{PODS}?labelSelector=odd%20notin%20(0)&fieldSelector=status.phase!%3DRunning"
    first = await api.ok("GET", query)
    from k1s.server.apiserver.entries import Entry

    def never(entry: Entry) -> Object:
        raise AssertionError("decoded again")

    monkeypatch.setattr(Entry, "peek", never)
    again = await api.ok("GET", query)
    assert len(again["items"]) == 10 and again["items"] == first["items"]


async def test_remembered_answers_follow_the_changes(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from k1s.server.apiserver import resource_cache, selected

    monkeypatch.setattr(selected, "_FEW", 0)
    query = f"{CMS}?labelSelector=in%3Dyes"

    async def names() -> list[str]:
        return [item["metadata"]["name"] for item in (await api.ok("GET", query))["items"]]

    async def put(name: str, value: str) -> None:
        body = config_map(name)
        body["metadata"]["labels"] = {"in": value}
        there = (await api("GET", f"{CMS}/{name}")).status == 200
        await api.ok("PUT" if there else "POST", f"{CMS}/{name}" if there else CMS, body)

    for number in range(12):
        await put(f"c{number:02}", "yes" if number == 5 else "no")
    assert await names() == ["c05"]
    looked: list[str] = []
    real = selected.Selected.learn
    monkeypatch.setattr(selected.Selected, "learn", lambda *args: (looked.append("x"), real(*args)))
    await put("c07", "yes")
    await put("c03", "yes")
    assert await names() == ["c03", "c05", "c07"] and not looked
    await put("c03", "no")
    await api.ok("DELETE", f"{CMS}/c05")
    await put("c01", "no")
    assert await names() == ["c07"] and not looked
    # What the ring has lost cannot be followed: every object is looked at again.
    monkeypatch.setattr(resource_cache, "RING_CHANGES", 2)
    for name in ("c00", "c01", "c02", "c04"):
        await put(name, "yes")
    assert await names() == ["c00", "c01", "c02", "c04", "c07"] and looked


PROTOBUF = "application/vnd.kubernetes.protobuf"


async def test_protobuf_for_who_takes_nothing_else(api: Api) -> None:
    made = await api.ok("POST", PODS, pod("a"))
    one = await api("GET", f"{PODS}/a", Accept=PROTOBUF)
    assert (one.status, one.content_type) == (200, PROTOBUF)
    decoded = decode_protobuf(one.raw)
    assert decoded["metadata"] == made["metadata"] and decoded["spec"]["containers"][0]["name"] == "c"
    listed = decode_protobuf((await api("GET", PODS, Accept=PROTOBUF)).raw)
    assert listed["kind"] == "PodList" and listed["items"][0]["metadata"]["name"] == "a"
    names = decode_protobuf((await api("GET", PODS, Accept=f"{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")).raw)
    assert names["kind"] == "PartialObjectMetadataList" and "spec" not in names["items"][0]
    missing = await api("GET", f"{PODS}/none", Accept=PROTOBUF)
    assert missing.status == 404 and decode_protobuf(missing.raw)["reason"] == "NotFound"
    written = await api("POST", CMS, config_map("x", k="v"), Accept=PROTOBUF)
    assert written.status == 201 and decode_protobuf(written.raw)["data"] == {"k": "v"}
    # As go clients ask: what is ready is given.
    assert (await api("GET", PODS, Accept=f"{PROTOBUF}, */*")).content_type == "application/json"
    assert (await api("GET", PODS, Accept=f"{PROTOBUF};as=Table;g=meta.k8s.io;v=v1")).status == 406


async def test_a_watch_in_protobuf(api: Api) -> None:
    await api.ok("POST", CMS, config_map("a", k="v"))
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1"
    stream = await api.send("GET", f"{CMS}?{query}", Accept=f"{PROTOBUF};stream=watch")
    assert isinstance(stream, Stream) and stream.content_type == f"{PROTOBUF};stream=watch"
    first, mark = await anext(stream.chunks), await anext(stream.chunks)
    assert int.from_bytes(first[:4], "big") == len(first) - 4 and b"ADDED" in first[:12]
    assert decode_protobuf(first[first.index(b"k8s") :])["data"] == {"k": "v"}
    notes = decode_protobuf(mark[mark.index(b"k8s") :])["metadata"]["annotations"]
    empty = decode_protobuf(base64.b64decode(notes["kubernetes.io/initial-events-list-blueprint"]))
    assert empty["kind"] == "ConfigMapList"
    api.server.hub.cache(builtin("ConfigMap")).begin(api.store.revision)
    await api.store.compact(api.store.revision)
    stream = await api.send("GET", f"{CMS}?watch=1&resourceVersion=1", Accept=PROTOBUF)
    assert isinstance(stream, Stream)
    gone = await anext(stream.chunks)
    assert b"ERROR" in gone[:12] and decode_protobuf(gone[gone.index(b"k8s") :])["code"] == 410
