"""Priority and fairness: who matches which schema, who gets which seat, and who is told to come back later."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from k1s.base.http import Request, Response, Stream
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.flow.level import Level, deal
from k1s.server.apiserver.flow.matching import matches, schema_of
from k1s.server.apiserver.flow.pool import Pool
from k1s.server.apiserver.flow.shares import Limits, limits
from k1s.server.controllers.flow_schema import dangling
from k1s.server.defaults import flow_control
from tests.unit.apiserver.conftest import CMS, Api, config_map, running

LEVELS = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations"
SCHEMAS = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
NODE = UserInfo("system:node:n1", ("system:nodes", "system:authenticated"))
MASTER = UserInfo("admin", ("system:masters", "system:authenticated"))
ANYBODY = UserInfo("eve", ("system:authenticated",))
ACCOUNT = UserInfo("system:serviceaccount:a:b", ("system:serviceaccounts", "system:authenticated"))
SYSTEM_ACCOUNT = UserInfo("system:serviceaccount:kube-system:x", ("system:serviceaccounts", "system:authenticated"))
MANAGER = UserInfo("system:kube-controller-manager", ("system:authenticated",))

LEASE = RequestInfo(True, "", "update", "coordination.k8s.io", "v1", "leases", "", "kube-node-lease", "n1")
PODS = RequestInfo(True, "", "list", "", "v1", "pods", "", "a")
NODES = RequestInfo(True, "", "patch", "", "v1", "nodes", "status", "", "n1")
HEALTH = RequestInfo(False, "/readyz", "get")
VERSION = RequestInfo(False, "/version", "get")


@pytest.mark.parametrize(
    "user, info, schema, level",
    [
        (MASTER, PODS, "exempt", "exempt"),
        (ANYBODY, HEALTH, "probes", "exempt"),
        (ANYBODY, VERSION, "global-default", "global-default"),
        (NODE, LEASE, "system-node-high", "node-high"),
        (NODE, NODES, "system-node-high", "node-high"),
        (NODE, PODS, "system-nodes", "system"),
        (ACCOUNT, PODS, "service-accounts", "workload-low"),
        (ACCOUNT, LEASE, "service-accounts", "workload-low"),
        (SYSTEM_ACCOUNT, LEASE, "system-leader-election", "leader-election"),
        (SYSTEM_ACCOUNT, PODS, "kube-system-service-accounts", "workload-high"),
        (MANAGER, PODS, "kube-controller-manager", "workload-high"),
    ],
)
def test_the_default_schemas(user: UserInfo, info: RequestInfo, schema: str, level: str) -> None:
    schemas = [schema_of(obj) for obj in flow_control.objects() if obj["kind"] == "FlowSchema"]
    found = min((s for s in schemas if matches(s, info, user)), key=lambda s: (s.precedence, s.name))
    assert (found.name, found.level) == (schema, level)


def _schema(**rule: Any) -> Any:
    subjects = rule.pop("subjects", [{"kind": "User", "user": {"name": "*"}}])
    return schema_of({"metadata": {"name": "s"}, "spec": {"rules": [{"subjects": subjects, **rule}]}})


@pytest.mark.parametrize(
    "rule, info, expected",
    [
        ({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["a"]}, PODS, True),
        ({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["b"]}, PODS, False),
        ({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"], "clusterScope": True}, PODS, False),
        ({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"]}, PODS, False),
        ({"verbs": ["*"], "apiGroups": ["*"], "resources": ["nodes"], "clusterScope": True}, NODES, False),
        ({"verbs": ["*"], "apiGroups": ["*"], "resources": ["nodes/status"], "clusterScope": True}, NODES, True),
        ({"verbs": ["*"], "apiGroups": ["*"], "resources": ["nodes/status"], "namespaces": ["*"]}, NODES, False),
    ],
)
def test_resource_rules(rule: dict[str, Any], info: RequestInfo, expected: bool) -> None:
    assert matches(_schema(resourceRules=[rule]), info, ANYBODY) is expected
    assert not matches(_schema(resourceRules=[rule], subjects=[{"kind": "User", "user": {"name": "mallory"}}]), info, ANYBODY)


@pytest.mark.parametrize("url, expected", [("/version", True), ("/ver*", True), ("*", True), ("/versions", False), ("/v", False)])
def test_paths(url: str, expected: bool) -> None:
    assert matches(_schema(nonResourceRules=[{"verbs": ["get"], "nonResourceURLs": [url]}]), VERSION, ANYBODY) is expected


def test_shares_become_seats() -> None:
    specs = {obj["metadata"]["name"]: obj["spec"] for obj in flow_control.objects() if obj["kind"] != "FlowSchema"}
    found = limits(specs, 600)
    # As an upstream server with its defaults reports them.
    assert {name: limit.nominal for name, limit in found.items()} == {
        "exempt": 0, "catch-all": 13, "system": 74, "node-high": 98, "leader-election": 25,
        "workload-high": 98, "workload-low": 245, "global-default": 49,
    }  # fmt: skip
    assert found["workload-low"] == Limits(245, 24, 600)
    limited = {"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "borrowingLimitPercent": 50, "lendablePercent": 10}}
    assert limits({"x": limited}, 10)["x"] == Limits(10, 9, 10)


def _pool(total: int, **levels: tuple[int, int, int]) -> Pool:
    pool = Pool(total)
    pool.configure({name: ("", False, Limits(*numbers), (8, 2, 50)) for name, numbers in levels.items()})
    return pool


def test_lent_seats_are_taken_and_kept_ones_are_not() -> None:
    pool = _pool(10, rich=(6, 4, 10), poor=(4, 4, 10))
    rich, poor = pool.levels["rich"], pool.levels["poor"]
    assert [pool.admit(rich, 1) for _ in range(7)] == [True] * 6 + [False]
    assert [pool.admit(poor, 1) for _ in range(5)] == [True] * 4 + [False]
    pool.leave(rich, 1)
    assert pool.admit(poor, 1)  # it borrows what the other may lend
    assert not pool.admit(rich, 1)
    for _ in range(5):
        pool.leave(poor, 1)
        pool.leave(rich, 1)
    assert (pool._committed, rich.seats, poor.seats) == (8, 0, 0)


def test_what_is_wider_than_its_level_runs_alone() -> None:
    pool = _pool(4, one=(2, 2, 2))
    assert pool.admit(pool.levels["one"], 10)
    assert not pool.admit(pool.levels["one"], 1)
    pool.leave(pool.levels["one"], 10)
    assert pool._committed == 2


async def test_a_flood_does_not_push_a_quiet_flow_back() -> None:
    pool = _pool(1, one=(1, 1, 1))
    level = pool.levels["one"]
    assert pool.admit(level, 1)
    loud = [pool.wait(level, (0,), 1) for _ in range(50)]
    assert pool.wait(level, (0,), 1) is None  # its queue is full
    quiet = pool.wait(level, (1,), 1)
    order = []
    for _ in range(3):
        pool.leave(level, 1)
        order += [w for w in (*loud, quiet) if w is not None and w.seated.done() and w not in order]
    assert order.index(quiet) <= 1
    assert level.waiting == 48


async def test_a_wide_request_delays_its_own_queue() -> None:
    pool = _pool(1, one=(1, 1, 1))
    level = pool.levels["one"]
    pool.admit(level, 1)
    wide, narrow = [pool.wait(level, (0,), 10) for _ in range(2)], [pool.wait(level, (1,), 1) for _ in range(5)]
    done = []
    running = 1
    for _ in range(6):
        pool.leave(level, running)
        (now,) = [w for w in (*wide, *narrow) if w.seated.done() and w not in done]
        done.append(now)
        running = now.width
    assert [w.width for w in done].count(10) == 1


async def test_seats_go_first_to_who_is_below_its_own() -> None:
    pool = _pool(3, owner=(2, 0, 3), borrower=(1, 0, 3))
    owner, borrower = pool.levels["owner"], pool.levels["borrower"]
    assert [pool.admit(borrower, 1) for _ in range(4)] == [True, True, True, False]
    assert pool.admit(owner, 1)  # who has nothing at all may begin
    first, second = pool.wait(borrower, (0,), 1), pool.wait(owner, (0,), 1)
    pool.leave(borrower, 1)
    assert not first.seated.done() and not second.seated.done()
    pool.leave(borrower, 1)
    assert second.seated.done() and not first.seated.done()


def test_hands_differ_and_stay() -> None:
    hands = {deal("s", f"user{i}", 64, 6) for i in range(100)}
    assert len(hands) == 100 and all(len(set(hand)) == 6 for hand in hands)
    assert deal("s", "a", 64, 6) == deal("s", "a", 64, 6)
    assert sorted(deal("s", "a", 3, 6)) == [0, 1, 2]


def test_retry_after_grows_and_shrinks() -> None:
    level = Level("x")
    now = 0.0
    for _ in range(4):
        now += 1.0
        for _ in range(100):
            level.drop(now)
    assert level.retry_after == 8
    assert level.drop(now + 60) == 1


class Gate:
    """A handler that answers when it is told to; and who is asking is what a header says."""

    def __init__(self, api: Api) -> None:
        self.open = asyncio.Event()
        self.inside = 0

        async def authenticate(request: Request) -> UserInfo:
            name = request.headers.get("x-user", "eve")
            return NODE if name == "node" else MASTER if name == "master" else UserInfo(name, ("system:authenticated",))

        async def authorize(user: UserInfo, info: RequestInfo) -> None:
            if user.name.startswith("greedy"):
                self.inside += 1
                await self.open.wait()

        api.server.authenticator.authenticate = authenticate  # type: ignore[method-assign]
        api.server.authorizer.authorize = authorize  # type: ignore[method-assign]


async def _defaults(api: Api) -> None:
    for obj in flow_control.objects():
        path = SCHEMAS if obj["kind"] == "FlowSchema" else LEVELS
        await api.ok("POST", path, obj)


async def test_every_answer_names_its_schema_and_level(api: Api) -> None:
    await _defaults(api)
    schema = (await api.ok("GET", f"{SCHEMAS}/exempt"))["metadata"]["uid"]
    level = (await api.ok("GET", f"{LEVELS}/exempt"))["metadata"]["uid"]
    for method, path in (("GET", CMS), ("GET", f"{CMS}/none"), ("GET", "/version"), ("POST", CMS)):
        answer = await api(method, path)
        assert answer.headers["X-Kubernetes-PF-FlowSchema-UID"] == schema
        assert answer.headers["X-Kubernetes-PF-PriorityLevel-UID"] == level
    watch = await api.send("GET", f"{CMS}?watch=1")
    assert isinstance(watch, Stream) and ("X-Kubernetes-PF-FlowSchema-UID", schema) in watch.headers
    await watch.chunks.aclose()  # type: ignore[attr-defined]


async def test_a_new_schema_counts_at_once(api: Api) -> None:
    gate = Gate(api)
    gate.open.set()
    await _defaults(api)
    level = {"metadata": {"name": "mine"}, "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}}
    await api.ok("POST", LEVELS, level)
    spec = {
        "priorityLevelConfiguration": {"name": "mine"},
        "matchingPrecedence": 1000,
        "rules": [
            {
                "subjects": [{"kind": "User", "user": {"name": "eve"}}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/version"]}],
            }
        ],
    }
    made = await api.ok("POST", SCHEMAS, {"metadata": {"name": "mine"}, "spec": spec})
    assert (await api("GET", "/version")).headers["X-Kubernetes-PF-FlowSchema-UID"] == made["metadata"]["uid"]
    await api.ok("DELETE", f"{LEVELS}/mine", x_user="master")
    # Its level has gone: the next schema takes over.
    assert (await api("GET", "/version")).headers["X-Kubernetes-PF-FlowSchema-UID"] != made["metadata"]["uid"]


async def test_a_greedy_client_starves_nobody() -> None:
    async with running() as api:
        await _defaults(api)
        gate = Gate(api)
        greedy = [asyncio.create_task(api("GET", f"{CMS}/x{i}", x_user="greedy")) for i in range(1000)]
        await asyncio.sleep(0.05)
        assert gate.inside < 500
        async with asyncio.timeout(5):
            lease = {"metadata": {"name": "n1", "namespace": "kube-node-lease"}, "spec": {}}
            path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
            assert (await api("POST", path, lease, x_user="node")).status == 201
            assert (await api("GET", f"{path}/n1", x_user="node")).status == 200
            assert (await api("POST", CMS, config_map("a"), x_user="master")).status == 201
        flow = api.server.flow.pool.levels["global-default"]
        refused = [task for task in greedy if task.done()]
        # Six queues of fifty are what one user may fill.
        assert flow.waiting == 300 and len(refused) == 1000 - gate.inside - 300
        answer = refused[0].result()
        assert (answer.status, answer.raw) == (429, b"Too many requests, please try again later.\n")
        assert int(answer.headers["Retry-After"]) >= 1 and "X-Kubernetes-PF-FlowSchema-UID" in answer.headers
        # Another of the same level waits its turn, which comes long before the flood's end.
        other = asyncio.create_task(api("GET", f"{CMS}/a", x_user="eve"))
        await asyncio.sleep(0)
        gate.open.set()
        assert (await other).status == 200
        await asyncio.gather(*greedy)
        assert flow.idle and api.server.flow.reading == 0
        text = api.server.exposition().decode()
        assert 'apiserver_flowcontrol_nominal_limit_seats{priority_level="node-high"} 98' in text
        line = 'apiserver_flowcontrol_rejected_requests_total{priority_level="global-default",flow_schema="global-default",'
        assert f'{line}reason="queue-full"}} {len(refused)}' in text
        pages = await api("GET", "/debug/api_priority_and_fairness/dump_priority_levels", x_user="master")
        assert b"\nglobal-default, 0, true, false, 0, 0, " in pages.raw


async def test_who_waits_too_long_is_refused() -> None:
    async with running() as api:
        await _defaults(api)
        api.server.flow._patience = 0.05
        api.server.flow.pool.total = 1
        api.server.flow._stale = True
        gate = Gate(api)
        first = asyncio.create_task(api("GET", CMS, x_user="greedy"))
        await asyncio.sleep(0.01)
        seats = api.server.flow.pool.levels["global-default"]
        seats.maximum = 1
        assert (await api("GET", CMS, x_user="greedy2")).status == 429
        cut = asyncio.create_task(api("GET", CMS, x_user="greedy3"))
        await asyncio.sleep(0.01)
        cut.cancel()
        await asyncio.gather(cut, return_exceptions=True)
        gate.open.set()
        assert (await first).status == 200
        assert (seats.idle, seats.timed_out) == (True, 1)


async def test_streams_are_not_counted(api: Api) -> None:
    await _defaults(api)
    answer = await api.send("GET", "/api/v1/namespaces/default/pods/x/log")
    assert isinstance(answer, Response) and "X-Kubernetes-PF-FlowSchema-UID" not in dict(answer.headers)


def test_dangling() -> None:
    schema = {"spec": {"priorityLevelConfiguration": {"name": "x"}}}
    assert dangling(schema, None)["status"] == "True"
    assert dangling(schema, {})["message"].endswith('named "x" and it exists')


@pytest.mark.parametrize(
    "annotations, generation, spec, written",
    [
        ({"apf.kubernetes.io/autoupdate-spec": "true"}, 2, {}, ("true", True)),
        ({"apf.kubernetes.io/autoupdate-spec": "false"}, 2, {}, None),
        ({}, 1, {}, ("true", True)),
        ({}, 2, {}, ("false", False)),
        ({"apf.kubernetes.io/autoupdate-spec": "x"}, 1, None, ("true", False)),
        ({"apf.kubernetes.io/autoupdate-spec": "true"}, 1, None, None),
    ],
)
def test_who_keeps_a_default(annotations: dict[str, str], generation: int, spec: Any, written: Any) -> None:
    wanted = next(obj for obj in flow_control.objects() if obj["metadata"]["name"] == "system")
    found = {"metadata": {"name": "system", "annotations": annotations, "generation": generation}}
    out = flow_control.plan(wanted, {**found, "spec": wanted["spec"] if spec is None else spec})
    if written is None:
        assert out is None
    else:
        note, rewritten = written
        assert out["metadata"]["annotations"][flow_control.AUTOUPDATE] == note
        assert (out["spec"] == wanted["spec"]) is (rewritten or spec is None)


def test_nobody_takes_over_the_mandatory_ones() -> None:
    wanted = next(obj for obj in flow_control.objects() if obj["metadata"]["name"] == "catch-all")
    found = {"metadata": {"name": "catch-all", "annotations": {flow_control.AUTOUPDATE: "false"}}, "spec": {"type": "Exempt"}}
    assert flow_control.plan(wanted, found)["spec"] == wanted["spec"]


async def test_flows_of_long_paths_are_not_kept() -> None:
    async with running() as api:
        flow = api.server.flow
        before = len(flow._cache), len(flow._flows)
        for number in range(20):
            group = f"{number}" * 1000
            info = RequestInfo(True, f"/apis/{group}/v1/x", "list", group, "v1", "x")
            assert flow.classify(info, ANYBODY).schema and flow.classify(RequestInfo(False, f"/{group}", "get"), ANYBODY).schema
        assert (len(flow._cache), len(flow._flows)) == before
        flow.classify(VERSION, ANYBODY)
        assert len(flow._cache) == before[0] + 1
