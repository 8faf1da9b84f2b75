"""ValidatingAdmissionPolicies: whom they concern, what they say, and what bindings do with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k1s.api.catalog import Resource, builtin, builtin_catalog
from k1s.api.errors import ApiError, not_found
from k1s.api.selectors import parse_labels
from k1s.server.apiserver.admission.policies import ValidatingPolicies
from k1s.server.apiserver.attributes import AdmissionRequest, UserInfo
from k1s.server.apiserver.authz.app import Authorizer
from k1s.server.apiserver.authz.node import NodeAuthorizer
from k1s.server.apiserver.authz.rbac import RbacAuthorizer
from tests.unit.security.conftest import DictInformers

Object = dict[str, Any]
USER = UserInfo("u", ("system:authenticated",))
DEPLOYMENTS = [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]}]


class Reader:
    """A client over the informers' objects."""

    def __init__(self, informers: DictInformers) -> None:
        self._informers = informers

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        found = self._informers.informer(resource).get(name, namespace)
        if found is None:
            raise not_found(resource.plural, resource.group, name)
        return found

    async def list(self, resource: Resource, namespace: str = "", *, label_selector: str = "") -> list[Object]:
        return list(self._informers.informer(resource).list(namespace, parse_labels(label_selector)))


class World:
    def __init__(self, informers: DictInformers) -> None:
        self.informers = informers
        informers.put("Namespace", "ns", metadata={"labels": {"env": "prod"}})
        authorizer = Authorizer(RbacAuthorizer(informers), NodeAuthorizer(informers, []))
        self.step = ValidatingPolicies(Reader(informers), informers, builtin_catalog(), authorizer)  # type: ignore[arg-type]

    def policy(self, *validations: Object, binding: Object | None = None, name: str = "p", **spec: Any) -> None:
        constraints = spec.pop("constraints", {})
        spec["matchConstraints"] = {"resourceRules": DEPLOYMENTS, **constraints}
        self.informers.put("ValidatingAdmissionPolicy", name, spec={"validations": list(validations), **spec})
        bound = {"policyName": name, "validationActions": ["Deny"], **(binding or {})}
        self.informers.put("ValidatingAdmissionPolicyBinding", f"{name}-b", spec=bound)

    async def ask(self, replicas: int = 1, kind: str = "Deployment", **more: Any) -> AdmissionRequest:
        resource = builtin(kind)
        obj = {
            "apiVersion": resource.api_version,
            "kind": kind,
            "metadata": {"name": "d", "namespace": "ns", "labels": more.pop("labels", {})},
            "spec": {"replicas": replicas},
        }
        old = more.pop("old", None)
        operation = more.pop("operation", "CREATE" if old is None else "UPDATE")
        if operation == "DELETE":
            obj, old = None, obj  # type: ignore[assignment]
        request = AdmissionRequest(operation, resource, None, "ns", "d", obj, old, more.pop("user", USER))
        await self.step.validate(request)
        return request

    async def denied(self, *arguments: Any, **more: Any) -> ApiError:
        with pytest.raises(ApiError) as caught:
            await self.ask(*arguments, **more)
        return caught.value


@pytest.fixture
def world(informers: DictInformers) -> World:
    return World(informers)


def check(expression: str, **more: Any) -> Object:
    return {"expression": expression, **more}


async def test_a_denial_is_worded_as_upstream(world: World) -> None:
    world.policy(check("object.spec.replicas <= 5"))
    await world.ask(5)
    error = await world.denied(6)
    assert error.message == (
        "deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p-b' denied request:"
        " failed expression: object.spec.replicas <= 5"
    )
    assert (error.code, error.reason) == (422, "Invalid")
    assert error.details is not None and error.details["causes"][0]["message"].startswith("ValidatingAdmissionPolicy 'p'")


async def test_messages_and_reasons(world: World) -> None:
    text = "'wants 5, got ' + string(object.spec.replicas)"
    world.policy(check("object.spec.replicas == 5", messageExpression=text, message="plain", reason="Forbidden"))
    error = await world.denied(6)
    assert error.message.endswith("denied request: wants 5, got 6") and (error.code, error.reason) == (403, "Forbidden")
    world.policy(check("object.spec.replicas == 5", messageExpression="object.nope", message=" plain "))
    assert (await world.denied(6)).message.endswith("denied request: plain")


async def test_failure_policy(world: World) -> None:
    world.policy(check("object.spec.nope > 1"))
    words = "denied request: expression 'object.spec.nope > 1' resulted in error: no such key: nope"
    assert (await world.denied()).message.endswith(words)
    world.policy(check("object.spec.nope > 1"), failurePolicy="Ignore")
    await world.ask()


async def test_variables_are_made_when_needed(world: World) -> None:
    variables = [
        check("object.spec.replicas * 2", name="twice"),
        check("variables.twice + 1", name="more"),
        check("object.spec.nope", name="broken"),
        check("timestamp('2026-01-01T00:00:00Z')", name="when"),
    ]
    guarded = "variables.more == 3 || variables.broken == 1"
    world.policy(check(guarded), check("variables.when.getFullYear() == 2026"), variables=variables)
    await world.ask(1)
    message = (await world.denied(2)).message
    assert message.endswith('composited variable "broken" fails to evaluate: no such key: nope')


async def test_match_conditions(world: World) -> None:
    mine = [check("request.userInfo.username == 'u'", name="mine"), check("has(object.metadata.labels.x)", name="x")]
    world.policy(check("false"), matchConditions=mine)
    await world.ask(user=UserInfo("other"), labels={"x": "y"})
    await world.ask()
    await world.denied(labels={"x": "y"})
    world.policy(check("true"), matchConditions=[check("object.nope == 1", name="odd")])
    assert "denied request: expression 'object.nope == 1' resulted in error: no such key: nope" in (await world.denied()).message


