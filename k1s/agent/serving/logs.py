"""Container logs as the user asks for them: tail, since, previous, timestamps, follow.

Owns: reading the CRI log format and following it, woken by inotify. Called by: serving/app.
Never does: write or rotate logs (agent/containers/logs.py). Source: the CRI logging design: `TIME STREAM TAG CONTENT` lines,
tag P for a partial line, F for its end; rotated files keep the name with a suffix.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from k1s.api import errors
from k1s.base.clock import parse_rfc3339
from k1s.base.http import Request
from k1s.base.inotify import CREATE, MODIFY, MOVED_TO, Inotify

_BLOCK = 64 * 1024
BOTH_STREAMS = (b"stdout", b"stderr")
_TRUE = ("1", "true", "t", "T", "TRUE", "True")


@dataclass(frozen=True, slots=True)
class LogOptions:
    """v1.PodLogOptions, times in seconds since the epoch; `tail` -1 is everything, `limit` 0 is no limit (bytes)."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: int = -1
    since: float = 0.0
    limit: int = 0
    streams: tuple[bytes, ...] = BOTH_STREAMS

    @classmethod
    def from_request(cls, request: Request, now: float) -> LogOptions:
        """Raises ApiError 400 or 422 as the API server words it."""
        faults: list[errors.FieldError] = []

        def number(name: str, minimum: int) -> int | None:
            text = request.param(name)
            if not text:
                return None
            try:
                value = int(text)
            except ValueError as error:
                raise errors.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax ({name})') from error
            if value < minimum:
                detail = f"must be greater than or equal to {minimum}" if minimum == 0 else "must be greater than 0"
                faults.append(errors.invalid_value(name, value, detail))
            return value

        tail, since_seconds, limit = number("tailLines", 0), number("sinceSeconds", 1), number("limitBytes", 1)
        since = 0.0
        if request.param("sinceTime"):
            if since_seconds is not None:
                faults.append(
                    errors.forbidden_field("sinceTime", "at most one of `sinceTime` or `sinceSeconds` may be specified")
                )
            try:
                since = parse_rfc3339(request.param("sinceTime"))
            except ValueError as error:
                raise errors.bad_request(f"sinceTime: {error}") from error
        if faults:
            raise errors.invalid("PodLogOptions", "", "", faults)
        if since_seconds is not None:
            since = now - since_seconds
        stream = request.param("stream", "All")
        return cls(
            follow=request.param("follow") in _TRUE,
            previous=request.param("previous") in _TRUE,
            timestamps=request.param("timestamps") in _TRUE,
            tail=-1 if tail is None else tail,
            since=since,
            limit=limit or 0,
            streams=BOTH_STREAMS if stream == "All" else (stream.lower().encode(),),
        )


async def read_log(path: Path, options: LogOptions, running: Callable[[], bool], ended: asyncio.Event) -> AsyncIterator[bytes]:
    """Chunks of the log in `path`. With follow: until `running()` is false, of which `ended` tells."""
    left = options.limit
    async for chunk in _chunks(path, options, running, ended):
        if options.limit:
            chunk = chunk[:left]
            left -= len(chunk)
        if chunk:
            yield chunk
        if options.limit and left <= 0:
            return


async def _chunks(path: Path, options: LogOptions, running: Callable[[], bool], ended: asyncio.Event) -> AsyncIterator[bytes]:
    formatter = _Formatter(options)
    with Inotify() as watch:
        # Watched before the first read, so that nothing written in between is missed.
        if options.follow:
            watch.add(path.parent, CREATE | MOVED_TO)
            watch.add(path, MODIFY)
        descriptor = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if options.tail >= 0:
                offset = await asyncio.to_thread(_tail_offset, descriptor, options.tail)
                os.lseek(descriptor, offset, os.SEEK_SET)
            while True:
                while block := await asyncio.to_thread(os.read, descriptor, _BLOCK):
                    text = formatter.feed(block)
                    if text:
                        yield text
                if not options.follow:
                    return
                rotated = _successor(path, descriptor)
                if rotated is not None:
                    os.close(descriptor)
                    descriptor = rotated
                    watch.add(path, MODIFY)
                    continue
                # Looked at before the wait and the last read: a container that ended has written all it will write.
                if not running():
                    if remainder := os.read(descriptor, _BLOCK):
                        yield formatter.feed(remainder)
                        continue
                    return
                await _woken(watch, ended)
        finally:
            os.close(descriptor)


def _successor(path: Path, descriptor: int) -> int | None:
    """A descriptor of the file that took the name after a rotation, or None."""
    try:
        fresh = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if os.fstat(fresh).st_ino == os.fstat(descriptor).st_ino:
        os.close(fresh)
        return None
    return fresh


async def _woken(watch: Inotify, ended: asyncio.Event) -> None:
    written = asyncio.create_task(watch.read(), name="log-inotify")
    finished = asyncio.create_task(ended.wait(), name="log-ended")
    tasks: list[asyncio.Task[object]] = [written, finished]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _tail_offset(descriptor: int, lines: int) -> int:
    """Where the last `lines` complete user lines begin; partial pieces (tag P) belong to the line that ends them."""
    end = os.fstat(descriptor).st_size
    if lines == 0:
        return end
    position, found, carry = end, 0, b""
    while position > 0:
        start = max(0, position - _BLOCK)
        block = os.pread(descriptor, position - start, start) + carry
        pieces = block.split(b"\n")
        # The first piece may go on before `start`; it is looked at again with the next block.
        carry = pieces[0]
        offset = start + len(block)
        for index in range(len(pieces) - 1, 0, -1):
            piece = pieces[index]
            offset -= len(piece)
            if piece and _is_full(piece):
                found += 1
                if found > lines:
                    return offset + len(piece) + 1
            offset -= 1
        position = start
    if carry and _is_full(carry):
        found += 1
        if found > lines:
            return len(carry) + 1
    return 0


def _is_full(line: bytes) -> bool:
    parts = line.split(b" ", 3)
    return len(parts) >= 3 and parts[2].split(b":")[0] == b"F"


class _Formatter:
    """Turns log file bytes into what the user sees; keeps an incomplete line for the next block."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._carry = b""
        self._line_open = False

    def feed(self, block: bytes) -> bytes:
        lines = (self._carry + block).split(b"\n")
        self._carry = lines.pop()
        return b"".join(map(self._format, lines))

    def _format(self, line: bytes) -> bytes:
        parts = line.split(b" ", 3)
        if len(parts) < 3:
            return b""
        stamp, stream, tag = parts[:3]
        content = parts[3] if len(parts) > 3 else b""
        if stream not in self._options.streams:
            return b""
        if self._options.since and _seconds(stamp) < self._options.since:
            return b""
        full = tag.split(b":")[0] == b"F"
        prefix = stamp + b" " if self._options.timestamps and not self._line_open else b""
        self._line_open = not full
        return prefix + content + (b"\n" if full else b"")


def _seconds(stamp: bytes) -> float:
    text = stamp.decode("ascii", "replace")
    # Nanoseconds are more digits than datetime takes.
    head, dot, tail = text.partition(".")
    if dot:
        digits = len(tail) - len(tail.lstrip("0123456789"))
        text = f"{head}.{tail[:digits][:6]}{tail[digits:]}"
    try:
        return parse_rfc3339(text)
    except ValueError:
        return 0.0
