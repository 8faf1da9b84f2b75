"""Logs: tail against a slow model, since, limits, partial lines, follow through rotation."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k1s.agent.serving.logs import LogOptions, _tail_offset, read_log
from k1s.api.errors import ApiError
from k1s.base.http import Request

LINE = "2026-01-02T03:04:0{second}.000000001Z {stream} {tag} {text}\n"


def line(text: str, *, second: int = 0, stream: str = "stdout", tag: str = "F") -> str:
    return LINE.format(text=text, second=second, stream=stream, tag=tag)


async def collect(path: Path, options: LogOptions) -> bytes:
    ended = asyncio.Event()
    ended.set()
    return b"".join([chunk async for chunk in read_log(path, options, lambda: False, ended)])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "0.log"
    path.write_text(
        line("one", second=1) + line("two", second=2, stream="stderr") + line("thr", tag="P", second=3) + line("ee", second=3)
    )
    return path


async def test_all_lines_join_partial_ones(log: Path) -> None:
    assert await collect(log, LogOptions()) == b"one\ntwo\nthree\n"


async def test_timestamps_stand_once_per_line(log: Path) -> None:
    text = await collect(log, LogOptions(timestamps=True))
    assert text.splitlines()[2] == b"2026-01-02T03:04:03.000000001Z three"
    assert text.count(b"2026-") == 3


@pytest.mark.parametrize(("tail", "expected"), [(0, b""), (1, b"three\n"), (2, b"two\nthree\n"), (9, b"one\ntwo\nthree\n")])
async def test_tail(log: Path, tail: int, expected: bytes) -> None:
    assert await collect(log, LogOptions(tail=tail)) == expected


async def test_since_stream_and_limit(log: Path) -> None:
    assert await collect(log, LogOptions(since=1767323042.0)) == b"two\nthree\n"
    assert await collect(log, LogOptions(streams=(b"stderr",))) == b"two\n"
    assert await collect(log, LogOptions(limit=5)) == b"one\nt"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text("ab", max_size=9000), st.sampled_from("FFP")), max_size=40), st.integers(0, 45))
def test_tail_agrees_with_reading_everything(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, str]], tail: int
) -> None:
    path = tmp_path_factory.mktemp("tail") / "0.log"
    data = "".join(line(text, tag=tag) for text, tag in [*entries, ("end", "F")]).encode()
    path.write_bytes(data)
    with path.open("rb") as file:
        offset = _tail_offset(file.fileno(), tail)
    kept = [piece for piece in data[offset:].splitlines() if piece.split(b" ")[2] == b"F"]
    complete = sum(tag == "F" for _, tag in entries) + 1
    assert len(kept) == min(tail, complete)
    assert offset == 0 or data[offset - 1 : offset] == b"\n"
    # What stands before the cut ends a line, so no partial piece is torn from its end.
    before = data[:offset].splitlines()
    assert not before or before[-1].split(b" ")[2] == b"F"


async def test_follow_sees_writes_rotation_and_the_end(log: Path) -> None:
    ended = asyncio.Event()
    stream = read_log(log, LogOptions(follow=True, tail=0), lambda: not ended.is_set(), ended)
    reader = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.05)
    assert not reader.done()
    with log.open("a") as file:
        file.write(line("four"))
    assert await asyncio.wait_for(reader, 2) == b"four\n"
    log.rename(log.with_name("0.log.20260102"))
    log.write_text(line("five"))
    assert await asyncio.wait_for(anext(stream), 2) == b"five\n"
    with log.open("a") as file:
        file.write(line("last"))
    ended.set()
    assert [chunk async for chunk in stream] == [b"last\n"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"tailLines": "-1"}, 422),
        ({"sinceSeconds": "0"}, 422),
        ({"limitBytes": "0"}, 422),
        ({"tailLines": "x"}, 400),
        ({"sinceTime": "yesterday"}, 400),
        ({"sinceTime": "2026-01-01T00:00:00Z", "sinceSeconds": "3"}, 422),
    ],
)
def test_bad_options_are_refused(query: dict[str, str], code: int) -> None:
    with pytest.raises(ApiError) as caught:
        LogOptions.from_request(Request("GET", "/", list(query.items())), 0.0)
    assert caught.value.code == code
