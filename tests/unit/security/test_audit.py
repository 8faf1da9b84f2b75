"""The audit log: what the policy says is written, in which stages, and that the log stays bounded."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from k1s.api.catalog import builtin_catalog
from k1s.base.clock import VirtualClock
from k1s.base.http import Answer, Headers, MemoryBody, RawUpgrade, Request, Response, Stream
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.auditing.app import Audit, open_policy
from k1s.server.apiserver.auditing.file import LogFile
from k1s.server.apiserver.auditing.policy import Policy, PolicyError, parse
from k1s.server.apiserver.impersonation import IMPERSONATOR

JANE = UserInfo("jane", ("dev",))
ROOT = UserInfo("root", ("system:masters",))
SECRETS = RequestInfo(True, "", "create", "", "v1", "secrets", "", "ns", "x")
LOG = RequestInfo(True, "", "get", "", "v1", "pods", "log", "ns", "p")
SCALE = RequestInfo(True, "", "update", "apps", "v1", "deployments", "scale", "ns", "d")
HEALTH = RequestInfo(False, "/healthz/ping", "get")


def policy(*rules: dict[str, Any], **more: Any) -> Policy:
    return parse({"kind": "Policy", "apiVersion": "audit.k8s.io/v1", "rules": list(rules), **more}, "file")


@pytest.mark.parametrize(
    "rule, info, level",
    [
        ({}, SECRETS, "Metadata"),
        ({"users": ["jane"]}, SECRETS, "Metadata"),
        ({"users": ["bob"]}, SECRETS, "None"),
        ({"userGroups": ["x", "dev"]}, SECRETS, "Metadata"),
        ({"userGroups": ["x"]}, SECRETS, "None"),
        ({"verbs": ["create"]}, SECRETS, "Metadata"),
        ({"verbs": ["get"]}, SECRETS, "None"),
        ({"namespaces": ["ns"]}, SECRETS, "Metadata"),
        ({"namespaces": [""]}, SECRETS, "None"),
        ({"namespaces": ["ns"]}, HEALTH, "None"),
        ({"resources": [{"group": ""}]}, SECRETS, "Metadata"),
        ({"resources": [{"group": "apps"}]}, SECRETS, "None"),
        ({"resources": [{"group": "", "resources": ["secrets"]}]}, SECRETS, "Metadata"),
        ({"resources": [{"group": "", "resources": ["secrets"], "resourceNames": ["y"]}]}, SECRETS, "None"),
        ({"resources": [{"group": "", "resources": ["secrets"], "resourceNames": ["x"]}]}, SECRETS, "Metadata"),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, LOG, "None"),
        ({"resources": [{"group": "", "resources": ["pods/log"]}]}, LOG, "Metadata"),
        ({"resources": [{"group": "", "resources": ["pods/*"]}]}, LOG, "Metadata"),
        ({"resources": [{"group": "", "resources": ["*"]}]}, LOG, "Metadata"),
        ({"resources": [{"group": "apps", "resources": ["*/scale"]}]}, SCALE, "Metadata"),
        ({"resources": [{"group": "apps", "resources": ["*/status"]}]}, SCALE, "None"),
        ({"nonResourceURLs": ["/healthz*"]}, HEALTH, "Metadata"),
        ({"nonResourceURLs": ["/healthz"]}, HEALTH, "None"),
        ({"nonResourceURLs": ["*"]}, HEALTH, "Metadata"),
        ({"nonResourceURLs": ["*"]}, SECRETS, "None"),
    ],
)
def test_which_rule_matches(rule: dict[str, Any], info: RequestInfo, level: str) -> None:
    assert policy({"level": "Metadata", **rule}).verdict(JANE, info).level == level


def test_the_first_rule_decides_and_stages_add_up() -> None:
    first = {"level": "Request", "verbs": ["create"], "omitStages": ["ResponseStarted"], "omitManagedFields": False}
    found = policy(first, {"level": "None"}, omitStages=["RequestReceived"], omitManagedFields=True)
    verdict = found.verdict(JANE, SECRETS)
    assert verdict.level == "Request" and verdict.omit_stages == {"RequestReceived", "ResponseStarted"}
    assert not verdict.omit_managed_fields and found.verdict(JANE, LOG).omit_managed_fields


@pytest.mark.parametrize(
    "document, fault",
    [
        ({"kind": "Policy"}, "not a Policy"),
        ({"rules": []}, "0 rules"),
        ({"rules": [{"level": "All"}]}, "Unsupported value"),
        ({"rules": [{"level": "None", "omitStages": ["x"]}]}, "invalid stage"),
        ({"rules": [{"level": "None", "nonResourceURLs": ["/x"], "namespaces": ["a"]}]}, "both regular"),
        ({"rules": [{"level": "None", "nonResourceURLs": ["/a*b"]}]}, "only at the end"),
    ],
)
def test_policies_that_cannot_be_used(document: Any, fault: str, tmp_path: Path) -> None:
    if "kind" not in document:
        document = {"kind": "Policy", "apiVersion": "audit.k8s.io/v1", **document}
    (tmp_path / "p").write_text(yaml.safe_dump(document))
    with pytest.raises(PolicyError, match=fault):
        open_policy(str(tmp_path / "p"))


OBJECT = {"kind": "Secret", "metadata": {"name": "x", "managedFields": [{"manager": "m"}]}, "data": {"p": "c2VjcmV0"}}


class Rig:
    """A handler that authenticates as the API server does, reads the body and gives `answer`."""

    def __init__(
        self, path: Path, answer: Answer, policy: Policy | None = None, user: UserInfo | None = JANE, **limits: int
    ) -> None:
        self.path = path
        self.audit = Audit(
            LogFile(path, **limits), builtin_catalog(), VirtualClock(), policy, lambda user, info: f"for {user.name}"
        )

        async def handler(request: Request) -> Answer:
            if user is not None:
                request.context["audit"](user)
                request.context["user"] = user
                if request.headers.get("impersonate-user"):
                    request.context[IMPERSONATOR], request.context["user"] = user, UserInfo("other")
            await request.body.read(1000)
            return answer

        self.handle = self.audit.wrap(handler)

    async def ask(self, method: str = "POST", body: bytes = orjson.dumps(OBJECT), **headers: str) -> Answer:
        path = "/api/v1/namespaces/ns/secrets"
        fields = Headers([("User-Agent", "kubectl/1"), ("Authorization", "Bearer hunter2"), *headers.items()])
        return await self.handle(Request(method, path, headers=fields, body=MemoryBody(body), raw_path=path, remote="192.0.2.1"))

    async def events(self) -> list[dict[str, Any]]:
        await self.audit.close()
        return [orjson.loads(line) for line in self.path.read_bytes().splitlines()] if self.path.exists() else []


async def test_a_write_is_noted_without_its_content(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "log", Response(201, orjson.dumps(OBJECT)))
    await rig.ask()
    (event,) = await rig.events()
    assert event["user"] == {"username": "jane", "groups": ["dev"]}
    assert event["objectRef"] == {"resource": "secrets", "namespace": "ns", "apiVersion": "v1"}
    assert (event["verb"], event["responseStatus"], event["stage"]) == (
        "create",
        {"metadata": {}, "code": 201},
        "ResponseComplete",
    )
    assert event["annotations"] == {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "for jane"}
    assert event["auditID"] and b"c2VjcmV0" not in rig.path.read_bytes() and b"hunter2" not in rig.path.read_bytes()
    assert stat.S_IMODE(rig.path.stat().st_mode) == 0o600


async def test_without_a_policy_reads_are_noted_only_if_refused(tmp_path: Path) -> None:
    for name, status, user, count in (("a", 200, JANE, 0), ("b", 403, JANE, 1), ("c", 401, None, 1)):
        rig = Rig(tmp_path / name, Response(status), user=user)
        await rig.ask("GET", b"")
        assert len(await rig.events()) == count


@pytest.mark.parametrize(
    "level, keys",
    [("Metadata", set()), ("Request", {"requestObject"}), ("RequestResponse", {"requestObject", "responseObject"})],
)
async def test_levels_and_stages(tmp_path: Path, level: str, keys: set[str]) -> None:
    rules = policy({"level": level, "omitManagedFields": True})
    rig = Rig(tmp_path / "log", Response(201, orjson.dumps(OBJECT)), rules)
    await rig.ask()
    received, complete = await rig.events()
    assert (received["stage"], complete["stage"]) == ("RequestReceived", "ResponseComplete")
    assert received["auditID"] == complete["auditID"] and "responseStatus" not in received
    assert keys == complete.keys() & {"requestObject", "responseObject"}
    for key in keys:
        assert complete[key] == {"kind": "Secret", "metadata": {"name": "x"}, "data": {"p": "c2VjcmV0"}}


async def test_refusals_tell_why(tmp_path: Path) -> None:
    status = {"kind": "Status", "status": "Failure", "message": "no", "reason": "Forbidden", "code": 403}
    rig = Rig(tmp_path / "log", Response(403, orjson.dumps(status)))
    await rig.ask()
    (event,) = await rig.events()
    assert event["responseStatus"] == {"metadata": {}, "status": "Failure", "message": "no", "reason": "Forbidden", "code": 403}
    assert event["annotations"]["authorization.k8s.io/decision"] == "forbid"


async def test_who_acts_as_somebody_else_is_both(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "log", Response(201), user=ROOT)
    await rig.ask(**{"Impersonate-User": "other"})
    (event,) = await rig.events()
    assert (event["user"]["username"], event["impersonatedUser"]["username"]) == ("root", "other")


async def test_what_runs_for_long_is_noted_at_both_ends(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "log", Stream(iter(())), policy({"level": "Metadata"}))  # type: ignore[arg-type]
    answer = await rig.ask("GET", b"")
    assert isinstance(answer, Stream) and answer.ended is not None
    await asyncio.sleep(0.05)
    assert [event["stage"] for event in await rig.events()] == ["RequestReceived", "ResponseStarted"]
    answer.ended()
    assert [event["stage"] for event in await rig.events()][2:] == ["ResponseComplete"]

    async def serve(connection: object) -> None:
        raise ConnectionError

    other = Rig(tmp_path / "other", RawUpgrade("SPDY/3.1", serve), policy({"level": "Metadata"}))
    upgrade = await other.ask(body=b"")
    with pytest.raises(ConnectionError):
        await upgrade.serve(None)  # type: ignore[union-attr, arg-type]
    assert [event["stage"] for event in await other.events()] == ["RequestReceived", "ResponseStarted", "ResponseComplete"]


async def test_bodies_that_are_no_json(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "log", Response(200, b"\x1f\x8b", "application/json"), policy({"level": "RequestResponse"}))
    await rig.ask(body=b"k8s\x00\xff")
    assert not (await rig.events())[1].keys() & {"requestObject", "responseObject"}


async def test_calls_from_inside_are_not_noted(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "log", Response(201), user=None)
    await rig.handle(Request("POST", "/api/v1/namespaces/ns/secrets", context={"user": ROOT}))
    assert await rig.events() == []


async def test_the_log_is_bounded(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "log", Response(201), max_bytes=2000, keep=2)
    for _ in range(30):
        await rig.ask()
    await rig.events()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(p.stat().st_size <= 2000 for p in tmp_path.iterdir())


async def test_a_disk_that_is_full_or_slow_costs_lines_and_not_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blocked").write_bytes(b"")
    rig = Rig(tmp_path / "blocked" / "log", Response(201))
    assert (await rig.ask()).status == 201  # type: ignore[union-attr]
    await rig.audit.close()
    assert rig.audit.file.lost == 1
    monkeypatch.setattr("k1s.server.apiserver.auditing.file.QUEUE_BYTES", 2000)
    slow = Rig(tmp_path / "log", Response(201))
    for _ in range(20):
        await slow.ask()
    assert 0 < len(await slow.events()) < 20 and slow.audit.file.lost


async def test_nothing_that_a_client_sends_keeps_its_request_out_of_the_log(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "bytes", Response(200))
    await rig.handle(Request("DELETE", "/api/v1/namespaces/ns/secrets/x", raw_path="/api/v1/namespaces/ns/secrets/x?\udcff"))
    (event,) = await rig.events()
    assert event["verb"] == "delete" and event["objectRef"]["name"] == "x"
    deep = Rig(tmp_path / "deep", Response(400), policy({"level": "Request", "omitStages": ["RequestReceived"]}))
    await deep.ask(body=b"[" * 400 + b"]" * 400)
    (event,) = await deep.events()
    assert "requestObject" not in event and event["annotations"]["audit.k8s.io/truncated"] == "true"
