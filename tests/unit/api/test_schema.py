"""Types out of the definitions: what the patches and the decoder need to know of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from k1s.api import definitions
from k1s.api.catalog import Resource, builtin, builtin_catalog
from k1s.api.schema import (
    UNTYPED_OBJECT,
    Schema,
    forget_custom,
    register_custom,
    schema_for,
    schema_for_kind,
    schema_of,
    structural,
)


def every_node(schema: Schema, seen: dict[int, Schema]) -> None:
    if id(schema) in seen:
        return
    seen[id(schema)] = schema
    for child in (*schema.properties.values(), schema.items, schema.values):
        if child is not None:
            every_node(child, seen)


def test_every_served_kind_has_a_type() -> None:
    seen: dict[int, Schema] = {}
    for resource in builtin_catalog():
        every_node(schema_for(resource), seen)
        for sub in resource.subresources:
            if sub.kind in ("Scale", "Eviction", "TokenRequest", "Binding"):
                every_node(schema_for_kind(sub.group, sub.version or "v1", sub.kind), seen)
    types = {schema.type for schema in seen.values()}
    assert types == {"object", "array", "string", "integer", "number", "boolean", "int-or-string", "quantity", "any"}
    assert len(seen) < 1500, "nodes are shared"
    for schema in seen.values():
        if schema.type == "array":
            assert schema.items is not None
        if schema.list_type == "map":
            assert schema.items is not None and set(schema.list_map_keys) <= set(schema.items.properties)
        if "merge" in schema.patch_strategy and schema.items is not None and schema.items.type == "object":
            assert schema.patch_merge_key in schema.items.properties


def test_details() -> None:
    spec = schema_for(builtin("Deployment")).properties["spec"]
    assert (spec.type, spec.short_name, set(spec.required)) == ("object", "DeploymentSpec", {"selector", "template"})
    assert spec.properties["replicas"].format == "int32"
    assert spec.properties["strategy"].patch_strategy == "retainKeys"
    assert spec.properties["strategy"].properties["type"].type == "string"
    assert spec.properties["selector"].map_type == "atomic"
    pod = schema_of("io.k8s.api.core.v1.PodSpec")
    containers = pod.properties["containers"]
    assert (containers.patch_strategy, containers.patch_merge_key, containers.list_type) == ("merge", "name", "map")
    assert containers.items is not None
    ports = containers.items.properties["ports"]
    assert (ports.patch_merge_key, ports.list_map_keys) == ("containerPort", ("containerPort", "protocol"))
    assert ports.items is not None and ports.items.properties["protocol"].default == "TCP"
    limits = containers.items.properties["resources"].properties["limits"]
    assert limits.is_map and limits.values is not None and limits.values.type == "quantity"
    assert pod.properties["volumes"].patch_strategy == "merge,retainKeys"
    assert spec.description("replicas").startswith("Number of desired pods.")
    assert spec.description() == "DeploymentSpec is the specification of the desired behavior of the Deployment."


def test_overrides_beside_a_reference_do_not_leak() -> None:
    ref = schema_of("io.k8s.api.apps.v1.DeploymentStrategy")
    assert ref.patch_strategy == ""


def test_free_form_and_recursive_types() -> None:
    props = schema_of("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    assert props.properties["properties"].values is props
    assert props.properties["default"].type == "any"
    raw = schema_of("io.k8s.apimachinery.pkg.runtime.RawExtension")
    assert raw.preserve_unknown and raw.values is not None and raw.values.type == "any"


def test_definition_names() -> None:
    assert definitions.definition_name("", "v1", "Pod") == "io.k8s.api.core.v1.Pod"
    assert definitions.definition_name("rbac.authorization.k8s.io", "v1", "Role") == "io.k8s.api.rbac.v1.Role"
    assert definitions.definition_name("apiregistration.k8s.io", "v1", "APIService").endswith("apiregistration.v1.APIService")
    assert definitions.definition_name("", "v1", "Status").endswith("meta.v1.Status")
    with pytest.raises(KeyError):
        definitions.definition_name("nope.example.com", "v1", "Nope")
    assert definitions.definition("io.k8s.api.core.v1.Pod")["x-kubernetes-group-version-kind"] == [
        {"group": "", "kind": "Pod", "version": "v1"}
    ]


def test_custom_types() -> None:
    resource = Resource("example.com", "v1", "Thing", "things", True, custom=True)
    assert schema_for(resource) is UNTYPED_OBJECT
    schema = structural({"properties": {"spec": {"properties": {"p": {"x-kubernetes-int-or-string": True}}, "type": "object"}}})
    register_custom("example.com", "v1", "Thing", schema)
    try:
        assert schema_for(resource) is schema
        assert schema.properties["metadata"].properties["labels"].is_map
        assert schema.properties["spec"].properties["p"].type == "int-or-string"
        assert not schema.builtin and schema.properties["metadata"].builtin
    finally:
        forget_custom("example.com", "v1", "Thing")
    assert schema_for(resource) is UNTYPED_OBJECT


def test_the_file_may_stand_elsewhere(tmp_path: Path) -> None:
    copy = tmp_path / "d.json"
    copy.write_bytes(Path(definitions.path()).read_bytes())
    script = "from k1s.api import definitions as d; print(d.path(), len(d.names()))"
    out = subprocess.run(
        [sys.executable, "-c", script], env={"K1S_DEFINITIONS": str(copy), "PATH": ""}, capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == [str(copy), str(len(definitions.names()))]


def test_all_types_cost_little_memory() -> None:
    script = """
import sys
from k1s.api import catalog, schema
import orjson
def rss(): return int(open("/proc/self/statm").read().split()[1]) * 4
before = rss()
seen = set()
def walk(s):
    if id(s) not in seen:
        seen.add(id(s))
        for c in (*s.properties.values(), s.items, s.values):
            if c is not None: walk(c)
for r in catalog.builtin_catalog(): walk(schema.schema_for(r))
print(rss() - before)
assert "kubernetes_validate" not in sys.modules
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(out.stdout) < 6000, "KiB for the types of every kind; the parsed file alone would be twice that"
