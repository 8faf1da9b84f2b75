"""Raw HTTPS: keep-alive, compression, streams that end with their clients, bodies that are refused."""

from __future__ import annotations

import gzip
import json

from tests.wire.conftest import Wire


def test_keep_alive_and_compression(wire: Wire, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    connection = wire.connect()
    for number in range(3):
        body = json.dumps({"metadata": {"name": f"c{number}"}, "data": {"x": "y" * 60_000}})
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 201 and json.loads(answer.read())["metadata"]["name"] == f"c{number}"
    connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    assert answer.getheader("Content-Encoding") == "gzip"
    assert len(json.loads(gzip.decompress(answer.read()))["items"]) == 3
    connection.request("HEAD", f"{path}/c1")
    answer = connection.getresponse()
    assert answer.status == 200 and answer.read() == b""


def test_a_watch_streams(wire: Wire, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    watching, writing = wire.connect(), wire.connect()
    watching.request("GET", f"{path}?watch=1")
    stream = watching.getresponse()
    assert stream.getheader("Transfer-Encoding") == "chunked"
    writing.request("POST", path, json.dumps({"metadata": {"name": "a"}}), {"Content-Type": "application/json"})
    assert writing.getresponse().read()
    event = json.loads(stream.readline())
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a")
    watching.close()
    writing.request("DELETE", f"{path}/a")
    assert writing.getresponse().status == 200


def test_a_body_that_is_too_large_is_refused_by_its_length(wire: Wire, namespace: str) -> None:
    connection = wire.connect()
    connection.putrequest("POST", f"/api/v1/namespaces/{namespace}/configmaps")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(64 * 1024 * 1024))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413


def test_form_bodies_are_refused(wire: Wire, namespace: str) -> None:
    connection = wire.connect()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", "a=b", headers)
    assert connection.getresponse().status == 415
