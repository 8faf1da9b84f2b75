"""Server-side apply: the stories upstream's documentation and tests tell."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k1s.api.catalog import builtin
from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.api.ownership import track
from k1s.api.patch import apply as ssa
from k1s.api.schema import Schema, schema_for, structural

Object = dict[str, Any]

UNTYPED = "failed to create typed patch object (/x; apps/v1, Kind=Deployment): "


class Cluster:
    """One object and those who write it."""

    def __init__(self, kind: str = "Deployment", schema: Schema | None = None, api_version: str = "") -> None:
        self.kind, self.live = kind, None
        self.api_version = api_version or builtin(kind).api_version
        self.schema = schema or schema_for(builtin(kind))
        self.clock = 0
        self.live: Object | None = None

    def now(self) -> str:
        self.clock += 1
        return f"t{self.clock:02}"

    def apply(self, manager: str, config: Object, force: bool = False, subresource: str = "") -> Object:
        full = {"apiVersion": self.api_version, "kind": self.kind, **config}
        full["metadata"] = {"name": "x", **config.get("metadata", {})}
        before = clone((self.live, full))
        self.live = ssa.apply(
            self.live,
            full,
            manager=manager,
            force=force,
            schema=self.schema,
            api_version=self.api_version,
            now=self.now(),
            subresource=subresource,
        )
        self.live["metadata"].setdefault("uid", "u")
        assert before[1] == full, "the configuration is not changed"
        return self.live

    def update(self, manager: str, change: Any, subresource: str = "") -> Object:
        new = clone(self.live or {"apiVersion": self.api_version, "kind": self.kind, "metadata": {"name": "x"}})
        change(new)
        track(
            self.live,
            new,
            manager=manager,
            schema=self.schema,
            api_version=self.api_version,
            now=self.now(),
            subresource=subresource,
        )
        new["metadata"].setdefault("uid", "u")
        self.live = new
        return new

    def owned(self, manager: str, operation: str = "Apply", subresource: str = "") -> Any:
        assert self.live is not None
        found = [
            e
            for e in self.live["metadata"].get("managedFields", [])
            if (e["manager"], e["operation"], e.get("subresource", "")) == (manager, operation, subresource)
        ]
        return found[0]["fieldsV1"] if found else None

    def refused(self, manager: str, config: Object, **more: Any) -> ApiError:
        before = clone(self.live)
        with pytest.raises(ApiError) as caught:
            self.apply(manager, config, **more)
        assert self.live == before
        return caught.value


def data(**values: str) -> Object:
    return {"data": values}


def container(name: str, **fields: Any) -> Object:
    return {"spec": {"template": {"spec": {"containers": [{"name": name, **fields}]}}}}


def containers(cluster: Cluster) -> list[Object]:
    assert cluster.live is not None
    found: list[Object] = cluster.live["spec"]["template"]["spec"].get("containers", [])
    return found


def test_create_by_apply() -> None:
    cluster = Cluster()
    cluster.apply("a", {"spec": {"replicas": 1, **container("c", image="i")["spec"]}, "metadata": {"labels": {"x": "y"}}})
    assert cluster.live is not None
    assert cluster.live["metadata"]["managedFields"] == [
        {
            "manager": "a",
            "operation": "Apply",
            "apiVersion": "apps/v1",
            "time": "t01",
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {"f:x": {}}},
                "f:spec": {
                    "f:replicas": {},
                    "f:template": {"f:spec": {"f:containers": {'k:{"name":"c"}': {".": {}, "f:image": {}, "f:name": {}}}}},
                },
            },
        }
    ]


def test_the_same_again_changes_nothing() -> None:
    cluster = Cluster()
    config = {"spec": {"replicas": 1, **container("c", image="i")["spec"]}}
    first = clone(cluster.apply("a", config))
    assert cluster.apply("a", config) == first


def test_dropped_fields_are_removed() -> None:
    cluster = Cluster("ConfigMap")
    cluster.apply("a", data(x="1", y="2"))
    cluster.apply("a", data(x="1"))
    assert cluster.live is not None and cluster.live["data"] == {"x": "1"}
    cluster.apply("a", {})
    assert "data" not in cluster.live
    assert cluster.owned("a") is None


def test_shared_fields_stay() -> None:
    cluster = Cluster("ConfigMap")
    cluster.apply("a", data(x="1", y="2"))
    cluster.apply("b", data(x="1"))
    cluster.apply("a", data())
    assert cluster.live is not None and cluster.live["data"] == {"x": "1"}
    assert cluster.owned("b") == {"f:data": {"f:x": {}}}


def test_fields_of_updaters_stay() -> None:
    cluster = Cluster("ConfigMap")
    cluster.apply("a", data(x="1"))
    cluster.update("u", lambda o: o["data"].update(z="3"))
    cluster.apply("a", data())
    assert cluster.live is not None and cluster.live["data"] == {"z": "3"}
    assert cluster.owned("u", "Update") == {"f:data": {"f:z": {}}}


def test_conflict_with_an_updater() -> None:
    cluster = Cluster()
    cluster.update("kubectl-client-side-apply", lambda o: o.update(spec={"replicas": 1}))
    error = cluster.refused("b", {"spec": {"replicas": 2}})
    assert (error.code, error.reason) == (409, "Conflict")
    assert error.message == (
        'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas'
    )
    assert error.details == {
        "causes": [
            {
                "reason": "FieldManagerConflict",
                "message": 'conflict with "kubectl-client-side-apply" using apps/v1',
                "field": ".spec.replicas",
            }
        ]
    }


def test_many_conflicts() -> None:
    cluster = Cluster("ConfigMap")
    cluster.apply("a", data(x="1", y="1"))
    cluster.update("u", lambda o: o["data"].update(z="1"))
    error = cluster.refused("b", data(x="2", y="2", z="2"))
    assert error.message == (
        'Apply failed with 3 conflicts: conflicts with "a":\n- .data.x\n- .data.y\nconflicts with "u" using v1:\n- .data.z'
    )


def test_force_takes_ownership() -> None:
    cluster = Cluster("ConfigMap")
    cluster.apply("a", data(x="1", y="1"))
    cluster.apply("b", data(x="2"), force=True)
    assert cluster.live is not None and cluster.live["data"] == {"x": "2", "y": "1"}
    assert (cluster.owned("a"), cluster.owned("b")) == ({"f:data": {"f:y": {}}}, {"f:data": {"f:x": {}}})


def test_same_value_is_shared_without_conflict() -> None:
    cluster = Cluster("ConfigMap")
    cluster.apply("a", data(x="1"))
    cluster.apply("b", data(x="1"))
    assert cluster.owned("a") == cluster.owned("b") == {"f:data": {"f:x": {}}}


def test_an_update_takes_fields_from_appliers() -> None:
    cluster = Cluster("ConfigMap")
    cluster.apply("a", data(x="1", y="1"))
    cluster.update("u", lambda o: o["data"].update(x="2"))
    assert cluster.owned("a") == {"f:data": {"f:y": {}}}
    error = cluster.refused("a", data(x="1", y="1"))
    assert error.message == 'Apply failed with 1 conflict: conflict with "u" using v1: .data.x'


def test_lists_merge_by_key() -> None:
    cluster = Cluster()
    cluster.apply("a", container("one", image="1", env=[{"name": "X", "value": "1"}]))
    cluster.apply("b", container("two", image="2"))
    cluster.apply(
        "b", {"spec": {"template": {"spec": {"containers": [{"name": "two"}, {"name": "one", "env": [{"name": "Y"}]}]}}}}
    )
    # "two" keeps its place among the applied ones; its image is dropped, as b no longer applies it.
    assert containers(cluster) == [
        {"name": "two"},
        {"name": "one", "image": "1", "env": [{"name": "X", "value": "1"}, {"name": "Y"}]},
    ]
    cluster.apply("b", {})
    assert containers(cluster) == [{"name": "one", "image": "1", "env": [{"name": "X", "value": "1"}]}]


def test_an_item_goes_with_its_owner_though_another_changed_it() -> None:
    cluster = Cluster()
    cluster.apply("a", container("c", image="1", workingDir="/"))
    cluster.update("u", lambda o: o["spec"]["template"]["spec"]["containers"][0].update(image="2"))
    cluster.apply("a", {})
    # The item was a's; that u owns a field of it does not keep it.
    assert cluster.live is not None and cluster.live["spec"] == {"template": {"spec": {}}}
    assert cluster.owned("u", "Update") is None


def test_ports_with_defaulted_protocol() -> None:
    cluster = Cluster()
    cluster.apply("a", container("c", ports=[{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53}]))
    cluster.apply("b", container("c", ports=[{"containerPort": 53, "name": "dns"}]))
    assert containers(cluster)[0]["ports"] == [
        {"containerPort": 53, "protocol": "UDP"},
        {"containerPort": 53, "name": "dns"},
    ]
    ports = cluster.owned("b")["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"c"}']["f:ports"]
    assert ports == {'k:{"containerPort":53,"protocol":"TCP"}': {".": {}, "f:containerPort": {}, "f:name": {}}}


def test_sets_and_atomic_lists() -> None:
    cluster = Cluster("Pod")
    cluster.apply("a", {"metadata": {"finalizers": ["a/a"]}, "spec": {"tolerations": [{"key": "a"}]}})
    cluster.apply("b", {"metadata": {"finalizers": ["b/b"]}})
    assert cluster.live is not None and cluster.live["metadata"]["finalizers"] == ["a/a", "b/b"]
    error = cluster.refused("b", {"spec": {"tolerations": [{"key": "b"}]}})
    assert error.message.endswith('conflict with "a": .spec.tolerations')
    cluster.apply("a", {})
    assert cluster.live["metadata"]["finalizers"] == ["b/b"]


def test_atomic_maps() -> None:
    cluster = Cluster()
    cluster.apply("a", {"spec": {"selector": {"matchLabels": {"a": "b"}}}})
    assert cluster.owned("a") == {"f:spec": {"f:selector": {}}}
    error = cluster.refused("b", {"spec": {"selector": {"matchLabels": {"c": "d"}}}})
    assert error.message.endswith(": .spec.selector")
    cluster.apply("b", {"spec": {"selector": {"matchLabels": {"c": "d"}}}}, force=True)
    assert cluster.live is not None and cluster.live["spec"]["selector"] == {"matchLabels": {"c": "d"}}
    assert cluster.owned("a") is None


def test_managers_per_subresource() -> None:
    cluster = Cluster()
    cluster.apply("a", {"spec": {"replicas": 1}})
    cluster.apply("a", {"status": {"replicas": 1}}, subresource="status")
    assert cluster.live is not None
    entries = cluster.live["metadata"]["managedFields"]
    assert [(e["manager"], e.get("subresource")) for e in entries] == [("a", None), ("a", "status")]
    assert cluster.live["spec"] == {"replicas": 1} and cluster.live["status"] == {"replicas": 1}
    cluster.apply("a", {"spec": {"replicas": 1}, "status": {"replicas": 9}})
    assert cluster.owned("a") == {"f:spec": {"f:replicas": {}}}, "status is not owned through the main endpoint"


def test_an_object_without_a_record() -> None:
    cluster = Cluster("ConfigMap")
    cluster.live = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "uid": "u"}, **data(x="1", y="1")}
    error = cluster.refused("a", data(x="2"))
    assert error.message == 'Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.x'
    cluster.apply("a", data(x="1"))
    assert cluster.owned("before-first-apply", "Update") == {"f:data": {".": {}, "f:x": {}, "f:y": {}}}


def client_side(cluster: Cluster, config: Object) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, **config})

    def change(obj: Object) -> None:
        obj.update(config)
        obj["metadata"]["annotations"] = {ssa.LAST_APPLIED: text}

    cluster.update("kubectl-client-side-apply", change)


def test_migration_from_client_side_apply() -> None:
    cluster = Cluster("ConfigMap")
    client_side(cluster, data(x="1"))
    assert cluster.refused("someone", data(x="2")).code == 409
    cluster.apply("kubectl", data(x="2"))
    assert cluster.live is not None and cluster.live["data"] == {"x": "2"}
    last = json.loads(cluster.live["metadata"]["annotations"][ssa.LAST_APPLIED])
    assert last == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"x": "2"}}
    assert cluster.live["metadata"]["annotations"][ssa.LAST_APPLIED].endswith("\n")


def test_migration_still_sees_others_changes() -> None:
    cluster = Cluster("ConfigMap")
    client_side(cluster, data(x="1"))
    cluster.update("u", lambda o: o["data"].update(x="7"))
    assert cluster.refused("kubectl", data(x="2")).message.endswith('conflict with "u" using v1: .data.x')


@pytest.mark.parametrize(
    "config, message",
    [
        ({"apiVersion": "v9"}, "Incorrect version specified in apply patch. Specified patch version: v9, expected: apps/v1"),
        ({"metadata": {"managedFields": []}}, "metadata.managedFields must be nil"),
        ({"spec": {"foo": 1}}, UNTYPED + ".spec.foo: field not declared in schema"),
        ({"spec": {"replicas": "1"}}, UNTYPED + '.spec.replicas: expected numeric (int or float), got string'),
        (
            {"spec": {"foo": 1, "bar": 2, "template": 1}, "metadata": {"labels": {"a": 3}}},
            UNTYPED + "errors:\n  .spec.foo: field not declared in schema\n"
            "  .metadata.labels.a: expected string, got &value.valueUnstructured{Value:3}",
        ),
        (
            {"spec": {"template": {"spec": {"containers": "a"}}}},
            UNTYPED + ".spec.template.spec.containers: expected list, got &{a}",
        ),
        ({"spec": {"paused": {"a": [1]}}}, UNTYPED + ".spec.paused: expected boolean, got &{map[a:[1]]}"),
        (
            {"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}},
            UNTYPED + ".spec.template.spec.containers: "
            'duplicate entries for key [name="a"]',
        ),
        (
            {"spec": {"template": {"spec": {"containers": [{"image": "a"}]}}}},
            UNTYPED + ".spec.template.spec.containers: element 0: "
            "associative list with keys has an element that omits all key fields "
            '["name"] (and doesn\'t have default values for any key fields)',
        ),
    ],
)  # fmt: skip
def test_bad_configurations(config: Object, message: str) -> None:
    error = Cluster().refused("a", config)
    assert (error.code, error.message) == (400, message)


def test_null_is_owned_and_removes() -> None:
    cluster = Cluster()
    cluster.apply("a", {"spec": {"replicas": 1, "paused": True}})
    cluster.apply("a", {"spec": {"replicas": None, "paused": True}})
    assert cluster.live is not None and cluster.live["spec"] == {"replicas": None, "paused": True}
    assert cluster.owned("a") == {"f:spec": {"f:paused": {}, "f:replicas": {}}}


def test_empty_map_is_owned() -> None:
    cluster = Cluster("Pod")
    cluster.apply("a", {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}})
    assert cluster.owned("a") == {"f:spec": {"f:volumes": {'k:{"name":"v"}': {".": {}, "f:emptyDir": {}, "f:name": {}}}}}
    cluster.apply("a", {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}})
    assert cluster.live is not None and cluster.live["spec"]["volumes"] == [{"name": "v", "hostPath": {"path": "/"}}]


def test_times_move_only_with_changes() -> None:
    cluster = Cluster("ConfigMap")
    cluster.apply("a", data(x="1"))
    cluster.apply("b", data(y="1"))
    cluster.apply("a", data(x="1"))
    cluster.apply("b", data(y="2"))
    assert cluster.live is not None
    assert [(e["manager"], e["time"]) for e in cluster.live["metadata"]["managedFields"]] == [("a", "t01"), ("b", "t04")]


CUSTOM = structural(
    {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                "properties": {
                    "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    "map": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["k"],
                        "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}},
                    },
                    "atom": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
                },
            }
        },
    }
)
KEYS = st.sampled_from("abcd")
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "set": st.lists(KEYS, unique=True, min_size=1, max_size=4),
        "map": st.lists(
            st.fixed_dictionaries({"k": KEYS}, optional={"v": st.integers(0, 2)}),
            unique_by=lambda i: i["k"],
            min_size=1,
            max_size=4,
        ),
        "atom": st.dictionaries(KEYS, KEYS, max_size=2),
        "free": st.dictionaries(KEYS, st.integers(0, 2) | st.lists(st.integers(0, 1), max_size=2), max_size=2),
        "n": st.integers(0, 2),
    },
)
STEPS = st.lists(st.tuples(st.sampled_from(["one", "two", "three"]), st.booleans(), SPECS), min_size=1, max_size=6)


def holds(wanted: Any, found: Any) -> bool:
    """Does `found` say everything that `wanted` says?"""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return all(key in found and holds(value, found[key]) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        return all(any(holds(item, other) for other in found) for item in wanted)
    return bool(wanted == found)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_any_sequence_of_applies(steps: list[tuple[str, bool, Object]]) -> None:
    cluster = Cluster("Thing", CUSTOM, "example.com/v1")
    for manager, update, spec in steps:
        if update:
            cluster.update(manager, lambda o, s=spec: o.update(spec=clone(s)))
            continue
        live = clone(cluster.apply(manager, {"spec": spec} if spec else {}, force=True))
        assert holds(spec, live.get("spec", {})), "what is applied with force holds"
        if not spec:
            # Who wants nothing has no entry, and so leaves no trace of having applied.
            continue
        assert cluster.apply(manager, {"spec": spec}) == live, "a second time changes nothing, and needs no force"
    managers = {m for m, _, _ in steps}
    had_updates = any(update for _, update, _ in steps)
    for manager in sorted(managers):
        cluster.apply(manager, {}, force=True)
    assert cluster.live is not None
    if not had_updates:
        assert "managedFields" not in cluster.live["metadata"]
        assert not cluster.live.get("spec"), "when nobody wants anything any more, nothing is left"


def test_untyped_custom_resources() -> None:
    cluster = Cluster("Thing", structural({"type": "object", "x-kubernetes-preserve-unknown-fields": True}), "example.com/v1")
    cluster.apply("a", {"spec": {"deep": {"x": 1}, "list": [1]}})
    cluster.apply("b", {"spec": {"deep": {"y": 1}}})
    assert cluster.live is not None and cluster.live["spec"] == {"deep": {"x": 1, "y": 1}, "list": [1]}
    assert cluster.owned("a") == {"f:spec": {".": {}, "f:deep": {".": {}, "f:x": {}}, "f:list": {}}}
