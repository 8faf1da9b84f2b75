"""The API under test: where it is and how to speak to it.

Owns: reading a kubeconfig or --url/--token/--ca, and a small blocking client for setting up and for watching one thing.
Called by: every part of bench. Never does: load (load.py has its own client, in its own process).
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Object = dict[str, Any]


class Refused(Exception):
    """The API answered with an error status."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status}: {body[:300].decode(errors='replace')}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Target:
    """Everything as text or file names, so that it can be handed to the load process."""

    url: str
    ca: str = ""
    certificate: str = ""
    key: str = ""
    token: str = ""
    insecure: bool = False

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or "127.0.0.1"

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 443

    def context(self) -> ssl.SSLContext | None:
        if not self.url.startswith("https:"):
            return None
        context = ssl.create_default_context(cafile=self.ca or None)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def from_kubeconfig(file: Path, scratch: Path) -> Target:
    """The current context; embedded certificates go to files of mode 0600 below `scratch`."""
    import yaml

    config = yaml.safe_load(file.read_text())
    context = _named(config, "contexts", config["current-context"])["context"]
    cluster = _named(config, "clusters", context["cluster"])["cluster"]
    user = _named(config, "users", context["user"])["user"]

    def as_file(holder: Object, key: str) -> str:
        if key in holder:
            return str(file.parent / holder[key])
        data = holder.get(f"{key}-data")
        if not data:
            return ""
        path = scratch / key
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(base64.b64decode(data))
        return str(path)

    return Target(
        url=cluster["server"],
        ca=as_file(cluster, "certificate-authority"),
        certificate=as_file(user, "client-certificate"),
        key=as_file(user, "client-key"),
        token=user.get("token", ""),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
    )


def _named(config: Object, kind: str, name: str) -> Object:
    for entry in config[kind]:
        if entry["name"] == name:
            found: Object = entry
            return found
    raise ValueError(f"the kubeconfig has no {kind} named {name}")


class Api:
    """A blocking client: one connection for calls, one more per watch."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._context = target.context()
        self._connection: http.client.HTTPConnection | None = None

    def call(self, method: str, path: str, body: Object | None = None) -> Object:
        connection = self._connection or self._connect()
        self._connection = connection
        try:
            response = self._send(connection, method, path, body)
            data = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if response.status >= 300:
            raise Refused(response.status, data)
        parsed: Object = json.loads(data) if data.startswith(b"{") else {}
        return parsed

    def delete(self, path: str) -> None:
        """Delete, and take it calmly when there is nothing."""
        try:
            self.call("DELETE", path)
        except Refused as error:
            if error.status != 404:
                raise

    @contextmanager
    def watch(self, path: str, seconds: int = 120) -> Iterator[Iterator[Object]]:
        """The events of a watch on a collection; the API's own timeout ends it."""
        connection = self._connect()
        try:
            joint = "&" if "?" in path else "?"
            response = self._send(connection, "GET", f"{path}{joint}watch=1&timeoutSeconds={seconds}", None)
            if response.status >= 300:
                raise Refused(response.status, response.read())
            yield (json.loads(line) for line in iter(response.readline, b""))
        finally:
            connection.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._target.host, self._target.port
        if self._context is None:
            return http.client.HTTPConnection(host, port, timeout=150)
        return http.client.HTTPSConnection(host, port, timeout=150, context=self._context)

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Object | None
    ) -> http.client.HTTPResponse:
        headers = self._target.headers()
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        return connection.getresponse()
