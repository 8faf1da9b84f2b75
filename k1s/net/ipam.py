"""Which sandbox has which address of this node's pod range.

Owns: the records, one small file an address below `{agent_dir}/network/addresses`, and the choice of the next address.
Called by: cni.add, cni.delete, cni.service. Never does: links, rules. Thread safe: CNI calls run in worker threads.

A file is written before the address is used and removed after the link is gone, so that a kill -9 at any moment can only
keep an address too long (the reconciliation at start frees it), never hand it out twice. Files are not synced to disk:
what a power cut can lose here died with the pods.
"""

from __future__ import annotations

import ipaddress
import json
import os
import threading
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from k1s.net.family import Address, Network

# Of a /64 only so many are used: each has an element in the masquerade table.
MOST = 4096


class IpamError(Exception):
    """No address can be given."""


@dataclass(frozen=True, slots=True)
class PortMapping:
    """One hostPort. `host_ip` is empty for every address of the host."""

    host_port: int
    container_port: int
    protocol: str
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One sandbox interface: everything that DEL and a restart need to know of it."""

    address: str
    container_id: str
    interface: str
    netns: str
    pod: str = ""
    ports: tuple[PortMapping, ...] = ()
    # Of the other family, in a cluster with two.
    others: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address, *self.others)

    @property
    def key(self) -> tuple[str, str]:
        return (self.container_id, self.interface)


class Ipam:
    """Addresses of one range a family. Bounded by the ranges, and by MOST in those that are larger."""

    def __init__(self, directory: Path, *networks: Network) -> None:
        self.networks = networks
        self._directory = directory
        self._lock = threading.Lock()
        self._by_key: dict[tuple[str, str], Attachment] = {}
        self._used: set[Address] = set()
        self._last = {network: gateway for network, gateway in zip(networks, self.gateways, strict=True)}
        self._load()

    @property
    def gateways(self) -> tuple[Address, ...]:
        """The first address of each range: the bridge's."""
        return tuple(network.network_address + 1 for network in self.networks)

    def reserve(
        self, container_id: str, interface: str, netns: str, *, pod: str = "", ports: Sequence[PortMapping] = ()
    ) -> Attachment:
        """The sandbox's address, a new one unless it has one already. Raises IpamError when the range is used up."""
        with self._lock:
            held = self._by_key.get((container_id, interface))
            if held is not None:
                return held
            chosen = [self._next(network) for network in self.networks]
            first, *others = map(str, chosen)
            attachment = Attachment(first, container_id, interface, netns, pod, tuple(ports), tuple(others))
            self._write(attachment)
            self._by_key[attachment.key] = attachment
            self._used.update(chosen)
            self._last.update(zip(self.networks, chosen, strict=True))
            return attachment

    def find(self, container_id: str, interface: str) -> Attachment | None:
        with self._lock:
            return self._by_key.get((container_id, interface))

    def release(self, container_id: str, interface: str) -> None:
        """Free the address; nothing happens if there is none."""
        with self._lock:
            attachment = self._by_key.pop((container_id, interface), None)
            if attachment is not None:
                self._path(attachment.address).unlink(missing_ok=True)
                self._used.difference_update(map(ipaddress.ip_address, attachment.addresses))

    def attachments(self) -> list[Attachment]:
        with self._lock:
            return list(self._by_key.values())

    def dead(self, live: Collection[str]) -> list[Attachment]:
        """The attachments of sandboxes that are not in `live` any more."""
        return [a for a in self.attachments() if a.container_id not in live]

    def _next(self, network: Network) -> Address:
        # Rotation: an address that was just freed is the last to be used again, so that peers' caches have time to forget.
        gateway = network.network_address + 1
        first, last = int(gateway) + 1, int(network.broadcast_address) - 1
        size = min(last - first + 1, MOST)
        begin = int(self._last[network]) - first + 1
        for step in range(size):
            address = type(gateway)(first + (begin + step) % size)
            if address not in self._used:
                return address
        raise IpamError(f"no free pod address in {network}: all {size} are in use")

    def _path(self, address: str) -> Path:
        return self._directory / f"{address.replace(':', '_')}.json"

    def _write(self, attachment: Attachment) -> None:
        data = json.dumps(asdict(attachment)).encode()
        descriptor = os.open(self._path(attachment.address), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)

    def _load(self) -> None:
        """Read the records; the newest one tells where rotation goes on."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        newest = -1
        for path in self._directory.glob("*.json"):
            attachment = _parse(path.read_bytes())
            if attachment is None:
                path.unlink()
                continue
            addresses = [ipaddress.ip_address(text) for text in attachment.addresses]
            self._by_key[attachment.key] = attachment
            self._used.update(addresses)
            written = path.stat().st_mtime_ns
            if written > newest and any(a in network for a in addresses for network in self.networks):
                newest = written
                self._last.update({network: a for a in addresses for network in self.networks if a in network})


def _parse(data: bytes) -> Attachment | None:
    """A record, or None for a file that a power cut left torn: its sandbox is gone too."""
    try:
        fields: dict[str, Any] = json.loads(data)
        ports = tuple(PortMapping(**port) for port in fields.pop("ports"))
        others = tuple(fields.pop("others", ()))
        attachment = Attachment(**fields, ports=ports, others=others)
        for address in attachment.addresses:
            ipaddress.ip_address(address)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return attachment
