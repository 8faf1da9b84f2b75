"""Admission policies over the API: made, bound, obeyed, noted in the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from k1s.base.http import Headers, MemoryBody, Request, Response
from k1s.server.apiserver.admission.chain import AdmissionChain
from k1s.server.apiserver.admission.mutating_policies import MutatingPolicies
from k1s.server.apiserver.admission.policies import ValidatingPolicies
from k1s.server.apiserver.auditing.app import Audit
from k1s.server.apiserver.auditing.file import LogFile
from tests.unit.apiserver.conftest import CMS, Api, config_map

Object = dict[str, Any]
API = "/apis/admissionregistration.k8s.io/v1"
RULES = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}]


@pytest.fixture
async def guarded(api: Api) -> AsyncIterator[Api]:
    server = api.server
    steps = (
        MutatingPolicies(None, server.informers, server.catalog, convert=server.convert),  # type: ignore[arg-type]
        ValidatingPolicies(None, server.informers, server.catalog, convert=server.convert),  # type: ignore[arg-type]
    )
    server.admission = AdmissionChain(steps)
    yield api


async def put(api: Api, kind: str, plural: str, spec: Object, **binding: Any) -> None:
    meta = {"metadata": {"name": "p"}}
    await api.ok(
        "POST", f"{API}/{plural}", {"kind": kind, **meta, "spec": {"matchConstraints": {"resourceRules": RULES}, **spec}}
    )
    bindings = f"{API}/{plural.replace('policies', 'policybindings')}"
    await api.ok("POST", bindings, {"kind": f"{kind}Binding", **meta, "spec": {"policyName": "p", **binding}})


async def validating(api: Api, *actions: str, **spec: Any) -> None:
    await put(api, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", spec, validationActions=list(actions))


async def test_every_operation_is_judged(guarded: Api) -> None:
    api = guarded
    texts = (
        "request.operation != 'CREATE' || object.data.x != '0'",
        "request.operation != 'UPDATE' || object.data.x > oldObject.data.x",
        "request.operation != 'DELETE' || oldObject.data.x == '9'",
    )
    await validating(api, "Deny", validations=[{"expression": text, "message": text[22:28]} for text in texts])
    denied = await api("POST", CMS, config_map("a", x="0"))
    assert denied.status == 422 and "with binding 'p' denied request: CREATE" in denied.json["message"]
    assert denied.json["details"]["causes"][0]["message"].startswith("ValidatingAdmissionPolicy 'p'")
    await api.ok("POST", CMS, config_map("a", x="1"))
    merge = "application/merge-patch+json"
    assert (await api("PATCH", f"{CMS}/a", {"data": {"x": "1"}, "metadata": {"labels": {"a": "b"}}}, type=merge)).status == 422
    assert (await api("DELETE", f"{CMS}/a")).status == 422
    await api.ok("PATCH", f"{CMS}/a", {"data": {"x": "9"}}, type=merge)
    await api.ok("DELETE", f"{CMS}/a")


async def test_a_wrong_policy_is_refused_and_a_warning_is_a_header(guarded: Api) -> None:
    body = {
        "metadata": {"name": "bad"},
        "spec": {"matchConstraints": {"resourceRules": RULES}, "validations": [{"expression": "x"}]},
    }
    answer = await guarded("POST", f"{API}/validatingadmissionpolicies", body)
    assert answer.status == 422 and "undeclared reference to 'x'" in answer.json["message"]
    await validating(guarded, "Warn", validations=[{"expression": "false", "message": "mind"}])
    answer = await guarded("POST", CMS, config_map("a", x="0"))
    text = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p': mind"
    assert answer.status == 201 and answer.warnings == [f'299 - "{text}"']


async def test_what_a_mutation_makes_is_checked_like_a_clients(guarded: Api) -> None:
    labels = "Object{metadata: Object.metadata{labels: {'from': object.data.x}}, unknown: 1}"
    mutation = {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": labels}}
    spec = {"mutations": [mutation], "reinvocationPolicy": "Never"}
    await put(guarded, "MutatingAdmissionPolicy", "mutatingadmissionpolicies", spec)
    made = await guarded.ok("POST", CMS, config_map("a", x="there"))
    assert made["metadata"]["labels"] == {"from": "there"} and "unknown" not in made
    answer = await guarded("POST", CMS, config_map("b", x="not a label"))
    assert answer.status == 422 and "metadata.labels" in answer.json["message"]


async def test_audit(guarded: Api, tmp_path: Path) -> None:
    notes = [{"key": "x", "valueExpression": "'x is ' + object.data.x"}]
    await validating(guarded, "Deny", "Audit", validations=[{"expression": "false", "message": "no"}], auditAnnotations=notes)
    file = LogFile(tmp_path / "log")
    audit = Audit(file, guarded.server.catalog, guarded.clock)
    body = orjson.dumps(config_map("a", x="1"))
    headers = Headers([("Content-Type", "application/json")])
    answer = await audit.wrap(guarded.server.handle)(Request("POST", CMS, [], headers, MemoryBody(body), CMS))
    assert isinstance(answer, Response) and answer.status == 422
    await file.close()
    event = orjson.loads((tmp_path / "log").read_bytes())
    assert event["annotations"]["p/x"] == "x is 1"
    (failure,) = orjson.loads(event["annotations"]["validation.policy.admission.k8s.io/validation_failure"])
    assert failure["message"] == "no" and failure["validationActions"] == ["Deny", "Audit"]
