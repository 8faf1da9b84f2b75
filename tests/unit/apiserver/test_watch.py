"""Watches: order, resumption, selectors, bookmarks, tables, slow clients."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from k1s.api.catalog import builtin
from k1s.base.http import ConnectionClosed, Headers, Request, Stream, WebSocketUpgrade
from k1s.server.apiserver import watcher as watcher_module
from tests.unit.apiserver.conftest import CMS, Api, config_map

MERGE = "application/merge-patch+json"


async def test_changes_in_order(api: Api) -> None:
    await api.ok("POST", CMS, config_map("old"))
    watch = await api.watch(f"{CMS}?watch=1")
    await api.ok("POST", CMS, config_map("a"))
    await api.ok("PATCH", f"{CMS}/a", {"data": {"x": "1"}}, type=MERGE)
    await api.ok("DELETE", f"{CMS}/a")
    expected = [("ADDED", "old"), ("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    assert await watch.some(4) == expected
    await watch.close()
    assert not api.server.hub.cache(api.server.catalog.by_plural("", "v1", "configmaps")).watchers  # type: ignore[arg-type]


async def test_a_deletion_carries_its_own_version(api: Api) -> None:
    made = await api.ok("POST", CMS, config_map("a"))
    watch = await api.watch(f"{CMS}?watch=1&resourceVersion={made['metadata']['resourceVersion']}")
    await api.ok("DELETE", f"{CMS}/a")
    event = await watch.next()
    assert event["type"] == "DELETED" and int(event["object"]["metadata"]["resourceVersion"]) == api.store.revision
    assert event["object"]["metadata"]["uid"] == made["metadata"]["uid"]


async def test_resumption(api: Api) -> None:
    made = await api.ok("POST", CMS, config_map("a"))
    await api.ok("POST", CMS, config_map("b"))
    await api.ok("POST", CMS.replace("default", "other"), config_map("elsewhere"))
    watch = await api.watch(f"{CMS}?watch=1&resourceVersion={made['metadata']['resourceVersion']}")
    assert await watch.some(1) == [("ADDED", "b")] and await watch.quiet()


async def test_too_old(api: Api) -> None:
    for name in "abc":
        await api.ok("POST", CMS, config_map(name))
    api.server.hub.cache(builtin("ConfigMap")).begin(api.store.revision)
    await api.store.compact(api.store.revision)
    watch = await api.watch(f"{CMS}?watch=1&resourceVersion=2")
    event = await watch.next()
    assert event == {
        "type": "ERROR",
        "object": {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": f"too old resource version: 2 ({api.store.revision})",
            "reason": "Expired",
            "code": 410,
        },
    }
    with pytest.raises(StopAsyncIteration):
        await watch.next()


async def test_a_watch_from_before_the_ring_is_read_from_the_log(api: Api) -> None:
    first = await api.ok("POST", CMS, config_map("a"))
    version = first["metadata"]["resourceVersion"]
    labelled = {"metadata": {"labels": {"in": "yes"}}}
    await api.ok("PATCH", f"{CMS}/a", labelled, type=MERGE)
    await api.ok("POST", CMS, config_map("b"))
    left = await api.ok("PATCH", f"{CMS}/a", {"metadata": {"labels": None}}, type=MERGE)
    await api.ok("DELETE", f"{CMS}/b")
    api.server.hub.cache(builtin("ConfigMap")).begin(api.store.revision)
    every = await api.watch(f"{CMS}?watch=1&resourceVersion={version}&timeoutSeconds=100")
    some = await api.watch(f"{CMS}?watch=1&resourceVersion={version}&labelSelector=in%3Dyes")
    assert await every.some(4) == [("MODIFIED", "a"), ("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]
    assert await some.some(1) == [("ADDED", "a")]
    gone = await some.next()
    assert gone["type"] == "DELETED" and gone["object"]["metadata"]["labels"] == {"in": "yes"}
    assert gone["object"]["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]
    pending = [asyncio.ensure_future(watch.next()) for watch in (every, some)]
    await asyncio.sleep(0.01)
    await api.ok("PATCH", f"{CMS}/a", labelled, type=MERGE)
    assert [event["type"] for event in await asyncio.gather(*pending)] == ["MODIFIED", "ADDED"]
    # Its time is kept although it began elsewhere.
    await api.clock.advance(101)
    with pytest.raises(StopAsyncIteration):
        await every.next()


async def test_selectors_turn_changes_into_arrivals_and_departures(api: Api) -> None:
    watch = await api.watch(f"{CMS}?watch=1&labelSelector=in%3Dyes")
    await api.ok("POST", CMS, config_map("a"))
    await api.ok("PATCH", f"{CMS}/a", {"metadata": {"labels": {"in": "yes"}}}, type=MERGE)
    await api.ok("PATCH", f"{CMS}/a", {"data": {"x": "1"}}, type=MERGE)
    await api.ok("PATCH", f"{CMS}/a", {"metadata": {"labels": {"in": "no"}}}, type=MERGE)
    await api.ok("DELETE", f"{CMS}/a")
    events = [await watch.next() for _ in range(3)]
    assert [e["type"] for e in events] == ["ADDED", "MODIFIED", "DELETED"]
    last = events[-1]["object"]
    assert last["metadata"]["labels"] == {"in": "yes"} and last["data"] == {"x": "1"}
    assert int(last["metadata"]["resourceVersion"]) == int(events[1]["object"]["metadata"]["resourceVersion"]) + 1
    assert await watch.quiet()


async def test_watch_of_one_name(api: Api) -> None:
    watch = await api.watch("/api/v1/watch/namespaces/default/configmaps/a")
    await api.ok("POST", CMS, config_map("b"))
    await api.ok("POST", CMS, config_map("a"))
    assert await watch.some(1) == [("ADDED", "a")]


async def test_bookmarks_every_minute(api: Api) -> None:
    with_marks = await api.watch(f"{CMS}?watch=1&allowWatchBookmarks=true&resourceVersion=1")
    without = await api.watch(f"{CMS}?watch=1&resourceVersion=1")
    await api.ok("POST", CMS.replace("default", "other"), config_map("x"))
    await api.clock.advance(61)
    event = await with_marks.next()
    assert event["type"] == "BOOKMARK" and event["object"]["metadata"]["resourceVersion"] == str(api.store.revision)
    assert event["object"]["kind"] == "ConfigMap"
    await api.clock.advance(61)
    assert await with_marks.quiet() and await without.quiet()


async def test_the_end_of_initial_events(api: Api) -> None:
    await api.ok("POST", CMS, config_map("a"))
    query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&resourceVersion="
    watch = await api.watch(f"{CMS}?{query}")
    assert (await watch.next())["type"] == "ADDED"
    mark = await watch.next()
    assert mark["type"] == "BOOKMARK" and mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"
    bad = await api("GET", f"{CMS}?watch=1&sendInitialEvents=true")
    assert bad.status == 422


async def test_time_is_up(api: Api) -> None:
    watch = await api.watch(f"{CMS}?watch=1&timeoutSeconds=5")
    await api.clock.advance(6)
    try:
        await watch.next()
    except StopAsyncIteration:
        return
    raise AssertionError("the watch goes on")


async def test_a_last_bookmark(api: Api) -> None:
    watch = await api.watch(f"{CMS}?watch=1&resourceVersion=0&timeoutSeconds=5&allowWatchBookmarks=true")
    await api.clock.advance(6)
    assert (await watch.next())["type"] == "BOOKMARK"
    with pytest.raises(StopAsyncIteration):
        await watch.next()


async def test_only_the_first_event_of_a_table_has_columns(api: Api) -> None:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    watch = await api.watch(f"{CMS}?watch=1", Accept=accept)
    await api.ok("POST", CMS, config_map("a"))
    await api.ok("POST", CMS, config_map("b"))
    first, second = await watch.next(), await watch.next()
    assert first["object"]["columnDefinitions"] and not second["object"]["columnDefinitions"]
    assert second["object"]["rows"][0]["cells"][0] == "b"


async def test_watchers_of_one_form_share_their_lines(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from k1s.server.apiserver import answers

    forms = ("application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")
    watches = [await api.watch(f"{CMS}?watch=1", Accept=form) for form in forms * 3]
    await api.ok("POST", CMS, config_map("a"))
    seen = [await watch.next() for watch in watches]
    assert [bool(event["object"].get("columnDefinitions")) for event in seen] == [True, False] * 3
    made: list[str] = []
    row, partial = answers.row, answers.partial
    monkeypatch.setattr(answers, "row", lambda *args: (made.append("row"), row(*args))[1])
    monkeypatch.setattr(answers, "partial", lambda *args: (made.append("partial"), partial(*args))[1])
    await api.ok("POST", CMS, config_map("b"))
    for number, watch in enumerate(watches):
        event = (await watch.next())["object"]
        assert event["kind"] == ("PartialObjectMetadata" if number % 2 else "Table") and not event.get("columnDefinitions")
    assert sorted(made) == ["partial", "partial", "row"]  # a row holds one, too


async def test_a_slow_watcher_is_dropped(api: Api, monkeypatch: object) -> None:
    limit, watcher_module.QUEUE_LIMIT = watcher_module.QUEUE_LIMIT, 10
    try:
        answer = await api.send("GET", f"{CMS}?watch=1")
        assert isinstance(answer, Stream)
        for number in range(12):
            await api.ok("POST", CMS, config_map(f"c{number}"))
        chunks = [chunk async for chunk in answer.chunks]
        assert sum(chunk.count(b"\n") for chunk in chunks) < 12
    finally:
        watcher_module.QUEUE_LIMIT = limit


async def test_informers_are_views_of_the_same_cache(api: Api) -> None:
    resource = api.server.catalog.by_plural("", "v1", "configmaps")
    assert resource is not None
    await api.ok("POST", CMS, config_map("a", x="1"))
    informer = api.server.informers.informer(resource)
    seen: list[tuple[bool, bool]] = []
    informer.add_handler(lambda old, new: seen.append((old is not None, new is not None)))
    informer.add_index("data", lambda obj: list((obj.get("data") or {}).values()))
    await api.ok("PATCH", f"{CMS}/a", {"data": {"x": "2"}}, type=MERGE)
    found = informer.get("a", "default")
    assert found is not None and found["data"] == {"x": "2"} and found is informer.get("a", "default")
    assert list(informer.by_index("data", "2")) == [found] and not list(informer.by_index("data", "1"))
    await api.ok("DELETE", f"{CMS}/a")
    assert informer.get("a", "default") is None and not list(informer.by_index("data", "2"))
    assert seen == [(False, True), (True, True), (True, False)]


async def test_narrow_informers_see_arrivals_and_departures(api: Api) -> None:
    resource = api.server.catalog.by_plural("", "v1", "pods")
    assert resource is not None
    informer = api.server.informers.informer(resource, field_selector="spec.nodeName=n1")
    seen: list[tuple[bool, bool]] = []
    informer.add_handler(lambda old, new: seen.append((old is not None, new is not None)))
    path = "/api/v1/namespaces/default/pods"
    await api.ok("POST", path, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    assert informer.get("p", "default") is None
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}
    await api.ok("POST", f"{path}/p/binding", binding)
    assert informer.get("p", "default") is not None and seen == [(False, True)]


async def test_what_piles_up_is_bounded_by_bytes_too(api: Api) -> None:
    limit, watcher_module.QUEUE_BYTES = watcher_module.QUEUE_BYTES, 10_000
    try:
        answer = await api.send("GET", f"{CMS}?watch=1")
        assert isinstance(answer, Stream)
        for number in range(5):
            await api.ok("POST", CMS, config_map(f"c{number}", x="y" * 4000))
        assert b"".join([chunk async for chunk in answer.chunks]).count(b"\n") < 5
    finally:
        watcher_module.QUEUE_BYTES = limit


async def test_a_watch_over_a_websocket(api: Api) -> None:
    gone = asyncio.Event()

    class Socket:
        subprotocol = ""
        sent: list[str] = []

        async def send(self, data: str | bytes) -> None:
            self.sent.append(str(data))

        async def receive(self) -> str:
            await gone.wait()
            raise ConnectionClosed

        async def close(self, code: int = 1000, reason: str = "") -> None:
            return None

    request = Request("GET", CMS, [("watch", "1")], Headers([("Upgrade", "websocket")]))
    answer = await api.server.handle(request)
    assert isinstance(answer, WebSocketUpgrade)
    serving = asyncio.ensure_future(answer.serve(Socket()))
    await api.ok("POST", CMS, config_map("a"))
    await asyncio.sleep(0.01)
    assert [orjson.loads(text)["type"] for text in Socket.sent] == ["ADDED"]
    gone.set()
    await asyncio.wait_for(serving, 2)
    assert not api.server.hub.cache(api.server.catalog.by_plural("", "v1", "configmaps")).watchers  # type: ignore[arg-type]
