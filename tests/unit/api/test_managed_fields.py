"""Ownership after updates: what is recorded, who loses what, times, the cap."""

from __future__ import annotations

from typing import Any

import pytest

from k1s.api import managed_fields as managed
from k1s.api.catalog import builtin
from k1s.api.clone import clone
from k1s.api.ownership import track
from k1s.api.schema import schema_for

Object = dict[str, Any]


def follow(old: Object | None, new: Object, manager: str, now: str = "t1", kind: str = "Deployment", **more: Any) -> list[Object]:
    resource = builtin(kind)
    new = clone(new)
    track(old, new, manager=manager, schema=schema_for(resource), api_version=resource.api_version, now=now, **more)
    entries: list[Object] = new["metadata"].get("managedFields", [])
    return entries


def with_entries(obj: Object, entries: list[Object]) -> Object:
    out: Object = clone(obj)
    out["metadata"]["managedFields"] = entries
    return out


DEPLOYMENT: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "a", "namespace": "n", "uid": "u", "labels": {"app": "x"}, "generation": 1},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "x"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
        "template": {
            "metadata": {"labels": {"app": "x"}},
            "spec": {
                "containers": [{"name": "c", "image": "i", "resources": {}, "ports": [{"containerPort": 80, "protocol": "TCP"}]}],
                "securityContext": {},
                "dnsPolicy": "ClusterFirst",
            },
        },
    },
    "status": {"observedGeneration": 1},
}


def test_create_is_recorded_as_upstream_does() -> None:
    [entry] = follow(None, DEPLOYMENT, "kubectl-create")
    assert entry == {
        "manager": "kubectl-create",
        "operation": "Update",
        "apiVersion": "apps/v1",
        "time": "t1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {
                        "f:containers": {
                            'k:{"name":"c"}': {
                                ".": {},
                                "f:image": {},
                                "f:name": {},
                                "f:ports": {
                                    ".": {},
                                    'k:{"containerPort":80,"protocol":"TCP"}': {
                                        ".": {},
                                        "f:containerPort": {},
                                        "f:protocol": {},
                                    },
                                },
                                "f:resources": {},
                            }
                        },
                        "f:dnsPolicy": {},
                        "f:securityContext": {},
                    },
                },
            },
        },
    }


