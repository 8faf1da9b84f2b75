"""CNI CHECK and STATUS: is a sandbox still wired as ADD left it?

Owns: the comparison. Called by: cni.service. Never does: repair.
"""

from __future__ import annotations

from collections.abc import Sequence

from k1s.net import link, names, netns
from k1s.net.cni.call import CHECK_FAILED, NOT_AVAILABLE, Call, CniError
from k1s.net.cni.node import PodNetwork


async def check(network: PodNetwork, call: Call) -> None:
    """Raises CniError with the first difference."""
    call.require("container_id", "interface", "netns")
    attachment = network.ipam.find(call.container_id, call.interface)
    if attachment is None:
        raise CniError(CHECK_FAILED, f"sandbox {call.container_id} has no address")
    fault = await network.in_thread(lambda: _fault(call, attachment.addresses))
    if fault:
        raise CniError(CHECK_FAILED, fault)


async def status(network: PodNetwork) -> None:
    """Can pods be wired now? Raises CniError if not."""
    if await network.in_thread(lambda: link.find(names.BRIDGE)) is None:
        raise CniError(NOT_AVAILABLE, f"bridge {names.BRIDGE} is gone for the moment")


def _fault(call: Call, addresses: Sequence[str]) -> str:
    host_end = names.veth(call.container_id, call.interface)
    if link.find(host_end) is None:
        return f"link {host_end} is gone"
    try:
        with netns.entered(call.netns):
            inside = link.find(call.interface)
            if inside is None or not inside.up:
                return f"interface {call.interface} is missing or down in {call.netns}"
            held = {a.partition("/")[0] for a in link.addresses(call.interface)}
            for address in addresses:
                if address not in held:
                    return f"interface {call.interface} does not have the address {address}"
    except (netns.NetnsError, link.LinkError) as error:
        return str(error)
    return ""
