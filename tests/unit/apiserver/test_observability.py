"""What the server says of itself: health checks, metrics under upstream's names, z-pages, the names of requests."""

from __future__ import annotations

import re
from typing import Any

import pytest

from k1s.base import process_metrics
from k1s.base.http import Request
from k1s.base.metrics import Registry
from k1s.server.apiserver import debug
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.apiserver.health import Steps
from k1s.server.apiserver.request_metrics import _compressed
from k1s.server.config import ServerConfig
from tests.unit.apiserver.conftest import CMS, DEPLOYMENTS, PODS, Api, config_map, deployment, pod, running


async def text(api: Api, path: str, **headers: str) -> str:
    answer = await api("GET", path, **headers)
    assert answer.status == 200
    return str(answer.raw.decode())


async def test_the_lines_of_a_health_check(api: Api) -> None:
    steps = Steps(api.server.add_check, "one", "two")
    steps.done("one")
    for root in ("/healthz", "/livez", "/readyz"):
        answer = await api("GET", root)
        assert answer.status == 500 and answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "[-]poststarthook/two failed: reason withheld\n" in answer.raw.decode()
        assert answer.raw.decode().endswith(f"{root[1:]} check failed\n")
        assert (await api("GET", f"{root}/poststarthook/two")).raw == b"internal server error: not finished\n"
        assert (await api("GET", f"{root}/poststarthook/one")).raw == b"ok"
    excluded = await text(api, "/livez?verbose=true&exclude=poststarthook/two&exclude=nothing")
    assert excluded == (
        "[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]poststarthook/one ok\n[+]poststarthook/two excluded: ok\n"
        'warn: some health checks cannot be excluded: no matches for "nothing"\nlivez check passed\n'
    )
    steps.done("two")
    assert await text(api, "/readyz") == "ok"
    api.server.health.stopping = True
    assert (await api("GET", "/readyz")).status == 500 and await text(api, "/livez") == "ok"


async def test_requests_are_counted_by_upstreams_labels(api: Api) -> None:
    await api.ok("POST", CMS, config_map("a"))
    await api("POST", f"{CMS}?dryRun=All", config_map("b"))
    await api.ok("GET", f"{CMS}/a")
    await api.ok("GET", CMS)
    await api.ok("PATCH", f"{CMS}/c?fieldManager=x", config_map("c"), type="application/apply-patch+yaml")
    await api.ok("PATCH", f"{CMS}/a", {"data": {"a": "b"}}, type="application/merge-patch+json")
    await api.ok("DELETE", f"{CMS}/c")
    await api("GET", f"{PODS}/none/log")
    await api("POST", f"{PODS}/none/exec")
    await api("GET", "/apis/nothing.example/v1/x")
    out = await text(api, "/metrics")
    common = 'group="",version="v1",resource="configmaps",subresource="",scope='
    for verb, dry, scope, code in (
        ("POST", "", "namespace", 201), ("POST", "All", "namespace", 201), ("GET", "", "resource", 200),
        ("LIST", "", "namespace", 200), ("APPLY", "", "resource", 201), ("PATCH", "", "resource", 200),
        ("DELETE", "", "resource", 200),
    ):  # fmt: skip
        line = f'apiserver_request_total{{verb="{verb}",dry_run="{dry}",{common}"{scope}",component="apiserver",code="{code}"}} 1'
        assert line in out, line
    assert 'apiserver_request_total{verb="CONNECT",dry_run="",group="",version="v1",resource="pods",subresource="exec"' in out
    assert "nothing.example" not in out
    assert 'apiserver_response_sizes_count{verb="LIST",group="",version="v1",resource="configmaps"' in out
    for name in ("duration", "sli_duration"):
        bucket = f'apiserver_request_{name}_seconds_bucket{{verb="LIST",dry_run="",{common}"namespace",'
        assert f'{bucket}component="apiserver",le="1.25"}} 1' in out
    assert 'apiserver_storage_objects{resource="configmaps"} 1' in out
    assert 'apiserver_resource_objects{group="apps",resource="deployments"} 0' in out
    assert 'apiserver_watch_cache_events_received_total{group="",resource="configmaps"} 4' in out
    assert re.search(r'authentication_attempts\{result="success"\} \d+\n', out)
    assert re.search(r'authorization_attempts_total\{result="allowed"\} \d+\n', out)


