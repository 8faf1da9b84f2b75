"""The affinity map, which the kernel itself fills: clients that stick to a target.

Owns: deleting entries whose target is gone, and carrying the others over when the table is written anew.
Called by: proxy.apply. Never does: change affinity of targets that live.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from k1s.net.family import Family
from k1s.net.names import PROXY_TABLE
from k1s.net.nft import Nft, NftError


@dataclass(frozen=True, slots=True)
class Entry:
    """`key` is client, frontend address, protocol and port as the map has them; times in seconds, 0 where not told."""

    client: str
    address: str
    protocol: str
    port: int
    target: str
    timeout: int = 0
    expires: int = 0

    @property
    def key(self) -> str:
        return f"{self.client} . {self.address} . {self.protocol} . {self.port}"

    def lives(self, sticky: Mapping[str, frozenset[str]]) -> bool:
        """Is the target among its frontend's targets? A node port is a frontend without an address."""
        by_address = sticky.get(f"{self.address} . {self.protocol} . {self.port}")
        targets = by_address if by_address is not None else sticky.get(f"{self.protocol} . {self.port}", frozenset())
        return self.target in targets


_ATTEMPTS = 5


async def forget(nft: Nft, family: Family, sticky: Mapping[str, frozenset[str]]) -> None:
    """Delete the entries whose target is not among their frontend's targets in `sticky`."""
    for attempt in range(_ATTEMPTS):
        found = await nft.query(f"list map {family.name} {PROXY_TABLE} affinity")
        text = plan(family, entries(found), sticky)
        try:
            if text:
                await nft.run(text)
            return
        except NftError:
            # An entry timed out between the list and the delete, which fails the whole transaction.
            if attempt == _ATTEMPTS - 1:
                raise


def plan(family: Family, found: Iterable[Entry], sticky: Mapping[str, frozenset[str]]) -> str:
    """The command that deletes what is stale, or nothing."""
    # destroy instead of delete would forgive entries that time out meanwhile, but is newer than nftables 1.0.6.
    return "".join(
        f"delete element {family.name} {PROXY_TABLE} affinity {{ {entry.key} }}\n" for entry in found if not entry.lives(sticky)
    )


async def held(nft: Nft, family: Family) -> list[Entry]:
    """The entries of the table that is there now; none if there is no table."""
    tables = await nft.query("list tables")
    if not any((item.get("table") or {}).get("name") == PROXY_TABLE for item in tables):
        return []
    try:
        return entries(await nft.query(f"list map {family.name} {PROXY_TABLE} affinity"))
    except NftError:
        return []  # a table, but not as we write it; it is about to be replaced


def carry_over(family: Family, found: Iterable[Entry], sticky: Mapping[str, frozenset[str]]) -> str:
    """The command that puts living entries into a new table, with the time they had left."""
    kept = [
        f"{entry.key} timeout {entry.timeout}s expires {entry.expires}s : {entry.target}"
        for entry in found
        if entry.timeout and entry.expires and entry.lives(sticky)
    ]
    return f"add element {family.name} {PROXY_TABLE} affinity {{ {', '.join(kept)} }}\n" if kept else ""


def entries(found: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """The entries of `list map` in nft's JSON."""
    result: list[Entry] = []
    for item in found:
        for key, value in (item.get("map") or {}).get("elem") or ():
            element = key.get("elem") or {"val": key}
            client, address, protocol, port = element["val"]["concat"]
            target = " . ".join(str(part) for part in value["concat"])
            times = int(element.get("timeout") or 0), int(element.get("expires") or 0)
            result.append(Entry(client, address, protocol, port, target, *times))
    return result
