"""Health check node ports over real sockets on loopback."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from k1s.net.proxy.health import HealthPorts, local_endpoints, wanted_port


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def service(port: int, policy: str = "Local") -> dict:
    return {"spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy, "healthCheckNodePort": port}}


def pieces(*nodes: str, ready: bool = True) -> list[dict]:
    endpoints = [
        {"addresses": [f"10.42.0.{n}"], "nodeName": node, "conditions": {"ready": ready}} for n, node in enumerate(nodes)
    ]
    return [{"endpoints": endpoints}]


async def get(port: int) -> tuple[int, dict]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(body)


async def test_follows_endpoints_and_closes() -> None:
    port = free_port()
    now: dict[str, tuple[dict | None, list[dict]]] = {"shop/web": (service(port), pieces("a", "a", "b"))}
    ports = HealthPorts(lambda key: now[key], "a", ["127.0.0.1"])
    await ports.update(["shop/web"])
    code, body = await get(port)
    assert (code, body["localEndpoints"], body["service"]) == (200, 2, {"namespace": "shop", "name": "web"})
    now["shop/web"] = (service(port), pieces("b"))
    await ports.update(["shop/web"])
    assert (await get(port))[0] == 503
    now["shop/web"] = (None, [])
    await ports.update(["shop/web"])
    try:
        await get(port)
    except ConnectionRefusedError:
        pass
    else:
        raise AssertionError("still listening")
    await ports.close()


async def test_a_taken_port_is_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ports = HealthPorts(lambda key: (service(port), pieces("a")) if key == "shop/web" else (None, []), "a", ["127.0.0.1"])
        await ports.update(["shop/web"])
        await ports.update(["shop/other"])
    assert len(caplog.records) == 1
    # Free by now: the next change of any Service opens it.
    await ports.update(["shop/other"])
    assert (await get(port))[0] == 200
    await ports.close()


def test_an_endpoint_of_two_families_counts_once() -> None:
    both = [{**pieces("a", "a")[0], "addressType": "IPv4"}, {**pieces("a", "a")[0], "addressType": "IPv6"}]
    assert local_endpoints(both, "a") == 2


def test_who_has_one() -> None:
    assert wanted_port(service(30000)) == 30000
    assert wanted_port(service(30000, "Cluster")) == 0
    assert wanted_port(None) == 0
    assert local_endpoints(pieces("a", ready=False), "a") == 0
