"""Cron expressions, CronJobs and the time to live of finished Jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from controllers_fake_api import Bench, FakeApi

from k1s.base.clock import VirtualClock, rfc3339
from k1s.server.controllers.cron import CronError, Schedule
from k1s.server.controllers.cronjob import CronJobController
from k1s.server.controllers.ttl_after_finished import TtlAfterFinishedController

START = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC).timestamp()


def at(text: str, zone: Any = UTC) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("*/5 * * * *", "2026-03-01T12:00:30", "2026-03-01T12:05:00"),
        ("0 3 * * *", "2026-03-01T12:00:00", "2026-03-02T03:00:00"),
        ("@hourly", "2026-03-01T12:00:00", "2026-03-01T13:00:00"),
        ("30 6 * jan-mar mon", "2026-03-01T12:00:00", "2026-03-02T06:30:00"),
        ("0 0 1 1 ?", "2026-03-01T12:00:00", "2027-01-01T00:00:00"),
        ("0 0 13 * fri", "2026-03-01T12:00:00", "2026-03-06T00:00:00"),
        ("0 0 29 2 *", "2026-03-01T12:00:00", "2028-02-29T00:00:00"),
        ("1,3-5/2 0-2 * * 7", "2026-03-01T01:03:00", "2026-03-01T01:05:00"),
        ("59 23 31 12 *", "2026-12-31T23:59:00", "2027-12-31T23:59:00"),
    ],
)
def test_next(schedule: str, after: str, expected: str) -> None:
    assert Schedule.parse(schedule).next(at(after)) == at(expected)


def test_a_day_that_never_comes() -> None:
    assert Schedule.parse("0 0 30 2 *").next(START) is None


def test_every() -> None:
    assert Schedule.parse("@every 1h30m").next(1000.0) == 6400.0


@pytest.mark.parametrize("text", ["", "* * * *", "60 * * * *", "*/0 * * * *", "a * * * *", "5-1 * * * *", "@every x", "@every 5"])
def test_what_cannot_be_understood(text: str) -> None:
    with pytest.raises(CronError):
        Schedule.parse(text)


def test_daylight_saving() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    early = Schedule.parse("30 2 * * *")
    # 02:30 does not exist on 2026-03-29: that day is skipped.
    assert early.next(at("2026-03-28T12:00:00", berlin), berlin) == at("2026-03-30T02:30:00", berlin)
    # 02:30 comes twice on 2026-10-25: the first counts.
    first = early.next(at("2026-10-24T12:00:00", berlin), berlin)
    assert first == at("2026-10-25T02:30:00", berlin)
    assert first is not None and early.next(first, berlin) == at("2026-10-26T02:30:00", berlin)


def add(bench: Bench, **spec: Any) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {"spec": {"containers": []}}}}
    bench.api.add("CronJob", metadata={"name": "c"}, spec={
        "schedule": "*/1 * * * *", "concurrencyPolicy": "Allow", "jobTemplate": template,
        "successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 1, **spec,
    })  # fmt: skip


def bench_at_start() -> Bench:
    return Bench(CronJobController, api=FakeApi(VirtualClock(START)))


def jobs(bench: Bench) -> list[str]:
    return [j["metadata"]["name"] for j in bench.api.objects("Job")]


def finish(bench: Bench, name: str, kind: str = "Complete") -> None:
    stamp = rfc3339(bench.clock.now())
    condition = {"type": kind, "status": "True", "lastTransitionTime": stamp}
    bench.api.set("Job", name, status={"conditions": [condition], "startTime": stamp, "completionTime": stamp})


async def test_starts_a_job_each_minute_and_keeps_a_history() -> None:
    async with bench_at_start() as bench:
        add(bench)
        await bench.settle()
        assert jobs(bench) == []
        await bench.settle(30)
        minute = int(at("2026-03-01T12:01:00")) // 60
        assert jobs(bench) == [f"c-{minute}"]
        job = bench.api.objects("Job")[0]
        assert job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"] == "2026-03-01T12:01:00Z"
        status = bench.api.object("CronJob", "c")["status"]
        assert status["lastScheduleTime"] == "2026-03-01T12:01:00Z" and len(status["active"]) == 1
        for _ in range(4):
            for name in jobs(bench):
                finish(bench, name)
            await bench.settle(60)
        assert len(jobs(bench)) == 3  # two that ended, one that runs
        status = bench.api.object("CronJob", "c")["status"]
        assert len(status["active"]) == 1 and status["lastSuccessfulTime"]
        assert {"SuccessfulCreate", "SawCompletedJob", "SuccessfulDelete"} <= set(bench.reasons())


@pytest.mark.parametrize(("policy", "count"), [("Allow", 3), ("Forbid", 1), ("Replace", 1)])
async def test_concurrency(policy: str, count: int) -> None:
    async with bench_at_start() as bench:
        add(bench, concurrencyPolicy=policy)
        await bench.settle(1)
        for _ in range(3):
            await bench.settle(60)
        assert len(jobs(bench)) == count
        last = jobs(bench)[-1]
        assert last.endswith(str(int(at("2026-03-01T12:03:00" if policy != "Forbid" else "2026-03-01T12:01:00")) // 60))


async def test_suspended_and_too_late_start_nothing_and_long_absences_start_once() -> None:
    async with bench_at_start() as bench:
        add(bench, suspend=True)
        await bench.settle(3600)
        assert jobs(bench) == []
        bench.api.set("CronJob", "c", spec={"suspend": False})
        await bench.settle()
        assert len(jobs(bench)) == 1
    async with bench_at_start() as bench:
        add(bench, schedule="0 * * * *", startingDeadlineSeconds=10, suspend=True)
        await bench.settle(3600)
        bench.api.set("CronJob", "c", spec={"suspend": False})
        await bench.settle()
        assert jobs(bench) == []


async def test_a_time_zone_that_is_not_known_is_told() -> None:
    async with bench_at_start() as bench:
        add(bench, timeZone="Nowhere/City")
        await bench.settle(120)
        assert jobs(bench) == [] and "UnknownTimeZone" in bench.reasons()


async def test_finished_jobs_go_when_their_time_is_over() -> None:
    async with Bench(TtlAfterFinishedController) as bench:
        bench.api.add("Job", metadata={"name": "j"}, spec={"ttlSecondsAfterFinished": 100})
        bench.api.add("Job", metadata={"name": "keep"}, spec={})
        await bench.settle(1000)
        for name in ("j", "keep"):
            finish(bench, name)
        await bench.settle(90)
        assert jobs(bench) == ["j", "keep"]
        await bench.settle(20)
        remaining = [j for j in bench.api.objects("Job") if not j["metadata"].get("deletionTimestamp")]
        assert [j["metadata"]["name"] for j in remaining] == ["keep"]
