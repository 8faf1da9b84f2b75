"""Many writers with compare-and-swap on few keys, watchers beside, and a server that is killed meanwhile.

Every write raises a counter by one from the state it has read. So: no two acknowledged writes have the same number (no lost
update), a read that begins after an acknowledgement shows at least that number (also after kill -9), and whoever watches sees
every number once, in order, under growing revisions, across the restarts, without ever being told to start over.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.wire.whole_server import WholeServer

KEYS = ("a", "b", "c")
WRITERS = 8
SPACE = "linear"
PATH = f"/api/v1/namespaces/{SPACE}/configmaps"
_LOST = (aiohttp.ClientError, ConnectionError, TimeoutError, asyncio.IncompleteReadError, ssl.SSLError)
Object = dict[str, Any]


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    server = WholeServer(tmp_path_factory.mktemp("linear"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Record:
    """What was told to whom."""

    def __init__(self) -> None:
        # key -> number -> revision, of acknowledged writes.
        self.acknowledged: dict[str, dict[int, int]] = defaultdict(dict)
        self.unknown: dict[str, int] = defaultdict(int)
        self.highest: dict[str, int] = defaultdict(int)
        self.conflicts = self.reads = 0
        self.stopping = False

    def acknowledge(self, key: str, number: int, revision: int) -> None:
        assert number not in self.acknowledged[key], f"{key}: two writers were both told that they wrote {number}"
        self.acknowledged[key][number] = revision
        self.highest[key] = max(self.highest[key], number)


class Client:
    def __init__(self, server: WholeServer) -> None:
        self.server = server
        self.base = f"https://127.0.0.1:{server.port}"
        self.session: aiohttp.ClientSession

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Client]:
        connector = aiohttp.TCPConnector(ssl=self.server.tls(), limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(20)) as self.session:
            yield self

    async def call(self, method: str, path: str, body: Object | None = None) -> tuple[int, Any]:
        async with self.session.request(method, self.base + path, json=body) as answer:
            return answer.status, orjson.loads(await answer.read())


def _number(obj: Object) -> int:
    return int(obj["data"]["n"])


def _revision(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])


async def _write(client: Client, record: Record, own: int) -> None:
    turn = own
    while not record.stopping:
        key = KEYS[turn % len(KEYS)]
        turn += 1
        known = record.highest[key]
        try:
            status, obj = await client.call("GET", f"{PATH}/{key}")
        except _LOST:
            await asyncio.sleep(0.05)
            continue
        if status != 200:
            await asyncio.sleep(0.05)  # up again, but not ready
            continue
        record.reads += 1
        number = _number(obj)
        assert number >= known, f"{key}: read {number} after {known} was acknowledged"
        obj["data"] = {"n": str(number + 1), "by": str(own)}
        obj["metadata"]["labels"] = {"even": str(number % 2)}
        try:
            status, made = await client.call("PUT", f"{PATH}/{key}", obj)
        except _LOST:
            record.unknown[key] += 1
            continue
        if status == 200:
            record.acknowledge(key, number + 1, _revision(made))
        elif status == 409:
            record.conflicts += 1
        else:
            record.unknown[key] += 1


async def _read(client: Client, record: Record, query: str) -> None:
    """Lists are consistent, too: in pages as in one piece."""
    while not record.stopping:
        known = dict(record.highest)
        try:
            status, listing = await client.call("GET", f"{PATH}?{query}")
        except _LOST:
            status = 0
        if status != 200:
            await asyncio.sleep(0.05)
            continue
        record.reads += 1
        for obj in listing["items"]:
            key = obj["metadata"]["name"]
            if key in known:
                assert _number(obj) >= known[key], f"list: {key} shows {_number(obj)} after {known[key]} was acknowledged"
            assert _revision(obj) <= int(listing["metadata"]["resourceVersion"])


async def _watch(client: Client, record: Record, query: str, start: int, seen: list[tuple[str, str, int, int]]) -> None:
    """Events as (type, key, number, revision) until the watch has shown what `record` has, after the end."""
    at = start
    while True:
        try:
            target = f"{client.base}{PATH}?watch=1&allowWatchBookmarks=true&resourceVersion={at}{query}"
            async with client.session.get(target, timeout=aiohttp.ClientTimeout(sock_connect=5)) as answer:
                if answer.status != 200:
                    await asyncio.sleep(0.05)
                    continue
                async for line in answer.content:
                    event = orjson.loads(line)
                    assert event["type"] != "ERROR", f"from {at}: {event}"
                    revision = _revision(event["object"])
                    assert revision > at, f"revision {revision} after {at}"
                    at = revision
                    obj = event["object"]
                    if obj["metadata"].get("name") in KEYS:  # a bookmark has none, and the namespace's CA bundle is not ours
                        seen.append((event["type"], obj["metadata"]["name"], _number(obj), revision))
        except _LOST:
            await asyncio.sleep(0.02)


async def _until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)


async def _load(client: Client, disturb: Callable[[Record], Coroutine[Any, Any, None]]) -> None:
    status, space = await client.call("POST", "/api/v1/namespaces", {"metadata": {"name": SPACE}})
    assert status in (201, 409), space
    record, start = Record(), 0
    for key in KEYS:
        body = {"metadata": {"name": key, "labels": {"even": "1"}}, "data": {"n": "0"}}
        status, made = await client.call("POST", PATH, body)
        assert status == 201, made
        start = _revision(made)
    all_seen: list[tuple[str, str, int, int]] = []
    one_seen: list[tuple[str, str, int, int]] = []
    some_seen: list[tuple[str, str, int, int]] = []
    async with asyncio.TaskGroup() as tasks:
        watches = [
            tasks.create_task(_watch(client, record, "", start, all_seen)),
            tasks.create_task(_watch(client, record, "&fieldSelector=metadata.name%3Da", start, one_seen)),
            tasks.create_task(_watch(client, record, "&labelSelector=even%3D0", start, some_seen)),
        ]
        loads = [tasks.create_task(_write(client, record, own)) for own in range(WRITERS)]
        loads += [tasks.create_task(_read(client, record, query)) for query in ("limit=2", "labelSelector=even")]
        await disturb(record)
        record.stopping = True
        await asyncio.wait(loads)
        final = {}
        for key in KEYS:
            _, obj = await client.call("GET", f"{PATH}/{key}")
            final[key] = (_number(obj), _revision(obj))
        wanted = sum(number for number, _ in final.values())
        await _until(lambda: len(all_seen) >= wanted and len(one_seen) >= final["a"][0])
        for task in watches:
            task.cancel()
    _judge(record, final, all_seen, one_seen, some_seen)
    for key in KEYS:
        await client.call("DELETE", f"{PATH}/{key}")


def _judge(
    record: Record,
    final: dict[str, tuple[int, int]],
    all_seen: list[tuple[str, str, int, int]],
    one_seen: list[tuple[str, str, int, int]],
    some_seen: list[tuple[str, str, int, int]],
) -> None:
    for key in KEYS:
        written = record.acknowledged[key]
        number, revision = final[key]
        assert len(written) <= number <= len(written) + record.unknown[key], f"{key}: an update was lost or invented"
        told = [(event[2], event[3]) for event in all_seen if event[1] == key]
        assert [n for n, _ in told] == list(range(1, number + 1)), f"{key}: the watch missed or repeated something"
        assert told[-1] == (number, revision)
        assert written.items() <= dict(told).items(), f"{key}: an answer had another revision than the event"
        order = [written[n] for n in sorted(written)]
        assert order == sorted(order)
    assert [event for event in all_seen if event[1] == "a"] == one_seen
    # Under the selector even numbers are hidden: each odd one arrives, and leaves under the next one's revision.
    revisions = {(key, number): revision for _, key, number, revision in all_seen}
    for key in KEYS:
        mine = [event for event in some_seen if event[1] == key]
        for arrival, departure in zip(mine[::2], mine[1::2], strict=False):
            assert (arrival[0], departure[0]) == ("ADDED", "DELETED") and arrival[2] == departure[2]
            assert arrival[3] == revisions[key, arrival[2]] and departure[3] == revisions[key, arrival[2] + 1]
    assert record.conflicts and record.reads and sum(len(found) for found in record.acknowledged.values()) > 50


async def test_concurrent_writers(own_server: WholeServer) -> None:
    async def calm(record: Record) -> None:
        await _until(lambda: sum(record.highest.values()) > 400)

    async with Client(own_server).open() as client:
        await _load(client, calm)


async def test_writers_and_watchers_across_kills(own_server: WholeServer, tmp_path: Path) -> None:
    async def killed(record: Record) -> None:
        for _ in range(2):
            before = sum(record.highest.values())
            await _until(lambda before=before: sum(record.highest.values()) > before + 150)  # type: ignore[misc]
            await asyncio.to_thread(own_server.kill)
            await asyncio.to_thread(own_server.start)
        before = sum(record.highest.values())
        await _until(lambda: sum(record.highest.values()) > before + 100)

    async with Client(own_server).open() as client:
        await _load(client, killed)


async def test_a_watch_goes_on_across_an_orderly_restart(own_server: WholeServer) -> None:
    """Also of what is written volatile (leases): an orderly stop loses nothing."""
    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    async with Client(own_server).open() as client:
        revisions = []
        for number in range(3):
            status, made = await client.call("POST", leases, {"metadata": {"name": f"l{number}"}, "spec": {}})
            assert status == 201, made
            revisions.append(_revision(made))
        await asyncio.to_thread(own_server.stop)
        await asyncio.to_thread(own_server.start)
        selector = "fieldSelector=metadata.namespace%3Ddefault"
        target = f"{client.base}{leases}?watch=1&resourceVersion={revisions[0]}&timeoutSeconds=1&{selector}"
        async with client.session.get(target) as answer:
            events = [orjson.loads(line) async for line in answer.content]
        names = [event["object"]["metadata"]["name"] for event in events if event["type"] == "ADDED"]
        assert names[:2] == ["l1", "l2"], events