def test_a_second_manager_takes_what_it_changes() -> None:
    live = with_entries(DEPLOYMENT, follow(None, DEPLOYMENT, "one"))
    changed = clone(live)
    changed["spec"]["replicas"] = 3
    changed["metadata"]["labels"]["new"] = "y"
    entries = follow(live, changed, "two", "t2")
    assert [(e["manager"], e["time"]) for e in entries] == [("one", "t1"), ("two", "t2")]
    assert entries[1]["fieldsV1"] == {"f:metadata": {"f:labels": {"f:new": {}}}, "f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in entries[0]["fieldsV1"]["f:spec"]
    assert "f:app" in entries[0]["fieldsV1"]["f:metadata"]["f:labels"]


def test_removed_fields_are_nobodys() -> None:
    live = with_entries(DEPLOYMENT, follow(None, DEPLOYMENT, "one"))
    changed = clone(live)
    del changed["spec"]["template"]["spec"]["dnsPolicy"]
    changed["spec"]["template"]["spec"]["containers"] = []
    [entry] = follow(live, changed, "two", "t2")
    assert entry["manager"] == "one"
    assert entry["fieldsV1"]["f:spec"]["f:template"]["f:spec"] == {"f:securityContext": {}}


def test_nothing_changed_nothing_recorded() -> None:
    live = with_entries(DEPLOYMENT, follow(None, DEPLOYMENT, "one"))
    assert follow(live, live, "two", "t2") == live["metadata"]["managedFields"]
    assert (
        follow(live, {**live, "metadata": {**live["metadata"], "generation": 9}}, "two", "t2")
        == live["metadata"]["managedFields"]
    )


def test_a_client_that_drops_the_record_does_not_erase_it() -> None:
    live = with_entries(DEPLOYMENT, follow(None, DEPLOYMENT, "one"))
    assert follow(live, DEPLOYMENT, "two", "t2") == live["metadata"]["managedFields"]
    broken = with_entries(DEPLOYMENT, [{"operation": "Nonsense"}])
    assert follow(live, broken, "two", "t2") == live["metadata"]["managedFields"]


def test_reset_and_staying_without() -> None:
    live = with_entries(DEPLOYMENT, follow(None, DEPLOYMENT, "one"))
    reset = with_entries(live, [{}])
    assert follow(live, reset, "two") == []
    changed = clone(DEPLOYMENT)
    changed["spec"]["replicas"] = 9
    assert follow(DEPLOYMENT, changed, "two") == []


def test_status_has_its_own_entry() -> None:
    live = with_entries(DEPLOYMENT, follow(None, DEPLOYMENT, "one"))
    changed = clone(live)
    changed["status"] = {"observedGeneration": 2, "conditions": [{"type": "Available", "status": "True"}]}
    changed["spec"]["replicas"] = 7
    entries = follow(live, changed, "one", "t2", subresource="status")
    assert [e.get("subresource") for e in entries] == [None, "status"]
    assert entries[1]["fieldsV1"] == {
        "f:status": {
            "f:conditions": {".": {}, 'k:{"type":"Available"}': {".": {}, "f:status": {}, "f:type": {}}},
            "f:observedGeneration": {},
        }
    }
    assert "f:replicas" in entries[0]["fieldsV1"]["f:spec"], "the status endpoint cannot take fields of spec"


def test_atomic_lists_and_sets() -> None:
    pod: Object = {
        "metadata": {"name": "p", "uid": "u", "finalizers": ["a/b"]},
        "spec": {"containers": [{"name": "c", "command": ["x", "y"]}], "tolerations": [{"key": "k"}]},
    }
    [entry] = follow(None, pod, "one", kind="Pod")
    assert entry["fieldsV1"]["f:metadata"] == {"f:finalizers": {".": {}, 'v:"a/b"': {}}}
    assert entry["fieldsV1"]["f:spec"]["f:tolerations"] == {}
    assert entry["fieldsV1"]["f:spec"]["f:containers"]['k:{"name":"c"}']["f:command"] == {}


def test_old_updaters_share_one_entry() -> None:
    live: Object = {"metadata": {"name": "c", "uid": "u"}, "data": {}}
    live["metadata"]["managedFields"] = follow(None, {**live, "data": {"k0": "v"}}, "m0", "t00", "ConfigMap")
    live["data"] = {"k0": "v"}
    for i in range(1, 14):
        changed = clone(live)
        changed["data"][f"k{i}"] = "v"
        changed["metadata"]["managedFields"] = follow(live, changed, f"m{i}", f"t{i:02}", "ConfigMap")
        live = changed
    entries = live["metadata"]["managedFields"]
    assert [e["manager"] for e in entries] == ["ancient-changes", *(f"m{i}" for i in range(5, 14))]
    assert entries[0]["time"] == "t04"
    assert set(entries[0]["fieldsV1"]["f:data"]) == {".", "f:k0", "f:k1", "f:k2", "f:k3", "f:k4"}


def test_round_trip() -> None:
    entries = follow(None, DEPLOYMENT, "one")
    assert managed.encode(managed.decode(entries)) == entries


def test_user_agent() -> None:
    assert managed.manager_from_user_agent("kubectl/v1.37.1 (linux/amd64)") == "kubectl"
    assert managed.manager_from_user_agent("a\x00b") == "ab"
    assert managed.manager_from_user_agent("ö" * 100) == "ö" * 64
    assert managed.manager_from_user_agent("") == "unknown"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"operation": "Wibble"}, "operation must be `Apply` or `Update`"),
        ({"apiVersion": ""}, "apiVersion must not be empty"),
        ({"fieldsType": ""}, "missing fieldsType in managed fields entry 0"),
        ({"fieldsType": "V2"}, 'invalid fieldsType "V2" in managed fields entry 0'),
        ({"fieldsV1": {"x:y": {}}}, "unknown kind of path element: x:y"),
        ({}, ""),
    ],
)
def test_broken_records(change: Object, fault: str) -> None:
    (entry,) = follow(None, DEPLOYMENT, "one")
    assert managed.fault_of([{**entry, **change}]) == fault