async def test_what_is_concerned(world: World) -> None:
    world.policy(check("false"), constraints={"objectSelector": {"matchLabels": {"a": "b"}}})
    await world.ask()
    await world.denied(labels={"a": "b"})
    await world.ask(labels={"a": "b"}, operation="DELETE")
    await world.ask(kind="StatefulSet", labels={"a": "b"})
    world.policy(check("false"), constraints={"excludeResourceRules": DEPLOYMENTS})
    await world.ask()
    world.policy(check("false"), binding={"matchResources": {"namespaceSelector": {"matchLabels": {"env": "test"}}}})
    await world.ask()
    world.policy(check("false"), binding={"matchResources": {"namespaceSelector": {"matchLabels": {"env": "prod"}}}})
    await world.denied()


async def test_old_object_namespace_and_request(world: World) -> None:
    world.policy(
        check("oldObject == null || object.spec.replicas >= oldObject.spec.replicas"),
        check("namespaceObject.metadata.labels.env == 'prod'"),
        check("request.operation in ['CREATE', 'UPDATE'] && request.resource.resource == 'deployments'"),
    )
    old = {"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {}, "spec": {"replicas": 3}}
    await world.ask(3)
    await world.ask(3, old=old)
    await world.denied(2, old=old)


async def test_the_authorizer(world: World) -> None:
    may = "authorizer.group('').resource('secrets').namespace('ns').check('get').allowed()"
    world.policy(check(may), check("!authorizer.path('/metrics').check('get').allowed()"))
    await world.denied()
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
    world.informers.put("Role", "r", "ns", rules=rules)
    subjects = [{"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"}]
    reference = {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"}
    world.informers.put("RoleBinding", "r", "ns", roleRef=reference, subjects=subjects)
    await world.ask()
    robot = "authorizer.serviceAccount('ns', 'robot').group('').resource('secrets').namespace('ns').check('get').allowed()"
    world.policy(check(robot))
    await world.denied()


async def test_parameters(world: World) -> None:
    kind = {"apiVersion": "v1", "kind": "ConfigMap"}
    by_name = {"name": "limits", "parameterNotFoundAction": "Deny"}
    rule = check("object.spec.replicas <= int(params.data.most)")
    world.policy(rule, paramKind=kind, binding={"paramRef": by_name})
    missing = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
    assert (await world.denied()).message.endswith(missing)
    world.informers.put("ConfigMap", "limits", "ns", metadata={"labels": {"for": "p"}}, data={"most": "4"})
    await world.ask(4)
    await world.denied(5)
    every = {"selector": {"matchLabels": {"for": "p"}}, "parameterNotFoundAction": "Allow"}
    world.policy(rule, paramKind=kind, binding={"paramRef": every})
    world.informers.put("ConfigMap", "more", "ns", metadata={"labels": {"for": "p"}}, data={"most": "2"})
    await world.ask(2)
    await world.denied(3)
    world.policy(rule, paramKind={"apiVersion": "none.io/v1", "kind": "None"}, binding={"paramRef": every})
    assert (await world.denied()).message.endswith(
        "ValidatingAdmissionPolicy 'p' denied request: failed to configure policy: "
        "failed to find resource referenced by paramKind: 'none.io/v1, Kind=None'"
    )
    absent = {"name": "absent", "parameterNotFoundAction": "Allow"}
    world.policy(rule, paramKind=kind, binding={"paramRef": absent})
    await world.ask(99)


async def test_actions(world: World) -> None:
    world.policy(check("false", message="no"), binding={"validationActions": ["Warn", "Audit"]})
    request = await world.ask()
    assert request.warnings == ["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p-b': no"]
    (noted,) = json.loads(request.annotations["validation.policy.admission.k8s.io/validation_failure"])
    actions = ["Warn", "Audit"]
    assert noted == {"message": "no", "policy": "p", "binding": "p-b", "expressionIndex": 0, "validationActions": actions}


async def test_audit_annotations(world: World) -> None:
    notes = [
        {"key": "replicas", "valueExpression": "'asked for ' + string(object.spec.replicas)"},
        {"key": "nothing", "valueExpression": "null"},
    ]
    world.policy(auditAnnotations=notes)
    assert (await world.ask(7)).annotations == {"p/replicas": "asked for 7"}


async def test_every_failure_is_noted_before_the_denial(world: World) -> None:
    world.policy(check("false"), name="a")
    world.policy(check("false"), name="b", binding={"validationActions": ["Audit"]})
    request = AdmissionRequest("CREATE", builtin("Deployment"), None, "ns", "d", {"kind": "Deployment"}, None, USER)
    with pytest.raises(ApiError, match="'a' with binding 'a-b'"):
        await world.step.validate(request)
    assert "b-b" in request.annotations["validation.policy.admission.k8s.io/validation_failure"]


async def test_policies_do_not_lock_themselves_in(world: World) -> None:
    rules = [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}]
    world.policy(check("false"), constraints={"resourceRules": rules})
    await world.denied()
    await world.ask(kind="ValidatingAdmissionPolicy")


async def test_another_version_is_converted(world: World) -> None:
    rules = [{"apiGroups": ["autoscaling"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["*"]}]
    world.policy(
        check("object.apiVersion == 'autoscaling/v1' && object.spec.maxReplicas == 3"), constraints={"resourceRules": rules}
    )
    obj = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {}, "spec": {"maxReplicas": 3}}
    row = builtin("HorizontalPodAutoscaler")
    assert row.version == "v2"
    await world.step.validate(AdmissionRequest("CREATE", row, None, "ns", "h", obj, None, USER))
