"""kubeconfig files: write the admin's, read any for its current context.

Owns: the file format as k1s uses it (certificates embedded). Called by: server/certificates, cli, tests.
Never does: connect.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k1s.base.files import write_atomic


class KubeconfigError(Exception):
    """A kubeconfig that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where and as whom to connect; PEM bytes, empty where the file has none."""

    server: str
    ca: bytes = b""
    certificate: bytes = b""
    key: bytes = b""
    token: str = ""
    namespace: str = "default"
    insecure: bool = False


def render(credentials: Credentials, name: str = "default") -> bytes:
    """The file for one cluster, user and context, all called `name` (as k3s has it)."""

    def data(pem: bytes) -> str:
        return base64.b64encode(pem).decode()

    user = {"token": credentials.token} if credentials.token else {}
    if credentials.certificate:
        user = {**user, "client-certificate-data": data(credentials.certificate), "client-key-data": data(credentials.key)}
    cluster: dict[str, Any] = {"certificate-authority-data": data(credentials.ca), "server": credentials.server}
    q = json.dumps  # a JSON string is a YAML string: no YAML library needed to write
    lines = ["apiVersion: v1", "clusters:", "- cluster:"]
    lines += [f"    {key}: {q(value)}" for key, value in cluster.items()]
    lines += [f"  name: {q(name)}", "contexts:", "- context:", f"    cluster: {q(name)}", f"    user: {q(name)}"]
    lines += [f"  name: {q(name)}", f"current-context: {q(name)}", "kind: Config", "preferences: {}", "users:"]
    lines += [f"- name: {q(name)}", "  user:"]
    lines += [f"    {key}: {q(value)}" for key, value in user.items()]
    return ("\n".join(lines) + "\n").encode()


def write(path: Path, credentials: Credentials, mode: int = 0o600) -> None:
    write_atomic(path, render(credentials), mode)


def read(path: Path) -> Credentials:
    """The current context's server and credentials; KubeconfigError if the file lacks them."""
    import yaml

    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise KubeconfigError(f"{path}: {error}") from error
    if not isinstance(config, dict):
        raise KubeconfigError(f"{path}: not a kubeconfig")
    context = _named(path, config, "contexts", config.get("current-context") or "", "context")
    cluster = _named(path, config, "clusters", context.get("cluster") or "", "cluster")
    user = _named(path, config, "users", context.get("user") or "", "user")
    server = cluster.get("server")
    if not isinstance(server, str) or not server:
        raise KubeconfigError(f"{path}: the current cluster has no server")
    return Credentials(
        server=server,
        ca=_pem(path, cluster, "certificate-authority"),
        certificate=_pem(path, user, "client-certificate"),
        key=_pem(path, user, "client-key"),
        token=str(user.get("token") or ""),
        namespace=str(context.get("namespace") or "default"),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
    )


def _named(path: Path, config: dict[str, Any], section: str, name: str, inner: str) -> dict[str, Any]:
    for item in config.get(section) or []:
        if item.get("name") == name:
            found: dict[str, Any] = item.get(inner) or {}
            return found
    raise KubeconfigError(f"{path}: {section} has no entry {name!r}")


def _pem(path: Path, section: dict[str, Any], key: str) -> bytes:
    data = section.get(f"{key}-data")
    if data:
        return base64.b64decode(data)
    file = section.get(key)
    return (path.parent / str(file)).read_bytes() if file else b""
