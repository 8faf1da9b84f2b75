"""Workload controllers and the scheduler, as the conformance suite looks at them: what they make, adopt, release and report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .api import STRATEGIC, Api, Refused
from .conftest import Cluster, eventually

BUSYBOX = "docker.io/library/busybox:1.36"
Object = dict[str, Any]


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Iterator[Api]:
    made = Api(cluster)
    yield made
    made.close()


@pytest.fixture
def apps(namespace: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}"


@pytest.fixture
def batch(namespace: str) -> str:
    return f"/apis/batch/v1/namespaces/{namespace}"


@pytest.fixture
def core(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}"


def pod_spec(*command: str, **more: Any) -> Object:
    command = command or ("sleep", "1000")
    container = {"name": "c", "image": BUSYBOX, "command": list(command)}
    return {"containers": [container], "terminationGracePeriodSeconds": 0, **more}


def workload(name: str, replicas: int, spec: Object | None = None, **more: Any) -> Object:
    template = {"metadata": {"labels": {"app": name}}, "spec": spec or pod_spec()}
    return {
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template, **more},
    }


def pods(api: Api, core: str, selector: str = "") -> list[Object]:
    found: list[Object] = api.get(f"{core}/pods", labelSelector=selector)["items"]
    return [p for p in found if not p["metadata"].get("deletionTimestamp")]


def status(api: Api, path: str) -> Object:
    found: Object = api.get(path).get("status") or {}
    return found


def reaches(api: Api, path: str, seconds: float = 30, **wanted: Any) -> Object:
    eventually(lambda: {k: status(api, path).get(k) for k in wanted} == wanted, seconds, f"{path} {wanted}")
    return status(api, path)


def gone(api: Api, path: str) -> bool:
    try:
        api.get(path)
    except Refused as error:
        return error.code == 404
    return False


def test_deployment_lifecycle_with_status_and_scale(api: Api, apps: str) -> None:
    path = f"{apps}/deployments"
    api.post(path, workload("d", 1))
    reaches(api, f"{path}/d", readyReplicas=1, updatedReplicas=1, availableReplicas=1, observedGeneration=1)
    scale = api.get(f"{path}/d/scale")
    assert scale["spec"]["replicas"] == 1 and scale["status"]["selector"] == "app=d"
    scale["spec"]["replicas"] = 2
    assert api.put(f"{path}/d/scale", scale)["spec"]["replicas"] == 2
    reaches(api, f"{path}/d", readyReplicas=2)
    condition = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "m"}
    patched = api.patch(f"{path}/d/status", {"status": {"conditions": [condition]}}, STRATEGIC)
    assert "StatusUpdate" in {c["type"] for c in patched["status"]["conditions"]}
    api.delete(path, labelSelector="app=d")
    eventually(lambda: gone(api, f"{path}/d"), 10)


def test_deployment_rollover_deletes_old_sets(api: Api, apps: str, core: str) -> None:
    path = f"{apps}/deployments"
    api.post(path, workload("d", 2, revisionHistoryLimit=0))
    reaches(api, f"{path}/d", readyReplicas=2)
    for value in ("one", "two"):
        api.patch(f"{path}/d", {"spec": {"template": {"metadata": {"annotations": {"v": value}}}}}, STRATEGIC)
    reaches(api, f"{path}/d", updatedReplicas=2, readyReplicas=2, observedGeneration=3)
    eventually(lambda: len(api.get(f"{apps}/replicasets")["items"]) == 1, 20)
    assert len(pods(api, core, "app=d")) == 2
    assert api.get(f"{path}/d")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] in ("2", "3")


def test_recreate_never_runs_both(api: Api, apps: str, core: str) -> None:
    path = f"{apps}/deployments"
    api.post(path, workload("d", 1, strategy={"type": "Recreate"}))
    reaches(api, f"{path}/d", readyReplicas=1)
    version = api.get(f"{core}/pods")["metadata"]["resourceVersion"]
    api.patch(f"{path}/d", {"spec": {"template": {"metadata": {"annotations": {"v": "2"}}}}}, STRATEGIC)
    reaches(api, f"{path}/d", readyReplicas=1, updatedReplicas=1, observedGeneration=2)
    alive: set[str] = set()
    most = 0
    for kind, pod in api.watch(f"{core}/pods", 2, resourceVersion=version, timeoutSeconds=1):
        # A pod that has ended and is about to be deleted does not hold the next one up, as upstream.
        ended = kind == "DELETED" or pod["status"].get("phase") in ("Succeeded", "Failed")
        (alive.discard if ended else alive.add)(pod["metadata"].get("name"))
        most = max(most, len(alive))
    assert most == 1


def test_proportional_scaling_of_a_stuck_rollout(api: Api, apps: str) -> None:
    path = f"{apps}/deployments"
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
    api.post(path, workload("d", 5, pod_spec(schedulerName="nobody"), strategy=strategy))
    reaches(api, f"{path}/d", replicas=5)
    api.patch(f"{path}/d", {"spec": {"template": {"metadata": {"annotations": {"v": "2"}}}}}, STRATEGIC)
    reaches(api, f"{path}/d", observedGeneration=2, updatedReplicas=5)
    api.patch(f"{path}/d", {"spec": {"replicas": 15}})
    eventually(lambda: sum(r["spec"]["replicas"] for r in api.get(f"{apps}/replicasets")["items"]) in (15, 18), 15)


@pytest.mark.parametrize("plural", ["replicasets", "replicationcontrollers"])
def test_adoption_and_release(api: Api, apps: str, core: str, plural: str) -> None:
    path = f"{apps if plural == 'replicasets' else core}/{plural}"
    orphan = {"metadata": {"name": "orphan", "labels": {"app": "r"}}, "spec": pod_spec()}
    api.post(f"{core}/pods", orphan)
    body = workload("r", 1)
    if plural != "replicasets":
        body["spec"]["selector"] = {"app": "r"}
    api.post(path, body)
    eventually(lambda: api.get(f"{core}/pods/orphan")["metadata"].get("ownerReferences"), 10)
    assert len(pods(api, core)) == 1
    api.patch(f"{core}/pods/orphan", {"metadata": {"labels": {"app": "other"}}})
    eventually(lambda: not api.get(f"{core}/pods/orphan")["metadata"].get("ownerReferences"), 10)
    eventually(lambda: len(pods(api, core, "app=r")) == 1, 10)


def test_replication_controller_tells_of_a_full_quota(api: Api, core: str) -> None:
    api.post(f"{core}/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}})
    eventually(lambda: status(api, f"{core}/resourcequotas/q").get("used"), 5)
    body = workload("r", 2)
    body["spec"]["selector"] = {"app": "r"}
    api.post(f"{core}/replicationcontrollers", body)

    def failing() -> bool:
        found = status(api, f"{core}/replicationcontrollers/r").get("conditions") or []
        return any(c["type"] == "ReplicaFailure" and c["status"] == "True" for c in found)

    eventually(failing, 15)
    api.patch(f"{core}/replicationcontrollers/r", {"spec": {"replicas": 1}})
    eventually(lambda: not failing(), 15)


def test_stateful_set_in_order_and_by_partition(api: Api, apps: str, core: str) -> None:
    path = f"{apps}/statefulsets"
    body = workload("s", 2, serviceName="s")
    api.post(path, body)
    reaches(api, f"{path}/s", readyReplicas=2, currentReplicas=2)
    names = {p["metadata"]["name"]: p["metadata"]["labels"] for p in pods(api, core, "app=s")}
    assert set(names) == {"s-0", "s-1"} and names["s-1"]["apps.kubernetes.io/pod-index"] == "1"
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    template = {"metadata": {"annotations": {"v": "2"}}}
    api.patch(f"{path}/s", {"spec": {"updateStrategy": rolling, "template": template}})
    found = reaches(api, f"{path}/s", updatedReplicas=1, readyReplicas=2)
    revisions = {p["metadata"]["name"]: p["metadata"]["labels"]["controller-revision-hash"] for p in pods(api, core, "app=s")}
    assert revisions == {"s-0": found["currentRevision"], "s-1": found["updateRevision"]}
    api.patch(f"{path}/s", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})
    eventually(lambda: status(api, f"{path}/s")["currentRevision"] == status(api, f"{path}/s")["updateRevision"], 30)
    scale = api.get(f"{path}/s/scale")
    scale["spec"]["replicas"] = 1
    api.put(f"{path}/s/scale", scale)
    eventually(lambda: [p["metadata"]["name"] for p in pods(api, core, "app=s")] == ["s-0"], 20)
    assert api.get(f"{apps}/controllerrevisions", labelSelector="app=s")["items"]


def test_failed_stateful_pod_is_made_again(api: Api, apps: str, core: str) -> None:
    blocker = {"metadata": {"name": "blocker"}, "spec": pod_spec(nodeName="node-1")}
    blocker["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 21017}]
    api.post(f"{core}/pods", blocker)
    eventually(lambda: status(api, f"{core}/pods/blocker").get("phase") == "Running", 15)
    spec = pod_spec(nodeName="node-1")
    spec["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 21017}]
    api.post(f"{apps}/statefulsets", workload("s", 1, spec, serviceName="s"))
    first = eventually(lambda: pods(api, core, "app=s"), 10)[0]["metadata"]["uid"]
    eventually(lambda: any(p["metadata"]["uid"] != first for p in pods(api, core, "app=s")), 20, "made again")
    api.delete(f"{core}/pods/blocker")
    reaches(api, f"{apps}/statefulsets/s", readyReplicas=1)


def test_daemon_set_runs_rolls_and_repairs(api: Api, apps: str, core: str) -> None:
    path = f"{apps}/daemonsets"
    body = workload("d", 0)
    del body["spec"]["replicas"]
    api.post(path, body)
    reaches(api, f"{path}/d", numberReady=1, desiredNumberScheduled=1, numberAvailable=1)
    pod = pods(api, core, "app=d")[0]["metadata"]["name"]
    api.patch(f"{core}/pods/{pod}/status", {"status": {"phase": "Failed"}})
    eventually(lambda: pod not in {p["metadata"]["name"] for p in pods(api, core, "app=d")}, 20, "the failed pod is replaced")
    reaches(api, f"{path}/d", numberReady=1)
    api.patch(f"{path}/d", {"spec": {"template": {"spec": {"nodeSelector": {"colour": "blue"}}}}}, STRATEGIC)
    reaches(api, f"{path}/d", desiredNumberScheduled=0)
    api.patch("/api/v1/nodes/node-1", {"metadata": {"labels": {"colour": "blue"}}})
    try:
        reaches(api, f"{path}/d", numberReady=1, updatedNumberScheduled=1)
    finally:
        api.patch("/api/v1/nodes/node-1", {"metadata": {"labels": {"colour": None}}})
    eventually(lambda: not pods(api, core, "app=d"), 15)


def job(name: str, *command: str, restart: str = "Never", **spec: Any) -> Object:
    template = {"spec": pod_spec(*command, restartPolicy=restart)}
    return {"metadata": {"name": name}, "spec": {"template": template, **spec}}


JOBS: dict[str, tuple[Object, Object]] = {
    "indexed": (
        job("j", "sh", "-c", "exit 0", completions=3, parallelism=2, completionMode="Indexed"),
        {"succeeded": 3, "completedIndexes": "0-2"},
    ),
    "backoff-limit-per-index": (
        job("j", "sh", "-c", "exit $(($JOB_COMPLETION_INDEX % 2))", completions=3, parallelism=3, completionMode="Indexed",
            backoffLimitPerIndex=0),
        {"failedIndexes": "1", "completedIndexes": "0,2", "succeeded": 2, "failed": 1},
    ),
    "success-policy": (
        job("j", "sh", "-c", "[ $JOB_COMPLETION_INDEX = 0 ] || sleep 100", completions=2, parallelism=2,
            completionMode="Indexed", successPolicy={"rules": [{"succeededIndexes": "0"}]}),
        {"succeeded": 1, "completedIndexes": "0"},
    ),
    "pod-failure-policy": (
        job("j", "sh", "-c", "exit 42", backoffLimit=9, podFailurePolicy={"rules": [
            {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}}]}),
        {"failed": 1},
    ),
    "restarted-in-place": (
        job("j", "sh", "-c", "[ -f /d/x ] || { touch /d/x; exit 1; }", restart="OnFailure", completions=1),
        {"succeeded": 1},
    ),
}  # fmt: skip
ENDS = {"backoff-limit-per-index": "Failed", "pod-failure-policy": "Failed"}


@pytest.mark.parametrize("case", JOBS)
def test_jobs_end_as_they_say(api: Api, batch: str, case: str) -> None:
    body, wanted = JOBS[case]
    if case == "restarted-in-place":
        spec = body["spec"]["template"]["spec"]
        spec["volumes"] = [{"name": "d", "emptyDir": {}}]
        spec["containers"][0]["volumeMounts"] = [{"name": "d", "mountPath": "/d"}]
    api.post(f"{batch}/jobs", body)
    end = ENDS.get(case, "Complete")

    def ended() -> Object | None:
        return next((c for c in status(api, f"{batch}/jobs/j").get("conditions") or [] if c["type"] == end), None)

    condition = eventually(ended, 40)
    found = status(api, f"{batch}/jobs/j")
    assert {key: found.get(key) for key in wanted} == wanted, (condition, found)
    types = {c["type"] for c in found["conditions"]}
    assert ("FailureTarget" if end == "Failed" else "SuccessCriteriaMet") in types


def test_job_suspends_adopts_and_releases(api: Api, batch: str, core: str) -> None:
    api.post(f"{batch}/jobs", job("j", parallelism=2, completions=2, suspend=True))
    eventually(lambda: any(c["type"] == "Suspended" for c in status(api, f"{batch}/jobs/j").get("conditions") or []), 10)
    assert not pods(api, core)
    api.patch(f"{batch}/jobs/j", {"spec": {"suspend": False}})
    eventually(lambda: status(api, f"{batch}/jobs/j").get("active") == 2, 20)
    pod = pods(api, core)[0]["metadata"]
    api.patch(f"{core}/pods/{pod['name']}", {"metadata": {"ownerReferences": None}})
    eventually(lambda: api.get(f"{core}/pods/{pod['name']}")["metadata"].get("ownerReferences"), 10, "adopted again")
    labels = {key: None for key in pod["labels"]}
    api.patch(f"{core}/pods/{pod['name']}", {"metadata": {"labels": labels}})
    eventually(lambda: not api.get(f"{core}/pods/{pod['name']}")["metadata"].get("ownerReferences"), 10, "released")
    api.patch(f"{batch}/jobs/j", {"spec": {"suspend": True}})
    eventually(lambda: not status(api, f"{batch}/jobs/j").get("active"), 20)
    api.delete(f"{batch}/jobs/j", propagationPolicy="Foreground")
    eventually(lambda: gone(api, f"{batch}/jobs/j"), 20)


def test_cron_job_is_an_object_like_others(api: Api, batch: str) -> None:
    path = f"{batch}/cronjobs"
    body = {"metadata": {"name": "c"}, "spec": {"schedule": "*/1 * * * ?", "jobTemplate": {"spec": job("x")["spec"]}}}
    api.post(path, body)
    stamp = "2026-11-01T10:00:00Z"
    assert api.patch(f"{path}/c/status", {"status": {"lastScheduleTime": stamp}})["status"]["lastScheduleTime"] == stamp
    assert api.get("/apis/batch/v1/cronjobs")["kind"] == "CronJobList"
    api.delete(path)
    assert gone(api, f"{path}/c")


def test_budget_blocks_evictions(api: Api, apps: str, core: str, namespace: str) -> None:
    budgets = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
    api.post(f"{apps}/replicasets", workload("r", 2))
    api.post(budgets, {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "r"}}}})
    reaches(api, f"{budgets}/b", disruptionsAllowed=1, currentHealthy=2, desiredHealthy=1, expectedPods=2)
    api.patch(f"{budgets}/b", {"spec": {"minAvailable": 2}})
    reaches(api, f"{budgets}/b", disruptionsAllowed=0)
    name = pods(api, core, "app=r")[0]["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    with pytest.raises(Refused, match="Cannot evict pod as it would violate the pod's disruption budget") as caught:
        api.post(f"{core}/pods/{name}/eviction", eviction)
    assert caught.value.code == 429
    assert caught.value.status["details"]["causes"][0]["reason"] == "DisruptionBudget"
    api.delete(f"{budgets}/b")
    api.post(f"{core}/pods/{name}/eviction", eviction)
    eventually(lambda: gone(api, f"{core}/pods/{name}"), 10)


def test_taint_evicts_who_does_not_bear_it(api: Api, core: str) -> None:
    bearing = [{"key": "evict", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}]
    always = [{"key": "evict", "operator": "Exists", "effect": "NoExecute"}]
    for name, tolerations in (("none", []), ("short", bearing), ("always", always)):
        api.post(f"{core}/pods", {"metadata": {"name": name}, "spec": pod_spec(tolerations=tolerations)})
    eventually(lambda: all(status(api, f"{core}/pods/{n}").get("phase") == "Running" for n in ("none", "short", "always")), 20)
    api.patch("/api/v1/nodes/node-1", {"spec": {"taints": [{"key": "evict", "value": "x", "effect": "NoExecute"}]}})
    try:
        eventually(lambda: gone(api, f"{core}/pods/none"), 10)
        assert not gone(api, f"{core}/pods/short")
        eventually(lambda: gone(api, f"{core}/pods/short"), 10)
        assert not gone(api, f"{core}/pods/always")
    finally:
        api.patch("/api/v1/nodes/node-1", {"spec": {"taints": None}})


def test_preemption_makes_room(api: Api, core: str) -> None:
    classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
    api.post(classes, {"metadata": {"name": "e2e-high"}, "value": 1000})
    node = "/api/v1/nodes/node-1"
    try:
        api.patch(f"{node}/status", {"status": {"capacity": {"example.com/foo": "2"}}})
        eventually(lambda: api.get(node)["status"]["allocatable"].get("example.com/foo") == "2", 15)
        for name in ("low", "high"):
            spec = pod_spec(priorityClassName="e2e-high" if name == "high" else None)
            amount = {"example.com/foo": "2"}
            spec["containers"][0]["resources"] = {"requests": amount, "limits": amount}
            api.post(f"{core}/pods", {"metadata": {"name": name}, "spec": spec})
            eventually(lambda: status(api, f"{core}/pods/{name}").get("phase") == "Running", 20, name)  # noqa: B023
        assert gone(api, f"{core}/pods/low")
        with pytest.raises(Refused, match="may not be changed in an update"):
            api.patch(f"{classes}/e2e-high", {"value": 5})
    finally:
        api.delete(f"{classes}/e2e-high")
        api.patch(f"{node}/status", {"status": {"capacity": {"example.com/foo": None}}})
