"""What one server tells of itself beside the requests it serves: its process, its build, its connections, the steps of its start.

Owns: `observe`. Called by: server/app. Never does: count requests (apiserver/request_metrics).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from k1s.base import process_metrics
from k1s.base.http_server import Listener
from k1s.server.apiserver.app import ApiServer
from k1s.server.apiserver.health import Steps
from k1s.server.apiserver.non_resource import version
from k1s.server.config import ServerConfig

# What upstream's checks of the same names say has happened.
DEFAULTS = (
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "start-system-namespaces-controller",
    "bootstrap-controller",
)
AGGREGATION = ("apiservice-registration-controller", "kube-apiserver-autoregistration")
CONTROLLERS = ("start-controllers",)

_BUILD = {
    "build_date": "buildDate",
    "compiler": "compiler",
    "git_commit": "gitCommit",
    "git_tree_state": "gitTreeState",
    "git_version": "gitVersion",
    "go_version": "goVersion",
    "major": "major",
    "minor": "minor",
    "platform": "platform",
}


def observe(server: ApiServer, config: ServerConfig, listener: Listener) -> Steps:
    """Add it all; what this returns is told of finished steps."""
    metrics, door = server.metrics, listener.door
    process_metrics.register(metrics)
    build = version()
    metrics.gauge("kubernetes_build_info", "What this binary was built from.", tuple(_BUILD)).set(
        *(build[name] for name in _BUILD.values()), value=1
    )
    size = metrics.gauge("apiserver_storage_size_bytes", "Size of the database on disk.", read=_size(config.database))
    size.fixed = (("storage_cluster_id",), ("sqlite-0",))
    metrics.gauge("k1s_connections", "Connections of clients.", read=lambda: float(door.connections))
    metrics.gauge("k1s_connections_of_strangers", "Those that are not authenticated.", read=lambda: float(door.strangers))
    for name, text, read in (
        ("k1s_connections_dropped_total", "Strangers that had to make room.", lambda: float(door.dropped)),
        ("k1s_connections_refused_total", "Connections that found no room.", lambda: float(door.refused)),
        ("apiserver_tls_handshake_errors_total", "TLS handshakes that failed.", lambda: float(door.failed)),
    ):
        metrics.gauge(name, text, read=read).kind = "counter"
    return Steps(server.add_check, *DEFAULTS, *AGGREGATION, *CONTROLLERS)


def _size(database: Path) -> Callable[[], float]:
    files = [database, database.with_name(f"{database.name}-wal")]
    return lambda: float(sum(file.stat().st_size for file in files if file.exists()))
