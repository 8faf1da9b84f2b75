"""MutatingAdmissionPolicies: apply configurations and JSON patches in CEL."""

from __future__ import annotations

from typing import Any

import pytest

from k1s.api.catalog import builtin, builtin_catalog
from k1s.api.cel.program import compile_expression
from k1s.api.defaults.table import apply_defaults
from k1s.api.errors import ApiError
from k1s.api.validation.table import validate_create
from k1s.server.apiserver.admission.mutating_policies import MutatingPolicies
from k1s.server.apiserver.attributes import AdmissionRequest, UserInfo
from tests.unit.security.conftest import DictInformers

Object = dict[str, Any]
USER = UserInfo("u")
PODS = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]


def applied(expression: str) -> Object:
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def patched(expression: str) -> Object:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


def put(informers: DictInformers, *mutations: Object, name: str = "p", **spec: Any) -> Object:
    spec = {"matchConstraints": {"resourceRules": PODS}, "mutations": list(mutations), "reinvocationPolicy": "Never", **spec}
    informers.put("MutatingAdmissionPolicyBinding", name, spec={"policyName": name})
    return informers.put("MutatingAdmissionPolicy", name, spec=spec)


async def run(informers: DictInformers) -> AdmissionRequest:
    step = MutatingPolicies(None, informers, builtin_catalog())  # type: ignore[arg-type]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "tolerations": [{"key": "k"}]},
    }
    request = AdmissionRequest("CREATE", builtin("Pod"), None, "ns", "x", pod, None, USER)
    await step.mutate(request)
    await step.mutate_again(request)
    return request


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("Object{spec: Object.spec{replicas: 1}}", {"spec": {"replicas": 1}}),
        ("Object{metadata: Object.metadata{labels: {'a': 'Object{x: 1}'}}}", {"metadata": {"labels": {"a": "Object{x: 1}"}}}),
        ("Object{spec: Object.spec{l: [Object.spec.l{a: [1, 2].exists(x, x == 1) ? 'y' : 'n'}]}}", {"spec": {"l": [{"a": "y"}]}}),
        ("Object{?gone: {'a': 1}.?b, __namespace__: 'n', a__dot__b: 2}", {"namespace": "n", "a.b": 2}),
        ("[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('b/c~'), value: {'x': 1}}]",
         [{"op": "add", "path": "/a/b~1c~0", "value": {"x": 1}}]),
        ("object.Object", 5),
    ],
)  # fmt: skip
def test_constructors(expression: str, expected: Any) -> None:
    assert compile_expression(expression, {"object"}).evaluate({"object": {"Object": 5}}) == expected


async def test_a_configuration_is_merged(informers: DictInformers) -> None:
    sidecar = "Object.spec.initContainers{name: 'mesh', image: variables.image, restartPolicy: 'Always'}"
    text = f"Object{{metadata: Object.metadata{{labels: {{'c': 'd'}}}}, spec: Object.spec{{initContainers: [{sidecar}]}}}}"
    put(informers, applied(text), variables=[{"name": "image", "expression": "object.spec.containers[0].image + ':1'"}])
    request = await run(informers)
    assert request.patched and request.obj is not None
    assert request.obj["metadata"]["labels"] == {"a": "b", "c": "d"}
    assert request.obj["spec"]["initContainers"] == [{"name": "mesh", "image": "i:1", "restartPolicy": "Always"}]
    assert request.obj["spec"]["containers"] == [{"name": "c", "image": "i"}]


async def test_a_patch_is_applied_and_later_mutations_see_it(informers: DictInformers) -> None:
    first = patched("[JSONPatch{op: 'replace', path: '/metadata/labels/a', value: 'z'}]")
    put(informers, first, applied("Object{metadata: Object.metadata{labels: {'copy': object.metadata.labels.a}}}"))
    request = await run(informers)
    assert request.obj is not None and request.obj["metadata"]["labels"] == {"a": "z", "copy": "z"}


async def test_nothing_happens_unless_it_is_to(informers: DictInformers) -> None:
    condition = {"name": "never", "expression": "object.metadata.name == 'y'"}
    put(informers, patched("[JSONPatch{op: 'remove', path: '/spec'}]"), matchConditions=[condition])
    put(informers, applied("Object{metadata: Object.metadata{labels: {'a': 'b'}}}"), name="same")
    request = await run(informers)
    assert not request.patched and request.obj is not None and "spec" in request.obj


async def test_what_cannot_be_done_denies_or_is_left(informers: DictInformers) -> None:
    atomic = applied("Object{spec: Object.spec{tolerations: [Object.spec.tolerations{key: 'x'}]}}")
    put(informers, patched("[JSONPatch{op: 'add', path: '/metadata/labels/x', value: 'y'}]"), atomic)
    with pytest.raises(ApiError, match=r"may not mutate atomic arrays, maps or structs: \.spec\.tolerations") as caught:
        await run(informers)
    assert "policy 'p' with binding 'p' denied request" in caught.value.message
    assert (caught.value.code, caught.value.reason) == (403, "Invalid") and "forbidden" not in caught.value.message
    put(informers, patched("[JSONPatch{op: 'add', path: '/metadata/labels/x', value: 'y'}]"), atomic, failurePolicy="Ignore")
    request = await run(informers)
    assert request.obj is not None and request.obj["metadata"]["labels"] == {"a": "b", "x": "y"}


async def test_a_policy_is_asked_again(informers: DictInformers) -> None:
    copy = applied("Object{metadata: Object.metadata{labels: {'copy': object.metadata.labels.?late.orValue('none')}}}")
    put(informers, copy, name="a", reinvocationPolicy="IfNeeded")
    put(informers, applied("Object{metadata: Object.metadata{labels: {'late': 'yes'}}}"), name="b")
    request = await run(informers)
    assert request.obj is not None and request.obj["metadata"]["labels"] == {"a": "b", "late": "yes", "copy": "yes"}


def test_wrong_mutations_refuse_a_policy(informers: DictInformers) -> None:
    def faults(mutation: Object) -> list[str]:
        obj = put(informers, mutation)
        apply_defaults(builtin("MutatingAdmissionPolicy"), obj)
        return [f"{e.field}: {e.detail}" for e in validate_create(builtin("MutatingAdmissionPolicy"), obj)]

    assert faults(applied("Object{spec: Object.spec{replicas: 1}}")) == [] and faults(patched("[]")) == []
    at = "spec.mutations[0].applyConfiguration.expression: "
    assert faults(applied("'a'")) == [f"{at}must evaluate to Object"]
    assert "undeclared reference to 'nope'" in faults(applied("Object{spec: nope}"))[0]
    assert faults(patched("true")) == ["spec.mutations[0].jsonPatch.expression: must evaluate to list(JSONPatch)"]
    assert faults({"patchType": "JSONPatch"}) == ["spec.mutations[0].jsonPatch.expression: expression is not specified"]
