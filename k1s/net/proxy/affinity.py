"""Clients that stick to a target which is gone.

Owns: finding and deleting such entries of the affinity map, which the kernel itself fills. Called by: proxy.apply.
Never does: change affinity of targets that live.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from k1s.net.family import Family
from k1s.net.names import PROXY_TABLE
from k1s.net.nft import Nft, NftError

# client, frontend address, protocol, port, target
Entry = tuple[str, str, str, int, str]

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
    stale = []
    for client, address, protocol, port, target in found:
        targets = sticky.get(f"{address} . {protocol} . {port}", sticky.get(f"{protocol} . {port}", frozenset()))
        if target not in targets:
            stale.append(f"{client} . {address} . {protocol} . {port}")
    # destroy instead of delete would forgive entries that time out meanwhile, but is newer than nftables 1.0.6.
    return "".join(f"delete element {family.name} {PROXY_TABLE} affinity {{ {key} }}\n" for key in stale)


def entries(found: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """The entries of `list map` in nft's JSON."""
    result: list[Entry] = []
    for item in found:
        for key, value in (item.get("map") or {}).get("elem") or ():
            client, address, protocol, port = key["elem"]["val"]["concat"] if "elem" in key else key["concat"]
            result.append((client, address, protocol, port, " . ".join(str(part) for part in value["concat"])))
    return result
