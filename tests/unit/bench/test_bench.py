"""The benchmark measures what it says: its arithmetic, and its own HTTP client against our real server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from bench import processes
from bench.figures import ROWS, Result, Row, median, percentile, table
from bench.load import Job, run
from bench.reader import BadResponse, ResponseReader
from bench.target import Target
from k1s.base import http_server
from k1s.base.http import Answer, Request, Response, Stream

MOST = Row("m", "memory", 130, "MiB", True)
LEAST = Row("c", "create", 2000, "/s", False)


def test_percentiles_are_values_that_were_measured() -> None:
    values = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert [percentile(values, share) for share in (0.0, 0.2, 0.5, 0.99, 1.0)] == [1.0, 1.0, 3.0, 5.0, 5.0]
    assert median([4.0, 1.0]) == 1.0
    with pytest.raises(ValueError, match="no values"):
        median([])


@pytest.mark.parametrize(
    ("row", "value", "verdict"),
    [
        (MOST, 130.0, "ok"),
        (MOST, 130.1, "missed"),
        (LEAST, 2000.0, "ok"),
        (LEAST, 1999.9, "missed"),
        (LEAST, None, "skipped"),
    ],
)
def test_a_budget_is_a_bound_in_its_direction(row: Row, value: float | None, verdict: str) -> None:
    assert Result(row, value).verdict == verdict


def test_the_table_says_what_was_skipped_and_why() -> None:
    lines = table([Result(LEAST, 2839.2, "p50 4 ms"), Result(MOST, None, "needs --pids")]).splitlines()
    assert "2,839/s" in lines[2] and ">= 2,000/s" in lines[2] and "| ok " in lines[2]
    assert "skipped" in lines[3] and "needs --pids" in lines[3] and "<= 130 MiB" in lines[3]


def test_row_names_are_unique() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


WIRE = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n"
    b"HTTP/1.1 204 No Content\r\n\r\n"
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n"
)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 50, len(WIRE)])
def test_responses_are_told_apart_wherever_the_stream_is_cut(step: int) -> None:
    reader = ResponseReader()
    finished = sum(reader.feed(WIRE[at : at + step]) for at in range(0, len(WIRE), step))
    assert (finished, reader.body_bytes, reader.status) == (4, 5 + 13, 201)


def test_a_kept_body_is_that_of_the_last_response() -> None:
    reader = ResponseReader(keep=True)
    assert reader.feed(WIRE[: WIRE.index(b"HTTP/1.1 204")]) == 2
    assert bytes(reader.body) == b"abc0123456789"


@pytest.mark.parametrize("data", [b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 70_000])
def test_what_is_no_response_is_refused(data: bytes) -> None:
    with pytest.raises(BadResponse):
        ResponseReader().feed(data)


async def _serve(request: Request) -> Answer:
    if request.path == "/stream":

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"x" * 1000

        return Stream(chunks())
    if request.method == "POST":
        body = await request.body.read(10_000)
        known = _serve.seen  # type: ignore[attr-defined]
        if body in known:
            return Response(409, b"{}")
        known.add(body)
        return Response(201, body)
    return Response(200, b"y" * 300_000)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    _serve.seen = set()  # type: ignore[attr-defined]
    listener = await http_server.listen(_serve, host="127.0.0.1", port=0, tls=None)
    yield f"http://127.0.0.1:{listener.port}"
    await listener.close(0.1)


async def test_the_load_client_counts_what_the_server_sent(url: str) -> None:
    outcome = await asyncio.wait_for(run(Job(Target(url), 4, "GET", "/large", count=40)), 20)
    assert (outcome.requests, outcome.errors, outcome.body_bytes) == (40, 0, 40 * 300_000)
    streamed = await asyncio.wait_for(run(Job(Target(url), 2, "GET", "/stream", count=6)), 20)
    assert (streamed.requests, streamed.errors, streamed.body_bytes) == (6, 0, 6 * 3000)
    assert 0 < streamed.p50_ms <= streamed.p99_ms


async def test_each_created_object_has_a_name_of_its_own(url: str) -> None:
    outcome = await asyncio.wait_for(run(Job(Target(url), 4, "POST", "/", body='{"n":"{n}"}', count=50)), 20)
    assert (outcome.requests, outcome.errors) == (50, 0)
    assert _serve.seen == {b'{"n":"%08d"}' % n for n in range(1, 51)}  # type: ignore[attr-defined]


async def test_answers_that_are_errors_do_not_count_towards_the_rate(url: str) -> None:
    outcome = await asyncio.wait_for(run(Job(Target(url), 2, "POST", "/", body="same", count=10)), 20)
    assert (outcome.requests, outcome.errors, outcome.first_error) == (10, 9, "status 409")
    assert outcome.rate == pytest.approx(1 / outcome.seconds)


def test_the_cost_of_a_process_is_read_from_proc() -> None:
    pid = os.getpid()
    before = processes.use([pid])
    sum(range(3_000_000))
    assert processes.use([pid]).cpu_seconds >= before.cpu_seconds
    rss, pss = processes.memory_mib([pid])
    assert 0 < pss <= rss
    assert pid in processes.family(pid)
