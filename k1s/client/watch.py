"""The wire format of a watch: one JSON event a line.

Owns: cutting a stream of chunks into (type, object) pairs. Called by: client/rest.
Never does: reconnect (client/informer does), keep objects.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import orjson

from k1s.api.errors import ApiError, internal

Object = dict[str, Any]

# An object is at most 3 MiB (apiserver limit); a line longer than this is not a watch event.
MAX_EVENT_BYTES = 16 * 1024 * 1024


async def events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[tuple[str, Object], None]:
    """(type, object) pairs in order. An ERROR event is raised as its ApiError; a torn last line is dropped."""
    pending: list[bytes] = []
    size = 0
    async for chunk in chunks:
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            if pending:
                pending.append(line)
                line = b"".join(pending)
                pending.clear()
                size = 0
            if line.strip():
                yield decode(line)
        if rest:
            pending.append(rest)
            size += len(rest)
            if size > MAX_EVENT_BYTES:
                raise internal(f"watch event longer than {MAX_EVENT_BYTES} bytes")


def decode(line: bytes) -> tuple[str, Object]:
    try:
        event = orjson.loads(line)
        kind, obj = event["type"], event["object"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise internal(f"malformed watch event: {error}") from error
    if kind == "ERROR":
        raise ApiError.from_status(obj)
    return kind, obj
