"""CNI ADD: a sandbox gets its interface, address and host ports.

Owns: the order of the steps and taking them back when one fails. Called by: cni.service.
Never does: choose the address (ipam), know how a link is made (link).
"""

from __future__ import annotations

from typing import Any

from k1s.net import hostport, link, names, netns
from k1s.net.cni.call import FAILED, INVALID_CONFIG, Call, CniError, result, version_of
from k1s.net.cni.node import PodNetwork
from k1s.net.cni.wire import wire
from k1s.net.ipam import Attachment, IpamError
from k1s.net.nft import NftError


async def add(network: PodNetwork, call: Call) -> dict[str, Any]:
    """Wire the sandbox and return the CNI result. Repeating it gives the same address. Raises CniError."""
    call.require("container_id", "interface", "netns")
    version = version_of(call.config)
    try:
        ports = hostport.mappings(call.config.get("runtimeConfig"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CniError(INVALID_CONFIG, f"runtimeConfig.portMappings: {error}") from error
    again = network.ipam.find(call.container_id, call.interface) is not None
    try:
        attachment = network.ipam.reserve(call.container_id, call.interface, call.netns, pod=call.pod, ports=ports)
    except (IpamError, OSError) as error:
        raise CniError(FAILED, str(error)) from error
    try:
        for prepare in network.before_start:
            await prepare(attachment)
        mac = await network.in_thread(lambda: wire(network, attachment, again=again))
        await _open_ports(network, attachment, again=again)
    except (link.LinkError, netns.NetnsError, NftError, OSError) as error:
        await network.in_thread(lambda: link.delete(names.veth(*attachment.key)))
        network.ipam.release(*attachment.key)
        raise CniError(FAILED, f"pod {call.pod or call.container_id}: {error}") from error
    return _result(version, network, attachment, mac)


async def _open_ports(network: PodNetwork, attachment: Attachment, *, again: bool) -> None:
    if not attachment.ports:
        return
    if again:
        await network.nft.run(hostport.plan(network.ipam.attachments(), network.families))
    else:
        await network.nft.run(hostport.plan_add(attachment))


def _result(version: str, network: PodNetwork, attachment: Attachment, mac: str) -> dict[str, Any]:
    gateways: dict[int, str] = {gateway.version: str(gateway) for gateway in network.ipam.gateways}
    ips, routes = [], []
    for address in attachment.addresses:
        number, bits, default = (6, 128, "::/0") if ":" in address else (4, 32, "0.0.0.0/0")
        ips.append({"address": f"{address}/{bits}", "gateway": gateways[number], "interface": 2})
        routes.append({"dst": default, "gw": gateways[number]})
    interfaces = [
        {"name": names.BRIDGE, "mac": network.bridge_mac},
        {"name": names.veth(*attachment.key)},
        {"name": attachment.interface, "mac": mac, "sandbox": attachment.netns},
    ]
    return result(version, interfaces, ips, routes)
