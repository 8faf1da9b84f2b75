"""Who may ask the agent: the server's certificate and nobody else; and what it says of its configuration."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from k1s.agent.config import AgentConfig
from k1s.agent.serving.app import AgentServer
from k1s.base.http import PeerCertificate, Request

SERVER = PeerCertificate("kube-apiserver-kubelet-client", ("system:masters",))


def agent() -> Any:
    context = SimpleNamespace(config=AgentConfig(max_pods=7, pod_log_dir=Path("/l")), runtime=None, clock=None, pods=[])
    return AgentServer(context)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/pods", "/metrics", "/stats/summary", "/configz", "/exec/a/b/c", "/containerLogs/a/b/c", "/x"])
@pytest.mark.parametrize(
    "peer, status",
    [(None, 401), (PeerCertificate("system:node:n1", ("system:nodes",)), 403), (PeerCertificate("eve", ()), 403)],
)
async def test_strangers_are_refused_everywhere(path: str, peer: PeerCertificate | None, status: int) -> None:
    answer = await agent().handle(Request("GET", path, peer=peer))
    assert answer.status == status


async def test_the_health_check_is_open() -> None:
    assert (await agent().handle(Request("GET", "/healthz"))).body == b"ok"


async def test_the_configuration() -> None:
    answer = await agent().handle(Request("GET", "/configz", peer=SERVER))
    config = orjson.loads(answer.body)["kubeletconfig"]
    assert (config["kind"], config["maxPods"], config["podLogsDir"]) == ("KubeletConfiguration", 7, "/l")
    assert (await agent().handle(Request("GET", "/nothing", peer=SERVER))).status == 404
