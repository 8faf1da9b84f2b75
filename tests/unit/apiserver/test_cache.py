"""The watch cache between the store and everybody: gaps in the feed, origins, a full disk, the ring's bounds."""

from __future__ import annotations

import asyncio

import pytest

from k1s.api.catalog import builtin
from k1s.server.apiserver import resource_cache
from k1s.server.apiserver.entries import encode, head_of, splice
from k1s.storage.errors import Closed, StoreError, StoreFull
from k1s.storage.interface import Origin
from k1s.storage.memory import MemoryStore
from tests.unit.apiserver.conftest import CMS, Api, config_map, running

CONFIG_MAP = builtin("ConfigMap")


def test_the_version_is_put_in_without_decoding() -> None:
    head = head_of(CONFIG_MAP)
    body = {"data": {"a": "b"}, "metadata": {"name": "x", "resourceVersion": "old"}, "kind": "ConfigMap", "apiVersion": "v1"}
    value = encode(body, head)
    assert value == b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"b"}}'
    assert splice(value, head, 7).startswith(head + b'"resourceVersion":"7",')
    foreign = b'{"metadata":{"name":"x"},"kind":"ConfigMap","apiVersion":"v1"}'
    assert b'"resourceVersion":"7"' in splice(foreign, head, 7)
    with pytest.raises(ValueError, match="does not begin"):
        encode({**body, "kind": "Secret"}, head)


async def test_a_gap_in_the_feed_is_bridged(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.ok("POST", CMS, config_map("stays"))
    await api.ok("POST", CMS, config_map("goes"))
    cache = api.server.hub.cache(CONFIG_MAP)
    watch = await api.watch(f"{CMS}?watch=1&resourceVersion={api.store.revision}")
    seen: list[str] = []
    api.server.informers.informer(CONFIG_MAP).add_handler(
        lambda old, new: seen.append(("+" if old is None else "~" if new else "-") + (new or old or {})["metadata"]["name"])
    )
    seen.clear()
    origin = Origin("test", "create")
    # The feed stays silent about a deletion, as after a gap.
    prefix = "/registry/configmaps/default/"
    value = encode({**config_map("new"), "metadata": {"name": "new", "namespace": "default"}}, cache.head)

    api.server.hub._feed = lambda events: None  # type: ignore[method-assign]
    await api.store.delete(f"{prefix}goes", origin=origin)
    await asyncio.sleep(0.01)
    del api.server.hub._feed
    await api.store.create(f"{prefix}new", value, origin=origin)
    await asyncio.sleep(0.01)
    await api.server.hub._reload()
    assert cache.all_keys() == ["default/new", "default/stays"] and "-goes" in seen and "+new" in seen
    with pytest.raises((StopAsyncIteration, AssertionError)):
        while True:
            assert (await watch.next())["type"] in ("ADDED", "DELETED")


async def test_who_wrote_and_why_is_kept(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    origins: list[Origin] = []
    real = api.store.create

    async def create(key: str, value: bytes, *, origin: Origin, volatile: bool = False) -> int:
        origins.append(origin)
        return await real(key, value, origin=origin, volatile=volatile)

    monkeypatch.setattr(api.store, "create", create)
    await api.ok("POST", CMS, config_map("a"))
    assert origins == [Origin("admin", "create", 0)]


@pytest.mark.parametrize(("error", "status"), [(StoreFull("disk"), 507), (Closed("shut"), 503), (StoreError("odd"), 500)])
async def test_what_the_store_cannot_is_a_status(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: StoreError, status: int
) -> None:
    async def create(*_: object, **__: object) -> int:
        raise error

    monkeypatch.setattr(api.store, "create", create)
    answer = await api("POST", CMS, config_map("a"))
    assert answer.status == status and answer.json["kind"] == "Status"


async def test_the_ring_is_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource_cache, "RING_CHANGES", 5)
    first = await api.ok("POST", CMS, config_map("c0"))
    for number in range(1, 10):
        await api.ok("POST", CMS, config_map(f"c{number}"))
    assert len(api.server.hub.cache(CONFIG_MAP)._ring) == 5
    watch = await api.watch(f"{CMS}?watch=1&resourceVersion={first['metadata']['resourceVersion']}")
    assert await watch.some(9) == [("ADDED", f"c{number}") for number in range(1, 10)] and await watch.quiet()


async def test_leases_and_events_are_volatile(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, bool] = {}
    real = MemoryStore.create

    async def create(self: MemoryStore, key: str, value: bytes, *, origin: Origin, volatile: bool = False) -> int:
        seen[key.split("/")[2]] = volatile
        return await real(self, key, value, origin=origin, volatile=volatile)

    monkeypatch.setattr(MemoryStore, "create", create)
    async with running() as api:
        await api.ok("POST", CMS, config_map("a"))
        lease = {"metadata": {"name": "l"}, "spec": {}}
        await api.ok("POST", "/apis/coordination.k8s.io/v1/namespaces/default/leases", lease)
        reference = {"kind": "Pod", "name": "p", "namespace": "default"}
        event = {"metadata": {"name": "e"}, "involvedObject": reference, "reason": "r", "type": "Normal"}
        await api.ok("POST", "/api/v1/namespaces/default/events", event)
        found = await api.ok("GET", "/apis/events.k8s.io/v1/namespaces/default/events")
        assert found["items"][0]["regarding"]["name"] == "p"
        by_field = await api.ok("GET", "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp,reason=r")
        assert len(by_field["items"]) == 1
    assert seen == {"configmaps": False, "coordination.k8s.io": True, "events": True}


async def test_reads_do_not_wait_for_the_stores_own_bookkeeping(api: Api) -> None:
    """A key outside /registry/ moves the store's revision too (marks of expiring keys): a consistent read must not hang."""
    await api.store.create("/k1s/expiry/registry/events/", b"{}", origin=Origin("test"))
    async with asyncio.timeout(2):
        await api.server.hub.fresh()
