"""WatchInformers against a server whose watches break, whose history is compacted and which goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError, service_unavailable
from k1s.base.clock import VirtualClock
from k1s.client.informer import WatchInformers
from k1s.client.interface import Informer
from k1s.client.rest import RestClient
from k1s.client.store import ObjectStore
from k1s.client.transport import LocalTransport

CONFIG_MAP = builtin("ConfigMap")


@asynccontextmanager
async def running(server: Any, clock: VirtualClock) -> AsyncIterator[Informer]:
    factory = WatchInformers(RestClient(LocalTransport(server.handle, "root"), clock=clock), clock=clock)
    task = asyncio.create_task(factory.run())
    await asyncio.sleep(0)
    try:
        yield factory.informer(CONFIG_MAP)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("never became true")


def recorder(informer: Informer) -> list[tuple[str, str]]:
    seen: list[tuple[str, str]] = []

    def handler(old: Any, new: Any) -> None:
        kind = "add" if old is None else "del" if new is None else "mod"
        seen.append((kind, (new or old)["metadata"]["name"]))

    informer.add_handler(handler)
    return seen


async def test_follows_changes_and_drops_managed_fields(server) -> None:
    server.put("a")
    async with running(server, VirtualClock()) as informer:
        seen = recorder(informer)
        await informer.synced()
        await until(lambda: bool(server.watchers))
        server.put("a", x="1")
        server.put("b")
        server.drop("a")
        await until(lambda: len(seen) == 4)
        assert seen == [("add", "a"), ("mod", "a"), ("add", "b"), ("del", "a")]
        found = informer.get("b", "default")
        assert found is not None and "managedFields" not in found["metadata"] and found["kind"] == "ConfigMap"


async def test_goes_on_from_the_last_version_without_a_new_list(server) -> None:
    clock = VirtualClock()
    server.put("a")
    async with running(server, clock) as informer:
        await informer.synced()
        await until(lambda: bool(server.watchers))
        server.emit("BOOKMARK", {"metadata": {"resourceVersion": "500"}})
        server.break_watches()
        await until(lambda: server.closed_streams == 1)
        await clock.advance(2)
        await until(lambda: bool(server.watchers))
        lists = [r for r in server.requests if not r.param("watch")]
        assert len(lists) == 1
        assert server.requests[-1].param("resourceVersion") == "500"


async def test_lists_again_after_410_and_tells_only_what_changed(server) -> None:
    clock = VirtualClock()
    server.put("same")
    server.put("gone")
    async with running(server, clock) as informer:
        seen = recorder(informer)
        await until(lambda: bool(server.watchers))
        watchers, server.watchers = server.watchers, []
        server.drop("gone")
        server.put("new")
        server.compacted = server.revision
        server.watchers = watchers
        server.break_watches()
        await until(lambda: server.closed_streams == 1)
        for _ in range(3):
            await clock.advance(5)
        assert seen[2:] == [("add", "new"), ("del", "gone")]
        assert [r.param("resourceVersion") for r in server.requests if not r.param("watch")] == ["0", ""]


async def test_lists_again_when_the_server_was_put_back_to_an_older_state(server) -> None:
    clock = VirtualClock()
    server.put("gone")
    async with running(server, clock) as informer:
        seen = recorder(informer)
        await until(lambda: bool(server.watchers))
        watchers, server.watchers = server.watchers, []
        server.drop("gone")
        server.watchers = watchers
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        server.answers = [
            server.status(ApiError(504, "Timeout", "Too large resource version: 9, current: 1", {"causes": [cause]}))
        ]
        server.break_watches()
        await until(lambda: server.closed_streams == 1)
        for _ in range(3):
            await clock.advance(5)
        assert seen[1:] == [("del", "gone")]
        assert [r.param("resourceVersion") for r in server.requests if not r.param("watch")] == ["0", ""]


async def test_waits_longer_while_the_server_is_away(server) -> None:
    clock = VirtualClock()
    server.answers = [server.status(service_unavailable("down"))] * 6
    async with running(server, clock) as informer:
        await until(lambda: len(server.requests) == 1)
        await clock.advance(200)
        await informer.synced()
        assert not server.answers


def test_store_indices_follow_changes() -> None:
    store = ObjectStore()
    store.add_index("data", lambda o: o.get("data", {}).values())
    obj = {"metadata": {"name": "a", "namespace": "n", "resourceVersion": "1", "uid": "1"}, "data": {"k": "red"}}
    store.put(obj)
    assert list(store.by_index("data", "red")) == [obj]
    store.put({**obj, "metadata": {**obj["metadata"], "resourceVersion": "2"}, "data": {"k": "blue"}})
    assert not store.by_index("data", "red") and len(list(store.by_index("data", "blue"))) == 1
    store.remove("n", "a")
    assert not store.by_index("data", "blue")


def test_an_object_made_again_is_a_deletion_and_an_addition() -> None:
    store = ObjectStore()
    seen: list[tuple[Any, Any]] = []
    store.add_handler(lambda old, new: seen.append((old and old["metadata"]["uid"], new and new["metadata"]["uid"])))
    for uid, version in (("1", "5"), ("2", "9")):
        store.put({"metadata": {"name": "a", "uid": uid, "resourceVersion": version}})
    assert seen == [(None, "1"), ("1", None), (None, "2")]
