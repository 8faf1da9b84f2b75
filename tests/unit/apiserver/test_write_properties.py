"""Random objects through every way to write: what is read is what was written, nothing moves without cause, ownership replays.

One server serves all examples; each takes names of its own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k1s.api.patch.merge import create_merge_patch
from tests.unit.apiserver.conftest import CMS, DEPLOYMENTS, Api, running
from tests.unit.apiserver.crd_rig import WIDGETS, define

Object = dict[str, Any]
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
JSON_PATCH, APPLY = "application/json-patch+json", "application/apply-patch+yaml"

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
_numbers = itertools.count()


class Rig:
    def __init__(self, runner: asyncio.Runner, api: Api) -> None:
        self._runner, self.api = runner, api

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        self._runner.run(scenario)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def start() -> Api:
            api = await stack.enter_async_context(running())
            await define(api)
            return api

        try:
            yield Rig(runner, runner.run(start()))
        finally:
            runner.run(stack.aclose())


# Objects

KEYS = st.sampled_from("abcde")
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=6)
LABELS = st.dictionaries(KEYS, st.sampled_from(["", "x", "y-1"]), max_size=2)
LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e6, 1e6, allow_nan=False) | TEXTS
FREE = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)
ENV = st.lists(st.fixed_dictionaries({"name": KEYS, "value": TEXTS.filter(bool)}), unique_by=lambda e: e["name"], max_size=3)
RESOURCES = st.fixed_dictionaries({}, optional={"limits": st.dictionaries(st.just("cpu"), st.sampled_from(["1", "500m"]))})
CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["c1", "c2", "c3"]), "image": st.sampled_from(["i:1", "j"])},
        optional={"env": ENV, "command": st.lists(st.sampled_from(["sh", "-c"]), max_size=2), "resources": RESOURCES},
    ),
    unique_by=lambda c: c["name"],
    min_size=1,
    max_size=3,
)


def deployments() -> st.SearchStrategy[Object]:
    def build(replicas: int, paused: bool, labels: Object, containers: list[Object]) -> Object:
        spec = {"replicas": replicas, "paused": paused, "selector": {"matchLabels": {"app": "x"}}}
        spec["template"] = {"metadata": {"labels": {**labels, "app": "x"}}, "spec": {"containers": containers}}
        return spec

    return st.builds(build, st.integers(0, 5), st.booleans(), LABELS, CONTAINERS)


PORT = st.fixed_dictionaries({"port": st.integers(1, 3)}, optional={"protocol": st.sampled_from(["TCP", "UDP"]), "host": KEYS})
WIDGET_SPECS = st.fixed_dictionaries(
    {},
    optional={
        "size": st.integers(-(2**31), 2**31),
        "color": TEXTS,
        "tags": st.lists(KEYS, unique=True, max_size=4),
        "ports": st.lists(PORT, unique_by=lambda p: (p["port"], p.get("protocol", "TCP")), max_size=4),
        "steps": st.lists(st.dictionaries(KEYS, FREE, max_size=2), max_size=2),
        "options": st.dictionaries(KEYS, TEXTS, max_size=3),
        "atom": st.dictionaries(KEYS, TEXTS, max_size=2),
        "any": st.dictionaries(KEYS, FREE, max_size=3),
        "maybe": st.none() | TEXTS,
    },
)


@dataclass
class Kind:
    """`content`: the top-level field that holds what is written."""

    target: str
    head: Object
    content: str
    values: st.SearchStrategy[Object]
    generation: bool = True

    def body(self, name: str, content: Object, labels: Object) -> Object:
        return {**self.head, "metadata": {"name": name, "labels": labels}, self.content: content}


KINDS = {
    "ConfigMap": Kind(CMS, {"apiVersion": "v1", "kind": "ConfigMap"}, "data", st.dictionaries(KEYS, TEXTS, max_size=4), False),
    "Deployment": Kind(DEPLOYMENTS, {"apiVersion": "apps/v1", "kind": "Deployment"}, "spec", deployments()),
    "Widget": Kind(WIDGETS, {"apiVersion": "example.com/v1", "kind": "Widget"}, "spec", WIDGET_SPECS),
}
CASES = st.sampled_from(sorted(KINDS)).flatmap(
    lambda kind: st.tuples(st.just(KINDS[kind]), st.lists(st.tuples(KINDS[kind].values, LABELS), min_size=2, max_size=4))
)


def written(value: Any) -> Any:
    """What a built-in kind keeps of a value: neither nulls nor empty maps and lists."""
    if isinstance(value, dict):
        return {k: written(v) for k, v in value.items() if v is not None and written(v) not in ({}, [])}
    return [written(item) for item in value] if isinstance(value, list) else value


def holds(wanted: Any, found: Any) -> bool:
    """Does `found` say everything that `wanted` says, lists in the same order? A false need not be said."""
    if isinstance(wanted, dict):
        said = {k: v for k, v in wanted.items() if v is not False}
        return isinstance(found, dict) and all(k in found and holds(v, found[k]) for k, v in said.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and len(wanted) == len(found) and all(map(holds, wanted, found))
    return type(wanted) is type(found) and bool(wanted == found)


def essence(obj: Object) -> Object:
    """An object without what two writes of the same differ in."""
    meta = {k: v for k, v in obj["metadata"].items() if k not in ("resourceVersion", "uid", "creationTimestamp", "managedFields")}
    return {**obj, "metadata": meta}


async def _writes(api: Api, kind: Kind, steps: list[tuple[Object, Object]]) -> None:
    name = f"o{next(_numbers)}"
    target = f"{kind.target}/{name}"
    (content, labels), *later = steps
    body = kind.body(name, content, labels)
    shown = await api.ok("POST", f"{kind.target}?dryRun=All", body)
    assert (await api("GET", target)).status == 404
    live = await api.ok("POST", kind.target, body)
    assert essence(shown) == essence(live) and await api.ok("GET", target) == live
    for content, labels in later:
        wanted = content if kind.head["kind"] == "Widget" else written(content)
        await _unmoved(api, kind, target, live)
        replaced = {**kind.body(name, content, labels), "metadata": {**live["metadata"], "labels": labels}}
        shown = await api.ok("PUT", f"{target}?dryRun=All", replaced)
        assert await api.ok("GET", target) == live
        new = await api.ok("PUT", target, replaced)
        assert essence(shown) == essence(new) and await api.ok("GET", target) == new
        assert holds(wanted, new.get(kind.content) or {}), "what is read is what was written"
        assert (new["metadata"].get("labels") or {}) == labels
        moved = new.get(kind.content) != live.get(kind.content)
        if kind.generation:
            assert new["metadata"]["generation"] == live["metadata"]["generation"] + moved
        changed = essence(new) != essence(live)
        assert (new["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]) == changed
        live = new


async def _unmoved(api: Api, kind: Kind, target: str, live: Object) -> None:
    """Writes that change nothing change nothing."""
    before = api.store.revision
    patches: list[tuple[str, Any]] = [(MERGE, {}), (JSON_PATCH, []), (MERGE, {kind.content: {}, "metadata": {"labels": {}}})]
    # Merge patches cannot say null inside of an object that is not there yet; inside of one that is, it removes.
    if kind.head["kind"] != "Widget":
        patches += [(MERGE, {kind.content: live.get(kind.content)} if kind.content in live else {}), (STRATEGIC, {})]
        patches.append((STRATEGIC, {kind.content: live.get(kind.content)} if kind.content in live else {}))
    for type, patch in patches:
        assert await api.ok("PATCH", target, patch, type=type) == live, (type, patch)
    assert await api.ok("PUT", target, live) == live
    unversioned = {**live, "metadata": {k: v for k, v in live["metadata"].items() if k not in ("managedFields", "uid")}}
    assert await api.ok("PUT", target, unversioned) == live
    assert api.store.revision == before


@FEW
@given(case=CASES)
def test_what_is_written_is_read_and_nothing_else_moves(rig: Rig, case: tuple[Kind, list[tuple[Object, Object]]]) -> None:
    rig.run(_writes(rig.api, *case))


async def _patched(api: Api, one: Object, other: Object) -> None:
    name = f"o{next(_numbers)}"
    head = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}}
    live = await api.ok("POST", WIDGETS, {**head, "spec": {"any": one}})
    patched = await api.ok("PATCH", f"{WIDGETS}/{name}", {"spec": {"any": create_merge_patch(one, other)}}, type=MERGE)
    assert patched["spec"]["any"] == other
    status = await api.ok("PATCH", f"{WIDGETS}/{name}/status", {"status": {"phase": "p"}, "spec": {"any": one}}, type=MERGE)
    assert status["spec"] == patched["spec"] and status["status"] == {"phase": "p"}
    assert status["metadata"]["generation"] == patched["metadata"]["generation"]
    replaced = [{"op": "replace", "path": "/spec/any", "value": one}, {"op": "test", "path": "/spec/any", "value": one}]
    back = await api.ok("PATCH", f"{WIDGETS}/{name}", replaced, type=JSON_PATCH)
    assert back["spec"] == live["spec"] and back["status"] == {"phase": "p"}


def no_nulls(value: Any) -> Any:
    """A merge patch cannot write null into an object."""
    if isinstance(value, dict):
        return {k: no_nulls(v) for k, v in value.items() if v is not None}
    return [no_nulls(v) for v in value] if isinstance(value, list) else value


@FEW
@given(one=st.dictionaries(KEYS, FREE, max_size=3), other=st.dictionaries(KEYS, FREE, max_size=3))
def test_patches_say_what_they_say(rig: Rig, one: Object, other: Object) -> None:
    rig.run(_patched(rig.api, no_nulls(one), no_nulls(other)))


# Ownership against a simple model: who owns which key of a ConfigMap's data.

Owner = tuple[str, str]
DATA = st.dictionaries(st.sampled_from("abc"), st.sampled_from("123"), max_size=3)
STEPS = st.lists(
    st.tuples(st.sampled_from(["apply", "force", "put", "merge"]), st.sampled_from(["one", "two", "three"]), DATA),
    min_size=2,
    max_size=8,
)


@dataclass
class Model:
    data: dict[str, str] = field(default_factory=dict)
    owners: dict[str, set[Owner]] = field(default_factory=dict)

    def conflicts(self, me: Owner, wanted: dict[str, str]) -> set[str]:
        return {k for k, v in wanted.items() if k in self.data and self.data[k] != v and self.owners[k] - {me}}

    def apply(self, me: Owner, wanted: dict[str, str]) -> None:
        for key in [k for k, who in self.owners.items() if me in who and k not in wanted]:
            self.owners[key].discard(me)
            if not self.owners[key]:
                del self.owners[key], self.data[key]
        for key, value in wanted.items():
            if self.data.get(key) != value:
                self.owners[key] = set()
            self.data[key] = value
            self.owners[key].add(me)

    def update(self, me: Owner, wanted: dict[str, str], tracked: bool) -> None:
        for key in self.data.keys() - wanted.keys():
            del self.data[key], self.owners[key]
        for key, value in wanted.items():
            if self.data.get(key) != value:
                self.owners[key] = {me} if tracked else set()
            self.data[key] = value


def recorded(obj: Object) -> dict[str, set[Owner]]:
    out: dict[str, set[Owner]] = {}
    for entry in obj["metadata"].get("managedFields") or []:
        for element in entry["fieldsV1"].get("f:data", {}):
            if element.startswith("f:"):
                out.setdefault(element[2:], set()).add((entry["manager"], entry["operation"]))
    return out


def holders(obj: Object) -> set[Owner]:
    """Who owns `data` itself: updaters that made it, and who applied it empty."""
    entries = obj["metadata"].get("managedFields") or []
    found = [e for e in entries if e["fieldsV1"].get("f:data") == {} or "." in e["fieldsV1"].get("f:data", ())]
    return {(entry["manager"], entry["operation"]) for entry in found}


async def _owned(api: Api, steps: list[tuple[str, str, dict[str, str]]]) -> None:
    name = f"o{next(_numbers)}"
    target = f"{CMS}/{name}"
    head: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    live = await api.ok("POST", f"{CMS}?fieldManager=maker", {**head, "data": {"a": "1"}})
    model = Model({"a": "1"}, {"a": {("maker", "Update")}})
    for what, manager, data in steps:
        await api.clock.advance(1)
        tracked = bool(live["metadata"].get("managedFields"))
        body = {**head, "data": data} if data else head
        if what in ("apply", "force"):
            me = (manager, "Apply")
            if not tracked:
                for key in model.data:
                    model.owners[key] = {("before-first-apply", "Update")}
            query = f"fieldManager={manager}&force={what == 'force'}"
            answer = await api("PATCH", f"{target}?{query}", body, type=APPLY)
            conflicts = {f".data.{key}" for key in model.conflicts(me, data)}
            if data and "data" not in live and holders(live) - {me}:
                conflicts.add(".data")
            if conflicts and what == "apply":
                assert answer.status == 409
                assert {c["field"] for c in answer.json["details"]["causes"]} == conflicts
                assert await api.ok("GET", target) == live
                if not tracked:
                    model.owners = {key: set() for key in model.data}
                continue
            assert answer.status == 200, answer.raw
            model.apply(me, data)
            again = await api.ok("PATCH", f"{target}?{query}", body, type=APPLY)
            assert again == answer.json, "the same again changes nothing"
        elif what == "put":
            await api.ok("PUT", f"{target}?fieldManager={manager}", body)
            model.update((manager, "Update"), data, tracked)
        else:
            await api.ok("PATCH", f"{target}?fieldManager={manager}", {"data": data}, type=MERGE)
            model.update((manager, "Update"), {**model.data, **data}, tracked)
        live = await api.ok("GET", target)
        assert (live.get("data") or {}) == model.data
        assert recorded(live) == {key: who for key, who in model.owners.items() if who}
    await _replayed(api, target, head, live)


async def _replayed(api: Api, target: str, head: Object, live: Object) -> None:
    """Who applies just what it owns, as it is, changes nothing (what client-go's Extract functions rely on)."""
    for manager in {name for who in recorded(live).values() for name, operation in who if operation == "Apply"}:
        mine = {key: live["data"][key] for key, who in recorded(live).items() if (manager, "Apply") in who}
        assert await api.ok("PATCH", f"{target}?fieldManager={manager}", {**head, "data": mine}, type=APPLY) == live


@FEW
@given(steps=STEPS)
def test_ownership_follows_the_model(rig: Rig, steps: list[tuple[str, str, dict[str, str]]]) -> None:
    rig.run(_owned(rig.api, steps))


async def _applied(api: Api, steps: list[tuple[str, Object]]) -> None:
    name = f"o{next(_numbers)}"
    target = f"{WIDGETS}/{name}"
    head = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}}
    for manager, spec in steps:
        query = f"?fieldManager={manager}&force=true"
        shown = await api("PATCH", f"{target}{query}&dryRun=All", {**head, "spec": spec}, type=APPLY)
        live = await api.ok("PATCH", f"{target}{query}", {**head, "spec": spec}, type=APPLY)
        assert essence(shown.json) == essence(live)
        single = {k: v for k, v in spec.items() if k not in ("tags", "ports")}
        assert holds(no_nulls_at_top(single), live["spec"]), "what is applied holds"
        assert set(spec.get("tags") or ()) <= set(live["spec"].get("tags") or ())
        if manager not in {entry["manager"] for entry in live["metadata"].get("managedFields") or []}:
            # Who wants nothing has no entry, and so leaves no trace of having applied.
            return
        again = await api.ok("PATCH", target + query.replace("&force=true", ""), {**head, "spec": spec}, type=APPLY)
        assert again == live, "a second time changes nothing, and needs no force"
    for manager in sorted({manager for manager, _ in steps}):
        live = await api.ok("PATCH", f"{target}?fieldManager={manager}", head, type=APPLY)
    assert live.get("spec") in (None, {}, {"color": "blue"}), "nobody wants anything any more"


def no_nulls_at_top(spec: Object) -> Object:
    """Maps that are laid over what others want hold at least what was applied; empty ones nothing."""
    return {k: v for k, v in spec.items() if v not in ({}, []) and k != "any"}


@FEW
@given(steps=st.lists(st.tuples(st.sampled_from(["one", "two"]), WIDGET_SPECS), min_size=1, max_size=4))
def test_applied_configurations_hold_and_go(rig: Rig, steps: list[tuple[str, Object]]) -> None:
    rig.run(_applied(rig.api, steps))
