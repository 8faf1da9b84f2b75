"""A server that answers the join routes, and machines that join it: over real TLS, against the real handler."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from k1s.agent.config import AgentConfig
from k1s.api import bootstrap_token, node_identity
from k1s.api.catalog import Resource, builtin
from k1s.api.clone import clone
from k1s.api.errors import not_found
from k1s.base import http_server
from k1s.base.clock import VirtualClock
from k1s.base.http import Answer, Request
from k1s.server.certificates import ServerCertificates
from k1s.server.config import ServerConfig
from k1s.server.join import JoinHandler
from k1s.server.tokens import JoinTokens, load_tokens, whole


class Store:
    """The three verbs that the handler uses, over the informers."""

    def __init__(self, informers: Any) -> None:
        self._informers = informers

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Any:
        found = self._informers.informer(resource).get(name, namespace)
        if found is None:
            raise not_found(resource.plural, resource.group, name)
        return clone(found)

    async def create(self, resource: Resource, obj: Any, namespace: str = "") -> Any:
        return self._informers.informer(resource).put(clone(obj))

    async def update(self, resource: Resource, obj: Any) -> Any:
        return self._informers.informer(resource).put(clone(obj))


class Cluster:
    """A server that answers the join routes on a free port and remembers what it was sent."""

    def __init__(self, directory: Path, informers: Any, clock: Any) -> None:
        self.informers = informers
        self.config = ServerConfig(data_dir=directory, write_kubeconfig=str(directory / "k1s.yaml"))
        self.certificates = ServerCertificates(self.config, clock)
        self.certificates.ensure()
        self.token = load_tokens(self.config, self.certificates.server_ca_pem)
        self.client: Any = Store(informers)
        tokens = JoinTokens(self.config, informers, clock)
        self.handler = JoinHandler(self.config, self.certificates, tokens, self.client, informers, clock)
        self.seen: list[tuple[str, str]] = []
        self.listener: Any = None
        self.url = ""

    async def handle(self, request: Request) -> Answer:
        self.seen.append((request.path, request.headers.get("authorization", "")))
        return await self.handler.handle(request)

    def make_token(self, expires: float | None = None) -> str:
        """What `k1s token create` does."""
        secret = bootstrap_token.new_secret("abcdef", "0123456789abcdef", "for a test", expires)
        self.informers.informer(builtin("Secret")).put(secret)
        return whole(self.certificates.server_ca_pem, "abcdef.0123456789abcdef")

    async def start(self) -> None:
        self.listener = await http_server.listen(self.handle, host="127.0.0.1", port=0, tls=self.certificates.server_context())
        self.url = f"https://127.0.0.1:{self.listener.port}"


class Now(VirtualClock):
    """Starts at the real time (OpenSSL looks at the real clock), moves when told."""

    def __init__(self) -> None:
        super().__init__(time.time())


def registered(informers: Any, name: str = "node-1") -> None:
    """The node's agent has made its Node, and the record of its key names it."""
    node = informers.put("Node", name)
    record = informers.informer(builtin("Secret")).get(node_identity.record_name(name), "kube-system")
    data = node_identity.record_data(node_identity.fingerprint_of(record), node["metadata"]["uid"])
    informers.informer(builtin("Secret")).put({**record, "data": {**record["data"], **data}})


def removed(informers: Any, clock: Any, name: str = "node-1") -> None:
    """The Node was deleted, and its controller has taken the name from the key."""
    informers.drop("Node", name)
    freed(informers, clock, name)


def freed(informers: Any, clock: Any, name: str = "node-1") -> None:
    """What `k1s node forget` does, and the controller."""
    secrets = informers.informer(builtin("Secret"))
    record = secrets.get(node_identity.record_name(name), "kube-system")
    data = {**record["data"], **node_identity.freed(record, clock.now())["data"]}
    secrets.put({**record, "data": {key: value for key, value in data.items() if value is not None}})


def agent(cluster: Cluster, tmp_path: Path, name: str = "node-1", **options: Any) -> AgentConfig:
    given = {"token": cluster.token, "node_ip": "192.0.2.10", **options}
    return AgentConfig(server=cluster.url, data_dir=tmp_path / name, node_name=name, **given)
