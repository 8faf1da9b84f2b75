"""The audit log: what is written, and that it stays bounded."""

from __future__ import annotations

import stat
from pathlib import Path

import orjson

from k1s.api.catalog import builtin_catalog
from k1s.base.clock import VirtualClock
from k1s.base.http import Answer, Headers, MemoryBody, Request, Response
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.apiserver.audit import AuditLog

JANE = UserInfo("jane", ("dev",))


def audited(path: Path, status: int = 201, **options: int) -> tuple[AuditLog, object]:
    async def handler(request: Request) -> Answer:
        request.context["user"] = JANE
        return Response(status, b"secret answer")

    audit = AuditLog(path, builtin_catalog(), VirtualClock(), **options)  # type: ignore[arg-type]
    return audit, audit.wrap(handler)


def request(method: str = "POST", path: str = "/api/v1/namespaces/ns/secrets") -> Request:
    headers = Headers([("User-Agent", "kubectl/1"), ("Authorization", "Bearer hunter2")])
    return Request(method, path, headers=headers, body=MemoryBody(b"secret body"), raw_path=path, remote="192.0.2.1")


def lines(path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


async def test_a_write_is_noted_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    _, handle = audited(path)
    await handle(request())  # type: ignore[operator]
    (event,) = lines(path)
    assert event["user"] == {"username": "jane", "groups": ["dev"]}
    assert event["objectRef"] == {"resource": "secrets", "namespace": "ns", "apiVersion": "v1"}
    assert (event["verb"], event["responseStatus"]) == ("create", {"metadata": {}, "code": 201})
    assert b"secret body" not in path.read_bytes()
    assert b"hunter2" not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_reads_are_noted_only_if_asked_for_or_refused(tmp_path: Path) -> None:
    for name, status, reads, count in (("a", 200, False, 0), ("b", 403, False, 1), ("c", 200, True, 1)):
        _, handle = audited(tmp_path / name, status, reads=reads)
        await handle(request("GET"))  # type: ignore[operator]
        assert len(lines(tmp_path / name)) == count


async def test_the_log_is_bounded(tmp_path: Path) -> None:
    _, handle = audited(tmp_path / "log", max_bytes=2000, keep=2)
    for _ in range(30):
        await handle(request())  # type: ignore[operator]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(p.stat().st_size <= 2000 for p in tmp_path.iterdir())


async def test_a_full_disk_costs_lines_and_not_answers(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_bytes(b"")
    audit, handle = audited(tmp_path / "blocked" / "log")
    answer = await handle(request())  # type: ignore[operator]
    assert answer.status == 201
    assert audit.lost == 1
