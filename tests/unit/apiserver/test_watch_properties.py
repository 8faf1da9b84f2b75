"""A watch from any revision, applied to the list of that revision, gives the list of now: random writes, forgetting, restarts."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k1s.api.catalog import builtin
from k1s.base.clock import VirtualClock
from k1s.server.apiserver.app import ApiServer
from k1s.storage.sql.backend import SqlStore
from tests.unit.apiserver.conftest import AllowAll, Api, Object

NAMES, SPACES = ("a", "b", "c"), ("one", "two")
_key = st.tuples(st.sampled_from(SPACES), st.sampled_from(NAMES))
_operation = st.one_of(
    st.tuples(st.just("put"), _key, st.sampled_from(("", "x", "y"))),
    st.tuples(st.just("delete"), _key, st.just("")),
    st.tuples(st.sampled_from(("forget", "compact", "restart")), _key, st.just("")),
)
Model = dict[tuple[str, str], tuple[str, str]]

# Query and path of a selection, and the same said in Python: (namespace, name, label) -> wanted.
SELECTIONS: dict[str, tuple[str, Callable[[str, str, str], bool]]] = {
    "": ("/api/v1/configmaps", lambda space, name, label: True),
    "namespace": ("/api/v1/namespaces/one/configmaps", lambda space, name, label: space == "one"),
    "labelSelector=in=x": ("/api/v1/configmaps", lambda space, name, label: label == "x"),
    "labelSelector=in!=x": ("/api/v1/namespaces/two/configmaps", lambda space, name, label: label != "x" and space == "two"),
    "fieldSelector=metadata.name=b": ("/api/v1/configmaps", lambda space, name, label: name == "b"),
}


class Rig:
    """A server over a file, which can be started again."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def start(self) -> None:
        self.store = SqlStore(self._file, synchronous="NORMAL")
        await self.store.open()
        clock = VirtualClock()
        self.server = ApiServer(self.store, authenticator=AllowAll(), authorizer=AllowAll(), clock=clock)
        ready = asyncio.Event()
        self._task = asyncio.create_task(self.server.run(ready.set))
        await asyncio.wait_for(ready.wait(), 5)
        self.api = Api(self.server, clock, self.store)  # type: ignore[arg-type]

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.store.close()


async def _apply(rig: Rig, operation: tuple[str, tuple[str, str], str], model: Model) -> Model:
    what, (space, name), label = operation
    path = f"/api/v1/namespaces/{space}/configmaps"
    if what == "put":
        body: Object = {"metadata": {"name": name, "labels": {"in": label} if label else {}}, "data": {"n": str(len(model))}}
        there = (space, name) in model
        method, target = ("PUT", f"{path}/{name}") if there else ("POST", path)
        made = await rig.api.ok(method, target, body)
        return {**model, (space, name): (made["metadata"]["resourceVersion"], label)}
    if what == "delete" and (space, name) in model:
        await rig.api.ok("DELETE", f"{path}/{name}")
        return {key: value for key, value in model.items() if key != (space, name)}
    if what == "forget":
        rig.server.hub.cache(builtin("ConfigMap")).begin(rig.store.revision)
    elif what == "compact":
        await rig.store.compact(rig.store.revision - rig.store.revision // 4)
    elif what == "restart":
        await rig.stop()
        await rig.start()
    return model


def _seen(obj: Object) -> tuple[tuple[str, str], tuple[str, str]]:
    meta = obj["metadata"]
    return (meta["namespace"], meta["name"]), (meta["resourceVersion"], (meta.get("labels") or {}).get("in", ""))


async def _rebuild(rig: Rig, selection: str, at: int, past: Model, now: Model) -> None:
    path, wanted = SELECTIONS[selection]
    query = "&" + selection.partition("=")[0] + "=" + quote(selection.partition("=")[2]) if "=" in selection else ""
    listing = await rig.api("GET", f"{path}?resourceVersion={at}&resourceVersionMatch=Exact{query}")
    watch = await rig.api.watch(f"{path}?watch=1&resourceVersion={at}{query}")
    if listing.status == 410:
        event = await watch.next()
        # Memory may reach further back than the log: then the watch is served, and is checked by its own end below.
        assert at < rig.store.compacted_revision and event["type"] in ("ERROR", "ADDED", "MODIFIED", "DELETED")
        await watch.close()
        return
    selected = {key: value for key, value in past.items() if wanted(*key, value[1])}
    assert dict(_seen(obj) for obj in listing.json["items"]) == selected
    state, newest = dict(selected), at
    expected = {key: value for key, value in now.items() if wanted(*key, value[1])}
    while state != expected:
        event = await watch.next()
        assert event["type"] != "ERROR", event
        key, value = _seen(event["object"])
        assert int(value[0]) > newest, "a revision out of order"
        newest = int(value[0])
        assert (event["type"] == "ADDED") == (key not in state)
        if event["type"] == "DELETED":
            del state[key]
        else:
            state[key] = value
    await watch.close()


async def _scenario(operations: list[Any], starts: list[int], selections: list[str]) -> None:
    with tempfile.TemporaryDirectory() as home:
        rig = Rig(Path(home) / "state.db")
        await rig.start()
        try:
            model: Model = {}
            history: list[tuple[int, Model]] = [(rig.store.revision, model)]
            for operation in operations:
                model = await _apply(rig, operation, model)
                history.append((rig.store.revision, model))
            for start, selection in zip(starts, selections, strict=False):
                at, past = history[start % len(history)]
                await _rebuild(rig, selection, at, past, model)
        finally:
            await rig.stop()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(_operation, min_size=3, max_size=25),
    st.lists(st.integers(0, 1000), min_size=4, max_size=4),
    st.lists(st.sampled_from(sorted(SELECTIONS)), min_size=4, max_size=4),
)
def test_a_watch_from_any_revision_rebuilds_the_list(operations: list[Any], starts: list[int], selections: list[str]) -> None:
    asyncio.run(_scenario(operations, starts, selections))
