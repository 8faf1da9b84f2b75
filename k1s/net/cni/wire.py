"""A sandbox's pair of links, from the record of its addresses.

Owns: the order of making it. Called by: cni.add, pods that lost theirs (net.repair). Never does: choose addresses, rules.
Everything here blocks: in a worker thread.
"""

from __future__ import annotations

import os
from pathlib import Path

from k1s.net import link, names, netns, veth
from k1s.net.cni.node import PodNetwork
from k1s.net.ipam import Attachment


def wire(network: PodNetwork, attachment: Attachment, *, again: bool) -> str:
    """The veth pair and the pod's side of it; returns the pod interface's hardware address."""
    host_end = names.veth(*attachment.key)
    pod = interface(network, attachment)
    if again:
        # A call that was cut off (agent killed, runtime's time-out) may have left half of a pair.
        link.delete(host_end)
    try:
        descriptor = os.open(attachment.netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise netns.NetnsError(f"network namespace {attachment.netns}: {error.strerror}") from error
    try:
        veth.add(host_end, pod, network.bridge, descriptor)
    finally:
        os.close(descriptor)
    quiet(host_end)
    with netns.entered(attachment.netns):
        _allow_ipv6(pod)
        return veth.configure_pod(pod)


def interface(network: PodNetwork, attachment: Attachment) -> veth.PodInterface:
    versions = {6 if ":" in address else 4 for address in attachment.addresses}
    gateways = tuple(str(gateway) for gateway in network.ipam.gateways if gateway.version in versions)
    return veth.PodInterface(attachment.interface, attachment.addresses, gateways, network.mtu)


def _allow_ipv6(pod: veth.PodInterface) -> None:
    """Namespaces inherit from hosts where IPv6 is turned off. In the pod's namespace."""
    setting = Path(f"/proc/sys/net/ipv6/conf/{pod.name}/disable_ipv6")
    if any(":" in address for address in pod.addresses) and setting.exists() and setting.read_text().strip() != "0":
        setting.write_text("0")


def quiet(name: str) -> None:
    """No IPv6 link-local address, router solicitations and multicast reports from the bridge's port."""
    path = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    if path.exists():
        path.write_text("1")
