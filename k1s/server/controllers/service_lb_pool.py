"""Pools of addresses for Services of type LoadBalancer: `--loadbalancer-pool 192.168.1.240-192.168.1.250,fd00:1::/112`.

Owns: reading that text, and which addresses a pool has. Called by: cli/server (checks), server/app (reads),
service_lb_plan. Never does: know who has which address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from k1s.net.family import Address, Network

OPTION = "--loadbalancer-pool"


class PoolError(ValueError):
    """The text is no pool, or one that cannot be; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Addresses from `first` to `last`. `whole_network`: written as a CIDR, so that .0 and .255 are left out."""

    first: Address
    last: Address
    text: str
    whole_network: bool = False

    @property
    def version(self) -> int:
        return self.first.version

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, (ipaddress.IPv4Address, ipaddress.IPv6Address)) or address.version != self.version:
            return False
        return int(self.first) <= int(address) <= int(self.last) and not self._odd(int(address))

    def __iter__(self) -> Iterator[Address]:
        make = type(self.first)
        return (make(number) for number in range(int(self.first), int(self.last) + 1) if not self._odd(number))

    def overlaps(self, network: Network | Pool) -> bool:
        first, last = (network.first, network.last) if isinstance(network, Pool) else (network[0], network[-1])
        return first.version == self.version and int(first) <= int(self.last) and int(self.first) <= int(last)

    def _odd(self, number: int) -> bool:
        """Old stacks take .0 and .255 for broadcast addresses; an IPv6 network's first is that of its routers."""
        if not self.whole_network:
            return False
        return number & 0xFF in (0, 0xFF) if self.version == 4 else number == int(self.first)


def configured_pools(texts: Sequence[str], cluster_cidr: str, service_cidr: str) -> tuple[Pool, ...]:
    """The pools of a server with these options. Raises PoolError."""
    ranges = (("cluster-cidr", cluster_cidr), ("service-cidr", service_cidr))
    return parse_pools(texts, [(flag, part.strip()) for flag, value in ranges for part in value.split(",")])


def parse_pools(texts: Sequence[str], occupied: Iterable[tuple[str, str]] = ()) -> tuple[Pool, ...]:
    """The pools of the option. `occupied`: (flag, CIDR) of ranges that a pool must not touch. Raises PoolError."""
    pools: list[Pool] = []
    for text in texts:
        pool = _parse(text)
        for flag, cidr in occupied:
            if pool.overlaps(ipaddress.ip_network(cidr.strip(), strict=False)):
                raise PoolError(f"{OPTION} {text} overlaps --{flag} {cidr}: take free addresses of the hosts' own network")
        for other in pools:
            if pool.overlaps(other):
                raise PoolError(f"{OPTION} {text} overlaps {other.text}: name each address once")
        pools.append(pool)
    return tuple(pools)


def _parse(text: str) -> Pool:
    try:
        if "-" in text:
            first, last = (ipaddress.ip_address(part.strip()) for part in text.split("-", 1))
            return _checked(Pool(first, last, text))
        if "/" not in text:
            address = ipaddress.ip_address(text)
            return _checked(Pool(address, address, text))
        network = ipaddress.ip_network(text)
    except ValueError as error:
        if isinstance(error, PoolError):
            raise
        raise PoolError(
            f"{OPTION} {text}: {error}; write a range (192.168.1.240-192.168.1.250) or a network (192.168.1.240/28)"
        ) from error
    return _checked(Pool(network[0], network[-1], text, whole_network=network.num_addresses > 2))


def _checked(pool: Pool) -> Pool:
    first, last = pool.first, pool.last
    if first.version != last.version:
        raise PoolError(f"{OPTION} {pool.text}: first and last address must be of one family")
    if int(first) > int(last):
        raise PoolError(f"{OPTION} {pool.text}: the first address is behind the last one")
    for address in (first, last):
        if address.is_multicast or address.is_loopback or address.is_link_local or address.is_unspecified:
            raise PoolError(f"{OPTION} {pool.text}: {address} is not an address that a host of the network may have")
    return pool


def addresses(pools: Iterable[Pool], version: int) -> Iterator[Address]:
    """All of that family, one by one, the lowest of the first pool first: pools may be as large as an IPv6 network."""
    return (address for pool in pools if pool.version == version for address in pool)


def holds(pools: Iterable[Pool], address: Address) -> bool:
    return any(address in pool for pool in pools)
