"""The API over plain HTTP, through `kubectl proxy` on a Unix socket: what a test says is what goes over the wire."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from .conftest import TOOLS, Cluster

Object = dict[str, Any]
JSON, MERGE, STRATEGIC = "application/json", "application/merge-patch+json", "application/strategic-merge-patch+json"
APPLY, JSON_PATCH = "application/apply-patch+yaml", "application/json-patch+json"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Refused(AssertionError):
    def __init__(self, code: int, status: Object) -> None:
        super().__init__(f"{code}: {status.get('message')}")
        self.code, self.status = code, status


class Api:
    """`get("/api/v1/...", limit=5)`; every verb gives the decoded body and raises Refused for 4xx and 5xx."""

    def __init__(self, cluster: Cluster) -> None:
        self._socket = str(cluster.home / "proxy.sock")
        command = cluster.inside(TOOLS / "bin" / "kubectl", "proxy", f"--unix-socket={self._socket}")
        self._process = subprocess.Popen(command, env=cluster.env, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert "Starting to serve" in self._process.stdout.readline()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def call(
        self, method: str, path: str, body: Any = None, *, kind: str = JSON, accept: str = JSON, **query: Any
    ) -> tuple[http.client.HTTPMessage, Any]:
        connection = _Connection(self._socket, 30)
        target = f"{path}?{urlencode(query)}" if query else path
        data = body if isinstance(body, (bytes, str)) else json.dumps(body) if body is not None else None
        try:
            connection.request(method, target, data, {"Content-Type": kind, "Accept": accept})
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        decoded = json.loads(raw) if answer.headers.get_content_type() == JSON else raw.decode()
        if answer.status >= 400:
            raise Refused(answer.status, decoded if isinstance(decoded, dict) else {"message": decoded})
        return answer.headers, decoded

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, **query)[1]

    def post(self, path: str, body: Any, **query: Any) -> Any:
        return self.call("POST", path, body, **query)[1]

    def put(self, path: str, body: Any, **query: Any) -> Any:
        return self.call("PUT", path, body, **query)[1]

    def patch(self, path: str, body: Any, kind: str = MERGE, **query: Any) -> Any:
        return self.call("PATCH", path, body, kind=kind, **query)[1]

    def delete(self, path: str, body: Any = None, **query: Any) -> Any:
        return self.call("DELETE", path, body, **query)[1]

    def watch(self, path: str, seconds: float = 5, **query: Any) -> Iterator[tuple[str, Object]]:
        """Events until the time is over."""
        connection = _Connection(self._socket, seconds)
        deadline = time.monotonic() + seconds
        try:
            connection.request("GET", f"{path}?{urlencode({'watch': 'true', **query})}")
            answer = connection.getresponse()
            if answer.status >= 400:
                raise Refused(answer.status, json.loads(answer.read()))
            while time.monotonic() < deadline:
                line = answer.readline()
                if not line:
                    return
                event = json.loads(line)
                yield event["type"], event["object"]
        except TimeoutError:
            return
        finally:
            connection.close()
