"""What makes this machine a node of its cluster, in files: certificates, keys, and what it was told when it joined.

Owns: JoinResult, IdentityFiles and their layout below config.tls_dir. Called by: agent/join. Never does: ask a server.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from k1s.base import pki
from k1s.base.files import PUBLIC, read_if_exists, write_atomic


@dataclass(frozen=True, slots=True)
class JoinResult:
    """What the agent runs with. Paths are below config.tls_dir."""

    node_name: str
    node_ip: str
    # Its URL (of several servers: comma-separated): what was asked for, else what the machine joined.
    server: str
    cluster_cidr: str
    service_cidr: str
    cluster_dns: str
    cluster_domain: str
    network_backend: str
    server_ca: Path
    client_ca: Path
    client_certificate: Path
    client_key: Path
    serving_certificate: Path
    serving_key: Path
    # The certificates were made for another address: AgentCertificates.run asks for new ones.
    moved: bool = False


class IdentityFiles:
    """The files of one node's identity. `identity.json` is written last: it says that the rest is complete."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server_ca = directory / "server-ca.crt"
        self.client_ca = directory / "client-ca.crt"
        self.client = (directory / "client.crt", directory / "client.key")
        self.serving = (directory / "serving.crt", directory / "serving.key")
        self.identity = directory / "identity.json"

    def known_server(self) -> str:
        """The server that this machine joined, "" if it has not."""
        return str((self._read() or {}).get("server") or "")

    def known_addresses(self) -> str:
        """Those that the certificates are for, "" if there are none."""
        return str((self._read() or {}).get("address") or "")

    def result(self, name: str, address: str, server: str) -> JoinResult | None:
        """What is known from earlier, None unless it is all there and for this name."""
        known = self._read()
        paths = (self.server_ca, self.client_ca, *self.client, *self.serving)
        if known is None or known.get("node") != name or not all(path.exists() for path in paths):
            return None
        settings = known["settings"]
        return JoinResult(
            node_name=name,
            node_ip=address,
            server=server,
            cluster_cidr=settings["clusterCIDR"],
            service_cidr=settings["serviceCIDR"],
            cluster_dns=settings["clusterDNS"],
            cluster_domain=settings["clusterDomain"],
            network_backend=settings.get("networkBackend") or "vxlan",  # absent in older files
            server_ca=self.server_ca,
            client_ca=self.client_ca,
            client_certificate=self.client[0],
            client_key=self.client[1],
            serving_certificate=self.serving[0],
            serving_key=self.serving[1],
            moved=known["address"] != address,
        )

    def store(self, name: str, addresses: str, server: str, answer: dict[str, Any]) -> None:
        write_atomic(self.server_ca, answer["serverCA"].encode(), PUBLIC)
        write_atomic(self.client_ca, answer["clientCA"].encode(), PUBLIC)
        write_atomic(self.client[0], answer["clientCertificate"].encode(), PUBLIC)
        write_atomic(self.serving[0], answer["servingCertificate"].encode(), PUBLIC)
        self._write({"node": name, "address": addresses, "server": server, "settings": answer["settings"]})

    def update_settings(self, settings: dict[str, Any]) -> bool:
        """What the server says now; whether that is new."""
        known = self._read()
        if known is None or {**known["settings"], **settings} == known["settings"]:
            return False
        self._write({**known, "settings": {**known["settings"], **settings}})
        return True

    def discard(self) -> None:
        """This machine is no node any more. Its keys stay, for a join that has to be tried again."""
        self.identity.unlink(missing_ok=True)

    def discard_keys(self) -> None:
        """The next join makes new ones: whoever has a copy of these has nothing."""
        self.discard()
        for _, key in (self.client, self.serving):
            key.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        """None also for a file that a failing disk has damaged: then the machine joins anew."""
        content = read_if_exists(self.identity)
        try:
            known = orjson.loads(content) if content else None
        except orjson.JSONDecodeError:
            known = None
        return known if isinstance(known, dict) and isinstance(known.get("settings"), dict) else None

    def _write(self, identity: dict[str, Any]) -> None:
        write_atomic(self.identity, orjson.dumps(identity, option=orjson.OPT_INDENT_2), PUBLIC)

    def expired(self, now: float) -> bool:
        return now >= pki.validity(self.client[0].read_bytes()).not_after

    def ca_hash(self) -> str:
        """Of the server's CA, as it stands in tokens."""
        return f"K10{pki.ca_hash(self.server_ca.read_bytes())}"
