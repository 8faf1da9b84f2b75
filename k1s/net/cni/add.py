"""CNI ADD: a sandbox gets its interface, address and host ports.

Owns: the order of the steps and taking them back when one fails. Called by: cni.service.
Never does: choose the address (ipam), know how a link is made (link).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from k1s.net import hostport, link, names, netns
from k1s.net.cni.call import FAILED, INVALID_CONFIG, Call, CniError, result, version_of
from k1s.net.cni.node import PodNetwork
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
        mac = await network.in_thread(lambda: _wire(network, attachment, again=again))
        await _open_ports(network, attachment, again=again)
    except (link.LinkError, netns.NetnsError, NftError, OSError) as error:
        await network.in_thread(lambda: link.delete(names.veth(*attachment.key)))
        network.ipam.release(*attachment.key)
        raise CniError(FAILED, f"pod {call.pod or call.container_id}: {error}") from error
    return _result(version, network, attachment, mac)


def _wire(network: PodNetwork, attachment: Attachment, *, again: bool) -> str:
    """The veth pair and the pod's side of it; returns the pod interface's hardware address. In a worker thread."""
    host_end = names.veth(*attachment.key)
    pod = link.PodInterface(attachment.interface, attachment.address, str(network.ipam.gateway), network.mtu)
    if again:
        # A call that was cut off (agent killed, runtime's time-out) may have left half of a pair.
        link.delete(host_end)
    try:
        descriptor = os.open(attachment.netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise netns.NetnsError(f"network namespace {attachment.netns}: {error.strerror}") from error
    try:
        link.add_veth(host_end, pod, network.bridge, descriptor)
    finally:
        os.close(descriptor)
    _quiet(host_end)
    with netns.entered(attachment.netns):
        return link.configure_pod(pod)


def _quiet(name: str) -> None:
    """No IPv6 link-local address, router solicitations and multicast reports from the bridge's port."""
    path = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    if path.exists():
        path.write_text("1")


async def _open_ports(network: PodNetwork, attachment: Attachment, *, again: bool) -> None:
    if not attachment.ports:
        return
    if again:
        await network.nft.run(hostport.plan(network.ipam.attachments()))
    else:
        await network.nft.run(hostport.plan_add(attachment))


def _result(version: str, network: PodNetwork, attachment: Attachment, mac: str) -> dict[str, Any]:
    gateway, bits = str(network.ipam.gateway), network.ipam.network.max_prefixlen
    return result(
        version,
        [
            {"name": names.BRIDGE, "mac": network.bridge_mac},
            {"name": names.veth(*attachment.key)},
            {"name": attachment.interface, "mac": mac, "sandbox": attachment.netns},
        ],
        [{"address": f"{attachment.address}/{bits}", "gateway": gateway, "interface": 2}],
        [{"dst": "0.0.0.0/0" if bits == 32 else "::/0", "gw": gateway}],
    )
