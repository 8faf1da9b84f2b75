"""Taking the network back.

Owns: removing every link, route and table of k1s's. Called by: cli uninstall, `make down`, tests.
Never does: touch anything that is not k1s's by its name, or its routes by their mark. Repeatable.
"""

from __future__ import annotations

import json
from pathlib import Path

from k1s.net import link, names, netns, route, sysctl
from k1s.net.announce import holder
from k1s.net.nft import NftContext
from k1s.net.setup import sysctl_memory


def remove_all(state_dir: Path | None = None) -> list[str]:
    """Remove all of it from the calling thread's network namespace; with `state_dir` also put kernel settings back.

    Synchronous, and not to be called inside a running event loop. Returns what was removed, for people to read.
    The CNI files are removed by cni.install.remove: they live in k1s's own directories.
    """
    removed = _tables()
    removed += [f"address {address}" for address in holder.drop_all()]
    for found in link.links():
        if found.name in names.LINKS or (found.kind == "veth" and names.is_veth(found.name)):
            if link.delete(found.name):
                removed.append(f"link {found.name}")
    # Those of the tunnel went with it; next hops are on the host's own links.
    for ours in route.own():
        route.remove(ours)
        removed.append(f"route {ours.destination}")
    if state_dir is not None:
        sysctl.restore(sysctl_memory(state_dir))
        for record in (state_dir / "addresses").glob("*.json"):
            removed += _namespace(record)
            record.unlink(missing_ok=True)
    return removed


def _namespace(record: Path) -> list[str]:
    """A sandbox's namespace stays pinned when its runtime is killed; it goes with the record of its address."""
    try:
        path = str(json.loads(record.read_bytes()).get("netns"))
    except (ValueError, AttributeError):
        return []
    return [f"network namespace {path}"] if netns.unpin(path) else []


def _tables() -> list[str]:
    context = NftContext()
    try:
        ours = [
            f"{table['family']} {table['name']}"
            for item in context.query("list tables")
            if (table := item.get("table")) and table["name"].startswith(names.TABLE_PREFIX)
        ]
        if ours:
            context.run("".join(f"delete table {table}\n" for table in ours))
        return [f"nftables table {table}" for table in ours]
    finally:
        context.close()
