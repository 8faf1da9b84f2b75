"""CNI DEL and GC: a sandbox's interface, address and host ports go.

Owns: the order (ports, link, address last). Called by: cni.service, agent.network.app (sandboxes that died while k1s was away).
Never does: fail because something is gone already.
"""

from __future__ import annotations

from collections.abc import Collection

from k1s.net import hostport, link, names
from k1s.net.cni.call import FAILED, Call, CniError
from k1s.net.cni.node import PodNetwork
from k1s.net.ipam import Attachment
from k1s.net.nft import NftError


async def delete(network: PodNetwork, call: Call) -> None:
    """Idempotent, also for a sandbox that was never wired. Raises CniError."""
    call.require("container_id", "interface")
    attachment = network.ipam.find(call.container_id, call.interface)
    try:
        if attachment is not None:
            await release(network, attachment)
        else:
            await network.in_thread(lambda: link.delete(names.veth(call.container_id, call.interface)))
    except (link.LinkError, NftError, OSError) as error:
        raise CniError(FAILED, f"pod {call.pod or call.container_id}: {error}") from error


async def release(network: PodNetwork, attachment: Attachment) -> None:
    """Undo ADD. The address is free only when its link is gone, so that no two pods can answer for it."""
    if attachment.ports:
        await _close_ports(network, attachment)
    await network.in_thread(lambda: link.delete(names.veth(*attachment.key)))
    for clean in network.after_delete:
        await clean(attachment)
    network.ipam.release(*attachment.key)


async def release_dead(network: PodNetwork, live: Collection[str]) -> list[Attachment]:
    """Release what belongs to sandboxes that are not in `live`; returns what that was."""
    dead = network.ipam.dead(live)
    for attachment in dead:
        async with network.turn(attachment.container_id):
            await release(network, attachment)
    return dead


async def _close_ports(network: PodNetwork, attachment: Attachment) -> None:
    try:
        await network.nft.run(hostport.plan_delete(attachment))
    except NftError:
        # Somebody flushed the table, or a call was cut off between record and rule: write the whole table anew.
        others = [a for a in network.ipam.attachments() if a.key != attachment.key]
        await network.nft.run(hostport.plan(others, network.families))
