"""Events through both of their groups: one store, two sets of fields, and rules that go by the group asked for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.conftest import Api, Object

NEW, OLD = "/apis/events.k8s.io/v1/namespaces/default/events", "/api/v1/namespaces/default/events"
MERGE = "application/merge-patch+json"
SERIES = {"count": 2, "lastObservedTime": "2026-01-02T03:04:06.000000Z"}


def new_event(name: str, **fields: Any) -> Object:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "labels": {"testevent": name}},
        "eventTime": "2026-01-02T03:04:05.678901Z",
        "reportingController": "example.com/a",
        "reportingInstance": "a-0",
        "action": "Do",
        "reason": "Done",
        "type": "Normal",
        "note": "it is done",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p", "uid": "u"},
        **fields,
    }


def old_event(name: str, **fields: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "reason": "Pulled",
        "type": "Warning",
        "source": {"component": "kubelet", "host": "n"},
        "firstTimestamp": "2026-01-02T03:04:05Z",
        "lastTimestamp": "2026-01-02T03:04:05Z",
        "count": 1,
        **fields,
    }


async def refused(api: Api, method: str, path: str, body: Object, **options: Any) -> list[tuple[str, str]]:
    answer = await api(method, path, body, **options)
    assert answer.status == 422, answer.raw
    return [(cause["field"], cause["message"]) for cause in answer.json["details"]["causes"]]


REFUSED = [
    ({"eventTime": None}, [("eventTime", "Required value")]),
    ({"type": "Odd"}, [("type", 'Invalid value: "": has invalid value: Odd')]),
    ({"deprecatedCount": 1}, [("count", 'Invalid value: "": needs to be unset')]),
    ({"deprecatedSource": {"component": "a"}}, [("source", 'Invalid value: "": needs to be unset')]),
    ({"series": {**SERIES, "count": 1}}, [("series.count", 'Invalid value: "": should be at least 2')]),
    ({"reason": "x" * 129}, [("reason", 'Invalid value: "": can have at most 128 characters')]),
    ({"note": "x" * 1025}, [("message", 'Invalid value: "": can have at most 1024 characters')]),
    ({"action": ""}, [("action", "Required value")]),
    (
        {"regarding": {"kind": "Node", "name": "n", "namespace": ""}, "metadata": {"name": "a", "namespace": "other"}},
        [("involvedObject.namespace", 'Invalid value: "": does not match event.namespace')],
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=[next(iter(row[0])) for row in REFUSED])
async def test_what_the_new_group_refuses(api: Api, case: tuple[Object, list[tuple[str, str]]]) -> None:
    await api.ok("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
    fields, causes = case
    body = new_event("a") | fields
    path = NEW.replace("default", body["metadata"].get("namespace", "default"))
    assert await refused(api, "POST", path, body) == causes


async def test_the_name_of_a_field_goes_by_the_group_asked_for(api: Api) -> None:
    wanted = [("reportingController", "Required value"), ("reportingController", "Invalid value")]
    found = await refused(api, "POST", NEW, new_event("a", reportingController=""))
    assert [(field, text.split(":")[0]) for field, text in found][:2] == wanted
    old = old_event("b", eventTime="2026-01-02T03:04:05.678901Z", reportingInstance="i", action="a")
    assert {field for field, _ in await refused(api, "POST", OLD, old)} == {"reportingComponent"}


async def test_old_events_are_held_to_little(api: Api) -> None:
    await api.ok("POST", OLD, old_event("a", type="Odd", message="x" * 2000, reason=""))
    await api.ok("PATCH", f"{OLD}/a", {"reason": "Other", "count": 7, "message": "m"}, type=MERGE)
    wrong = old_event("b", involvedObject={"kind": "Pod", "namespace": "elsewhere", "name": "p"})
    causes = [("involvedObject.namespace", 'Invalid value: "elsewhere": does not match event.namespace')]
    assert await refused(api, "POST", OLD, wrong) == causes


async def test_only_the_series_of_a_new_event_moves(api: Api) -> None:
    await api.ok("POST", NEW, new_event("a"))
    moved = await api.ok("PATCH", f"{NEW}/a", {"series": SERIES}, type=MERGE)
    assert moved["series"] == SERIES
    causes = await refused(api, "PATCH", f"{NEW}/a", {"series": {"count": 1}}, type=MERGE)
    assert causes == [("series.count", 'Invalid value: "": should be at least 2')]
    for field, value, path in (("note", "other", "message"), ("reportingInstance", "b", "reportingInstance")):
        causes = await refused(api, "PATCH", f"{NEW}/a", {field: value}, type=MERGE)
        assert [(at, text.endswith("field is immutable")) for at, text in causes] == [(path, True)]
    assert (await api.ok("PATCH", f"{OLD}/a", {"message": "other"}, type=MERGE))["message"] == "other"


async def test_one_store_two_shapes(api: Api) -> None:
    await api.ok("POST", NEW, new_event("new"))
    await api.ok("POST", OLD, old_event("old"))
    as_old = await api.ok("GET", f"{OLD}/new")
    assert (as_old["involvedObject"]["name"], as_old["message"]) == ("p", "it is done")
    assert as_old["reportingComponent"] == "example.com/a"
    as_new = await api.ok("GET", f"{NEW}/old")
    assert as_new["deprecatedSource"] == {"component": "kubelet", "host": "n"}
    assert (as_new["deprecatedCount"], as_new["regarding"]["kind"]) == (1, "Pod")
    assert (as_new["apiVersion"], as_old["apiVersion"]) == ("events.k8s.io/v1", "v1")


SELECTORS = [
    (OLD, "involvedObject.kind=Pod", {"new", "old"}),
    (OLD, "involvedObject.uid=u", {"new"}),
    (OLD, "source=kubelet", {"old"}),
    (OLD, "reportingComponent=example.com/a", {"new"}),
    (OLD, "type=Warning,reason=Pulled", {"old"}),
    (OLD, "involvedObject.name!=p", set()),
    (NEW, "regarding.kind=Pod,reason=Done", {"new"}),
    (NEW, "reportingController=example.com/a", {"new"}),
    (NEW, "metadata.name=old", {"old"}),
]


@pytest.mark.parametrize(("path", "selector", "wanted"), SELECTORS, ids=[f"{row[0][:5]} {row[1]}" for row in SELECTORS])
async def test_field_selectors(api: Api, path: str, selector: str, wanted: set[str]) -> None:
    await api.ok("POST", NEW, new_event("new"))
    await api.ok("POST", OLD, old_event("old"))
    encoded = selector.replace("=", "%3D").replace("!", "%21")
    for where in (path, path.replace("/namespaces/default", "")):
        found = await api.ok("GET", f"{where}?fieldSelector={encoded}")
        assert {item["metadata"]["name"] for item in found["items"]} == wanted


async def test_the_life_of_events_as_conformance_tests_it(api: Api) -> None:
    """[sig-instrumentation] Events API: list everywhere, watch, patch, update, delete one, delete by label."""
    watch = await api.watch(f"{NEW}?watch=1&labelSelector=testevent")
    for name in ("a", "b", "c"):
        await api.ok("POST", NEW, new_event(name))
    everywhere = await api.ok("GET", "/apis/events.k8s.io/v1/events?labelSelector=testevent")
    assert [item["metadata"]["name"] for item in everywhere["items"]] == ["a", "b", "c"]
    got = await api.ok("GET", f"{NEW}/a")
    assert got["eventTime"] == "2026-01-02T03:04:05.678901Z"
    updated = await api.ok("PUT", f"{NEW}/a", {**got, "series": {"count": 100, "lastObservedTime": "2026-01-02T03:04:06Z"}})
    assert updated["series"] == {"count": 100, "lastObservedTime": "2026-01-02T03:04:06.000000Z"}
    await api.ok("DELETE", f"{NEW}/a")
    await api.ok("DELETE", f"{NEW}?labelSelector=testevent")
    assert (await api.ok("GET", NEW))["items"] == []
    seen = await watch.some(7)
    assert [kind for kind, _ in seen] == ["ADDED"] * 3 + ["MODIFIED"] + ["DELETED"] * 3
    await watch.close()
