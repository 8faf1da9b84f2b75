"""The cluster's ranges, network backend and the node's addresses, judged before anything is started.

Owns: what may be said by --cluster-cidr, --service-cidr, --network-backend and --node-ip. Called by: cli/server, cli/agent.
Never does: look at the host. Whether its network clashes with a range is for each node to find out (net.underlay).
"""

from __future__ import annotations

import ipaddress

from k1s.base.config import ConfigError

Range = ipaddress.IPv4Network | ipaddress.IPv6Network

_BACKENDS = ("vxlan", "host-gw", "none")
# A node gets a /64 of it, as upstream gives it.
_LONGEST_IPV6_PODS = 64


def check(cluster_cidr: str, service_cidr: str, backend: str) -> None:
    """Raises ConfigError, one line."""
    pods, services = parse("cluster-cidr", cluster_cidr), parse("service-cidr", service_cidr)
    for mine in pods:
        for other in services:
            if mine.version == other.version and mine.overlaps(other):
                raise ConfigError(f"--cluster-cidr {mine} and --service-cidr {other} overlap")
        if mine.version == 6 and mine.prefixlen > _LONGEST_IPV6_PODS:
            raise ConfigError(f"--cluster-cidr {mine} is too small: every node gets a /{_LONGEST_IPV6_PODS} of it")
    missing = {services.version for services in services} - {pods.version for pods in pods}
    if missing:
        (version,) = missing
        raise ConfigError(
            f"--service-cidr {service_cidr} has a range of IPv{version} and --cluster-cidr {cluster_cidr} has none: "
            "services need pods of their family"
        )
    if backend == "wireguard":
        raise ConfigError("--network-backend wireguard is not there yet: use vxlan, host-gw or none")
    if backend not in _BACKENDS:
        raise ConfigError(f"--network-backend {backend} is not one of {', '.join(_BACKENDS)}")


def node_addresses(text: str) -> str:
    """--node-ip, without what spaces a person put there: one address, or one of each family. Raises ConfigError."""
    try:
        found = [ipaddress.ip_address(part.strip()) for part in text.split(",")] if text else []
    except ValueError as error:
        raise ConfigError(f"--node-ip: {error}") from error
    if len({address.version for address in found}) != len(found):
        raise ConfigError(f"--node-ip {text}: one address of each family is possible (IPv4,IPv6)")
    if any(address.is_unspecified or address.is_multicast for address in found):
        raise ConfigError(f"--node-ip {text} is not an address that a host can have")
    return ",".join(map(str, found))


def parse(flag: str, text: str) -> tuple[Range, ...]:
    """One range, or one of each family; IPv4 must be among them."""
    try:
        found = tuple(ipaddress.ip_network(part.strip()) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--{flag}: {error}") from error
    if len({network.version for network in found}) != len(found):
        raise ConfigError(f"--{flag} {text}: one range of each family is possible (IPv4,IPv6)")
    if not any(network.version == 4 for network in found):
        raise ConfigError(f"--{flag} {text}: an IPv4 range is needed beside it; clusters with IPv6 alone do not work yet")
    return found