async def test_events_of_watches_are_counted(api: Api) -> None:
    watch = await api.watch(f"{DEPLOYMENTS}?watch=1&resourceVersion=0")
    for name in "ab":
        await api.ok("POST", DEPLOYMENTS, deployment(name))
    line = 'apiserver_watch_events_total{group="apps",version="v1",resource="deployments"} 2'
    assert line in await text(api, "/metrics")
    await watch.close()
    await api.ok("POST", PODS, pod("p"))
    assert line in await text(api, "/metrics")


@pytest.mark.parametrize(
    "name, shown",
    [
        ("system:apiserver", "system:apiserver"),
        ("system:node:n1", "other"),
        ("system:serviceaccount:a:b", "other"),
        ("me@example.com", "email_id"),
        ("eve", "other"),
        ("system:x:y:z", "system"),
    ],
)
def test_names_of_users_are_no_labels(name: str, shown: str) -> None:
    assert _compressed(name) == shown


async def test_every_request_has_a_name(api: Api) -> None:
    first, second = await api("GET", "/version"), await api("GET", f"{CMS}/none")
    names = {first.headers["Audit-Id"], second.headers["Audit-Id"]}
    assert len(names) == 2 and all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", name) for name in names)
    assert (await api("GET", "/version", audit_id="mine")).headers["Audit-Id"] == "mine"
    assert (await api("GET", "/version", audit_id="x" * 65)).headers["Audit-Id"] != "x" * 65


async def test_z_pages(api: Api) -> None:
    page = await text(api, "/statusz")
    assert page.startswith("kube-apiserver statusz\nWarning: ") and "\nUp: 0 hr 00 min 00 sec\n" in page
    structured = "application/json;v=v1beta1;g=config.k8s.io;as=Statusz"
    status = await api.ok("GET", "/statusz", accept=structured)
    assert (status["kind"], status["apiVersion"], status["emulationVersion"]) == ("Statusz", "config.k8s.io/v1beta1", "1.37")
    assert "/readyz" in status["paths"]
    assert (await api("GET", "/statusz", accept="application/json")).status == 406
    assert (await api("GET", "/flagz", accept=structured)).status == 406


async def test_flags_are_shown_and_secrets_are_not() -> None:
    async with running(config=ServerConfig(token="hush", tls_san=("a", "b"))) as api:
        page = await text(api, "/flagz")
        assert "\nhttps-listen-port=6443\n" in page and "\ntls-san=[a,b]\n" in page and "\ndisable-agent=false\n" in page
        assert "hush" not in page and "\ntoken=CLASSIFIED\n" in page
        flags = await api.ok("GET", "/flagz", accept="application/json;v=v1alpha1;g=config.k8s.io;as=Flagz")
        assert flags["flags"]["token"] == "CLASSIFIED"


async def test_debug_pages_are_off_unless_asked_for(api: Api) -> None:
    assert (await api("GET", "/debug/tasks")).status == 404
    for path, handler in debug.paths().items():
        answer: Any = await handler(Request("GET", path))
        assert answer.status == 200 and answer.body


async def test_who_may_not_read_metrics(api: Api) -> None:
    from k1s.api.errors import ApiError
    from k1s.server.apiserver.attributes import RequestInfo

    async def refuse(user: UserInfo, info: RequestInfo) -> None:
        raise ApiError(403, "Forbidden", "no")

    api.server.authorizer.authorize = refuse  # type: ignore[method-assign]
    assert (await api("GET", "/metrics")).status == 403
    assert b'authorization_attempts_total{result="denied"} 1' in api.server.exposition()


def test_the_process() -> None:
    registry = Registry()
    process_metrics.register(registry)
    out = registry.exposition().decode()
    assert "# TYPE process_cpu_seconds_total counter\n" in out
    values = dict(line.split(" ") for line in out.splitlines() if not line.startswith("#"))
    assert float(values["process_resident_memory_bytes"]) > 1e6 and float(values["process_start_time_seconds"]) > 1.6e9
