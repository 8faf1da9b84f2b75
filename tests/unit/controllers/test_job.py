"""Jobs on the fake API."""

from __future__ import annotations

from typing import Any

import pytest
from controllers_fake_api import Bench
from hypothesis import given
from hypothesis import strategies as st

from k1s.api.catalog import builtin
from k1s.server.controllers.garbage.collector import GarbageCollector
from k1s.server.controllers.job import indexes
from k1s.server.controllers.job.controller import JobController

LABELS = {"job-name": "j"}


def add(bench: Bench, **spec: Any) -> None:
    template = {"metadata": {"labels": LABELS}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    bench.api.add("Job", metadata={"name": "j"}, spec={
        "parallelism": 1, "completions": 1, "backoffLimit": 6, "selector": {"matchLabels": LABELS}, "template": template, **spec,
    })  # fmt: skip


def job(bench: Bench) -> dict[str, Any]:
    return bench.api.object("Job", "j")


def conditions(bench: Bench) -> dict[str, str]:
    return {c["type"]: c.get("reason", "") for c in job(bench)["status"].get("conditions", []) if c["status"] == "True"}


def running(bench: Bench) -> list[dict[str, Any]]:
    ended = ("Succeeded", "Failed")
    pods = bench.api.objects("Pod")
    return [p for p in pods if (p.get("status") or {}).get("phase") not in ended and not p["metadata"].get("deletionTimestamp")]


def index(pod: dict[str, Any]) -> int:
    return int(pod["metadata"]["annotations"][indexes.INDEX])


async def end(bench: Bench, phase: str, pods: list[dict[str, Any]] | None = None, exit_code: int = 1, wait: float = 0.5) -> None:
    for pod in running(bench) if pods is None else pods:
        ended = [{"name": "c", "state": {"terminated": {"exitCode": 0 if phase == "Succeeded" else exit_code}}}]
        bench.api.set("Pod", pod["metadata"]["name"], status={"phase": phase, "containerStatuses": ended})
    await bench.settle(wait)


async def test_one_pod_to_its_end() -> None:
    async with Bench(JobController) as bench:
        add(bench)
        await bench.settle()
        (pod,) = bench.api.objects("Pod")
        assert pod["metadata"]["finalizers"] == ["batch.kubernetes.io/job-tracking"]
        bench.kubelet()
        await bench.settle()
        status = job(bench)["status"]
        assert (status["active"], status["ready"], bool(status["startTime"])) == (1, 1, True)
        await end(bench, "Succeeded")
        status = job(bench)["status"]
        assert conditions(bench) == {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"}
        assert status["succeeded"] == 1 and status["completionTime"] and not status.get("active")
        assert status.get("uncountedTerminatedPods") == {}
        assert bench.api.objects("Pod")[0]["metadata"]["finalizers"] == []
        assert "Completed" in bench.reasons()


async def test_parallelism_and_completions() -> None:
    async with Bench(JobController) as bench:
        add(bench, parallelism=3, completions=5)
        seen = []
        for _ in range(3):
            await bench.settle()
            seen.append(len(running(bench)))
            await end(bench, "Succeeded")
        assert seen == [3, 2, 0] and job(bench)["status"]["succeeded"] == 5
        assert "Complete" in conditions(bench)


async def test_failures_are_retried_with_growing_delays_and_counted() -> None:
    async with Bench(JobController) as bench:
        add(bench, backoffLimit=2)
        await bench.settle()
        await end(bench, "Failed")
        assert running(bench) == []
        await bench.settle(10)
        await end(bench, "Failed")
        await bench.settle(15)
        assert running(bench) == []
        await bench.settle(6)
        await end(bench, "Failed")
        assert conditions(bench) == {"FailureTarget": "BackoffLimitExceeded", "Failed": "BackoffLimitExceeded"}
        assert job(bench)["status"]["failed"] == 3 and "BackoffLimitExceeded" in bench.reasons()


async def test_the_deadline_passes_without_any_event() -> None:
    async with Bench(JobController) as bench:
        add(bench, activeDeadlineSeconds=60, parallelism=2, completions=2)
        await bench.settle()
        bench.kubelet()
        await bench.settle(70)
        assert conditions(bench) == {"FailureTarget": "DeadlineExceeded", "Failed": "DeadlineExceeded"}
        assert bench.api.objects("Pod") == [] and job(bench)["status"]["failed"] == 2


async def test_the_final_condition_waits_until_all_pods_have_gone() -> None:
    async with Bench(JobController) as bench:
        bench.api.graceful_pods = True
        add(bench, parallelism=2, completions=2, activeDeadlineSeconds=60, podReplacementPolicy="Failed")
        await bench.settle()
        bench.kubelet()
        await bench.settle(70)
        assert conditions(bench) == {"FailureTarget": "DeadlineExceeded"}
        assert job(bench)["status"]["terminating"] == 2
        await end(bench, "Failed", bench.api.objects("Pod"))
        assert "Failed" in conditions(bench) and not job(bench)["status"]["terminating"]


async def test_suspend_and_resume_do_not_count_as_failures() -> None:
    async with Bench(JobController) as bench:
        add(bench, suspend=True, parallelism=2, completions=2)
        await bench.settle()
        assert bench.api.objects("Pod") == [] and conditions(bench) == {"Suspended": "JobSuspended"}
        assert "startTime" not in job(bench)["status"]
        bench.api.set("Job", "j", spec={"suspend": False})
        await bench.settle()
        assert len(running(bench)) == 2 and job(bench)["status"]["startTime"]
        bench.api.set("Job", "j", spec={"suspend": True})
        await bench.settle()
        assert bench.api.objects("Pod") == [] and not job(bench)["status"].get("failed")
        assert {"Suspended", "Resumed"} <= set(bench.reasons())


async def test_fewer_in_parallel_deletes_without_counting() -> None:
    async with Bench(JobController) as bench:
        add(bench, parallelism=4, completions=8)
        await bench.settle()
        bench.api.set("Job", "j", spec={"parallelism": 1})
        await bench.settle()
        assert len(running(bench)) == 1 and not job(bench)["status"].get("failed")


async def test_indexed_pods_have_an_index_each() -> None:
    async with Bench(JobController) as bench:
        add(bench, parallelism=2, completions=4, completionMode="Indexed")
        await bench.settle()
        first = running(bench)
        assert sorted(index(p) for p in first) == [0, 1]
        assert first[0]["spec"]["hostname"] == "j-0" and first[0]["metadata"]["generateName"] == "j-0-"
        assert first[0]["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"
        await end(bench, "Succeeded", [p for p in first if index(p) == 1])
        assert job(bench)["status"]["completedIndexes"] == "1"
        assert sorted(index(p) for p in running(bench)) == [0, 2]
        await end(bench, "Failed", [p for p in running(bench) if index(p) == 0])
        await bench.settle(11)
        assert sorted(index(p) for p in running(bench)) == [0, 2]
        await end(bench, "Succeeded")
        await end(bench, "Succeeded")
        assert job(bench)["status"]["completedIndexes"] == "0-3" and job(bench)["status"]["succeeded"] == 4
        assert "Complete" in conditions(bench)


async def test_backoff_limit_per_index() -> None:
    async with Bench(JobController) as bench:
        add(bench, parallelism=2, completions=2, completionMode="Indexed", backoffLimitPerIndex=1, backoffLimit=2**31 - 1)
        await bench.settle()
        await end(bench, "Failed", [p for p in running(bench) if index(p) == 0])
        await end(bench, "Succeeded", [p for p in running(bench) if index(p) == 1])
        await bench.settle(11)
        (again,) = running(bench)
        assert again["metadata"]["annotations"][indexes.FAILURE_COUNT] == "1"
        await end(bench, "Failed")
        assert job(bench)["status"]["failedIndexes"] == "0"
        assert conditions(bench)["Failed"] == "FailedIndexes"


async def test_success_policy_ends_the_rest() -> None:
    async with Bench(JobController) as bench:
        rules = {"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]}
        add(bench, parallelism=3, completions=3, completionMode="Indexed", successPolicy=rules)
        await bench.settle()
        await end(bench, "Succeeded", [p for p in running(bench) if index(p) == 2])
        assert conditions(bench) == {}
        await end(bench, "Succeeded", [p for p in running(bench) if index(p) == 1])
        assert conditions(bench)["Complete"] == "SuccessPolicy" and running(bench) == []


@pytest.mark.parametrize(
    ("exit_code", "outcome"), [(42, "PodFailurePolicy"), (7, ""), (1, "BackoffLimitExceeded")], ids=["fail", "ignore", "count"]
)
async def test_pod_failure_policy(exit_code: int, outcome: str) -> None:
    rules = [
        {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}},
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}},
    ]
    async with Bench(JobController) as bench:
        add(bench, backoffLimit=0, podFailurePolicy={"rules": rules})
        await bench.settle()
        await end(bench, "Failed", exit_code=exit_code)
        assert conditions(bench).get("Failed", "") == outcome
        assert bool(job(bench)["status"].get("failed")) is bool(outcome)
        if not outcome:
            assert len(running(bench)) == 1


async def test_a_stale_cache_makes_no_pod_twice() -> None:
    async with Bench(JobController) as bench:
        bench.api.held = []
        add(bench, parallelism=3, completions=3)
        bench.api.held.pop(0)()
        await bench.settle()
        bench.controllers[0].controller.add("default/j")
        await bench.settle()
        assert len(bench.api.objects("Pod")) == 3
        bench.api.release()
        await bench.settle()
        assert len(bench.api.objects("Pod")) == 3


@pytest.mark.parametrize("propagation", ["Background", "Foreground", "Orphan"])
async def test_a_deleted_job_leaves_no_pod_held(propagation: str) -> None:
    async with Bench(JobController, GarbageCollector) as bench:
        add(bench, parallelism=2, completions=2)
        await bench.settle()
        bench.kubelet()
        await bench.api.delete(builtin("Job"), "j", "default", propagation=propagation)
        await bench.settle(3)
        assert bench.api.objects("Job") == []
        pods = bench.api.objects("Pod")
        assert len(pods) == (2 if propagation == "Orphan" else 0)
        assert all(not p["metadata"]["finalizers"] for p in pods)


@given(st.sets(st.integers(0, 60)))
def test_indexes_round_trip(found: set[int]) -> None:
    assert indexes.parse(indexes.format(found), 61) == found


@pytest.mark.parametrize(("found", "text"), [({0}, "0"), ({1, 2}, "1,2"), ({1, 3, 4, 5, 7}, "1,3-5,7"), (set(), "")])
def test_indexes_are_written_as_upstream_does(found: set[int], text: str) -> None:
    assert indexes.format(found) == text
