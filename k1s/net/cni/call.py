"""A CNI call and its answer, as they go over the agent's socket.

Owns: Call, CniError, the framing (see packaging/cni/k1s-cni.c) and the shape of results. Called by: cni.service, add, check.
Never does: anything to the kernel. Source: CNI specification 1.1.0; error codes are its section "Error".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SUPPORTED_VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

INVALID_ENVIRONMENT = 4
DECODING_FAILED = 6
INVALID_CONFIG = 7
TRY_AGAIN_LATER = 11
NOT_AVAILABLE = 50
# From 100 on codes are the plugin's own.
FAILED = 100
CHECK_FAILED = 101


class CniError(Exception):
    """What a plugin says when it fails: `code` and one line."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.details = code, message, details


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `config` is the plugin's configuration with runtimeConfig and prevResult merged in by libcni."""

    command: str
    container_id: str
    interface: str
    netns: str
    args: dict[str, str]
    config: dict[str, Any]

    @property
    def pod(self) -> str:
        """namespace/name, for messages and records; empty outside Kubernetes."""
        namespace, name = self.args.get("K8S_POD_NAMESPACE", ""), self.args.get("K8S_POD_NAME", "")
        return f"{namespace}/{name}" if name else ""

    def require(self, *names: str) -> None:
        missing = [name for name in names if not getattr(self, name)]
        if missing:
            variables = {"container_id": "CNI_CONTAINERID", "interface": "CNI_IFNAME", "netns": "CNI_NETNS"}
            text = ", ".join(variables[name] for name in missing)
            raise CniError(INVALID_ENVIRONMENT, f"required environment variables are missing: {text}")


def decode(data: bytes) -> Call:
    """The call in a request. Raises CniError."""
    head, found, body = data.partition(b"\0\0")
    if not found:
        raise CniError(DECODING_FAILED, "the request ends before its configuration")
    variables = dict(v.decode(errors="replace").partition("=")[::2] for v in head.split(b"\0"))
    try:
        config = json.loads(body) if body.strip() else {}
    except ValueError as error:
        raise CniError(DECODING_FAILED, f"the network configuration is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CniError(DECODING_FAILED, "the network configuration is not a JSON object")
    args = dict(part.partition("=")[::2] for part in variables.get("CNI_ARGS", "").split(";") if part)
    return Call(
        command=variables.get("CNI_COMMAND", ""),
        container_id=variables.get("CNI_CONTAINERID", ""),
        interface=variables.get("CNI_IFNAME", ""),
        netns=variables.get("CNI_NETNS", ""),
        args=args,
        config=config,
    )


def version_of(config: dict[str, Any]) -> str:
    """The version to answer in: that of the configuration."""
    version = str(config.get("cniVersion") or "0.3.1")
    if version not in SUPPORTED_VERSIONS:
        raise CniError(1, f"incompatible CNI version {version}; supported: {', '.join(SUPPORTED_VERSIONS)}")
    return version


def result(
    version: str, interfaces: Sequence[dict[str, Any]], ips: Sequence[dict[str, Any]], routes: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The result of ADD. Before 1.0.0 an address also named its family."""
    if version < "1.0.0":
        ips = [{"version": "6" if ":" in ip["address"] else "4", **ip} for ip in ips]
    return {"cniVersion": version, "interfaces": list(interfaces), "ips": list(ips), "routes": list(routes), "dns": {}}


def encode(answer: dict[str, Any] | None) -> bytes:
    """A success."""
    return b"0\n" + (json.dumps(answer).encode() + b"\n" if answer is not None else b"")


def encode_error(error: CniError, version: str = "1.0.0") -> bytes:
    body = {"cniVersion": version, "code": error.code, "msg": error.message, "details": error.details}
    return b"1\n" + json.dumps(body).encode() + b"\n"
