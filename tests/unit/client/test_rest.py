"""RestClient over LocalTransport: paths, retries, errors, causes, streams."""

from __future__ import annotations

from contextlib import aclosing

import orjson
import pytest

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError, not_found, service_unavailable, too_many_requests
from k1s.base.clock import VirtualClock
from k1s.base.http import Response
from k1s.client.rest import MAX_RETRIES, RestClient, current_cause
from k1s.client.transport import LocalTransport

CONFIG_MAP = builtin("ConfigMap")


class RecordingClock(VirtualClock):
    """Never waits; remembers for how long it was asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def client_of(server, clock=None) -> RestClient:
    return RestClient(LocalTransport(server.handle, "root"), "tester", clock=clock or RecordingClock())


async def test_user_cause_agent_and_manager_are_passed(server) -> None:
    client = client_of(server)
    await client.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "n"}}, cause=7)
    request = server.requests[0]
    assert (request.method, request.path) == ("POST", "/api/v1/namespaces/n/configmaps")
    assert request.context == {"user": "root", "cause": 7}
    assert request.headers["user-agent"] == "k1s/tester"
    assert request.param("fieldManager") == "tester"
    assert orjson.loads(server.bodies[0])["kind"] == "ConfigMap"


async def test_cause_of_the_running_reconcile_is_the_default(server) -> None:
    token = current_cause.set(42)
    try:
        await client_of(server).delete(CONFIG_MAP, "a", "n", uid="u", propagation="Background", grace_period_seconds=0)
    finally:
        current_cause.reset(token)
    assert server.requests[0].context["cause"] == 42
    options = orjson.loads(server.bodies[0])
    assert options["preconditions"] == {"uid": "u"}
    assert options["propagationPolicy"] == "Background"
    assert options["gracePeriodSeconds"] == 0


async def test_names_are_escaped_in_the_raw_path_only(server) -> None:
    await client_of(server).get(builtin("ClusterRole"), "system:node x")
    assert server.requests[0].path.endswith("/system:node x")
    assert server.requests[0].raw_path.endswith("/system:node%20x")


async def test_retry_after_is_obeyed_a_bounded_number_of_times(server) -> None:
    clock = RecordingClock()
    busy = server.status(too_many_requests("busy", 3), [("Retry-After", "3")])
    server.answers = [busy, server.status(service_unavailable("later"), [("Retry-After", "100")])]
    await client_of(server, clock).get(CONFIG_MAP, "a", "n")
    assert clock.slept == [3.0, 30.0]
    server.answers = [busy] * 20
    with pytest.raises(ApiError) as caught:
        await client_of(server, clock).get(CONFIG_MAP, "a", "n")
    assert caught.value.code == 429
    assert len(server.answers) == 20 - MAX_RETRIES - 1


async def test_429_without_retry_after_is_an_answer(server) -> None:
    server.answers = [server.status(too_many_requests("disruption budget", 0))]
    with pytest.raises(ApiError, match="disruption budget"):
        await client_of(server).create(builtin("Pod"), {}, "n", subresource="eviction", name="p")
    assert server.requests[0].path == "/api/v1/namespaces/n/pods/p/eviction"


async def test_errors_become_api_errors(server) -> None:
    server.answers = [server.status(not_found("configmaps", "", "a")), Response(502, b"<html>bad gateway")]
    with pytest.raises(ApiError) as caught:
        await client_of(server).get(CONFIG_MAP, "a", "n")
    assert (caught.value.code, caught.value.reason) == (404, "NotFound")
    with pytest.raises(ApiError, match="answered 502: <html>bad gateway"):
        await client_of(server).get(CONFIG_MAP, "a", "n")


async def test_list_gives_items_their_kind(server) -> None:
    server.put("a")
    items, version = await client_of(server).list_at(CONFIG_MAP)
    assert items[0]["kind"] == "ConfigMap" and version == "11"


async def test_watch_streams_and_closes_the_handlers_iterator(server) -> None:
    server.put("a", x="1")
    async with aclosing(client_of(server).watch(CONFIG_MAP, resource_version="10")) as events:
        kind, obj = await anext(events)
        assert (kind, obj["data"]) == ("MODIFIED", {"x": "1"})
        server.put("b")
        assert (await anext(events))[0] == "ADDED"
    assert server.closed_streams == 1


async def test_watch_raises_an_error_event(server) -> None:
    events = client_of(server).watch(CONFIG_MAP, resource_version="10")
    first = server.put("a")
    assert (await anext(events))[1]["metadata"]["name"] == first["metadata"]["name"]
    server.emit("ERROR", ApiError(410, "Expired", "too old").status())
    with pytest.raises(ApiError, match="too old"):
        await anext(events)
