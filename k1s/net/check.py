"""What on this host would keep the pod network from working.

Owns: the questions and the advice. Called by: cli check-config. Never does: change anything.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from k1s.net import underlay
from k1s.net.family import Network
from k1s.net.nft import NftContext, NftError
from k1s.net.overlay import plan, vxlan


def problems(
    resolv_conf: str = "/etc/resolv.conf",
    *,
    backend: str = plan.VXLAN_BACKEND,
    node_ip: str = "",
    pods: Sequence[Network] = (),
    services: Sequence[Network] = (),
) -> list[str]:
    """One line a problem, with what to do about it. Needs root; synchronous. `pods` and `services` are the cluster's ranges."""
    host = underlay.look(node_ip)
    unfit = underlay.faults(host, backend, node_ip, pods, services)
    found = [*_rules(backend), *_links(backend), *unfit, *_resolvers(Path(resolv_conf))]
    if not Path("/proc/sys/net/ipv4/ip_forward").exists():
        found.append("this kernel has no IPv4 forwarding")
    return found


def _rules(backend: str) -> list[str]:
    try:
        context = NftContext()
    except NftError as error:
        return [str(error)]
    try:
        found = [line for feature, text in _FEATURES.items() if (line := _try(context, feature, text))]
        return found + _dropping(context, backend)
    finally:
        context.close()


# Made and removed in one transaction that is only checked by being refused or not: the table is gone when it returns.
_FEATURES = {
    "address translation (nft_nat, nft_masq, nft_chain_nat)": "chain c {\ntype nat hook postrouting priority 100\nmasquerade\n}",
    "local address lookup (nft_fib_inet)": "chain c {\nfib daddr type local accept\n}",
    "random numbers in rules (nft_numgen)": "chain c {\nnumgen random mod 2 0 accept\n}",
    "rejecting (nft_reject_inet)": "chain c {\nreject\n}",
}


def _try(context: NftContext, feature: str, text: str) -> str:
    table = f"ip k1s-check{os.getpid()}"
    try:
        context.run(f"table {table} {{\n{text}\n}}\ndelete table {table}\n")
    except NftError as error:
        return f"nftables lacks {feature}: {str(error).splitlines()[0]}"
    return ""


def _dropping(context: NftContext, backend: str) -> list[str]:
    """Accepting in a table of ours does not help against a drop in another one, so people have to be told."""
    tunnel = backend == plan.VXLAN_BACKEND
    found = []
    for item in context.query("list chains"):
        chain = item.get("chain") or {}
        if chain.get("policy") != "drop" or chain.get("family") not in ("ip", "inet"):
            continue
        name = f"{chain['family']} {chain['table']} {chain['name']}"
        if chain.get("hook") == "forward":
            links = ["iifname k1s0", "oifname k1s0", *(["oifname k1s-vxlan"] if tunnel else [])]
            rules = "; ".join(f"nft insert rule {name} {match} accept" for match in links)
            found.append(
                f"nftables chain {name} drops what it does not know (docker and ufw do this): pods will not reach other hosts. "
                f"Allow it there, for example: {rules}"
            )
        elif chain.get("hook") == "input":
            needed = ["iifname k1s0", *([f"udp dport {vxlan.PORT}"] if tunnel else [])]
            rules = "; ".join(f"nft insert rule {name} {match} accept" for match in needed)
            found.append(
                f"nftables chain {name} drops what it does not know: unless it has rules for them, pods will not resolve names"
                + (" and not reach those of other hosts" if tunnel else "")
                + f". Allow it there, for example: {rules}"
            )
    return found


def _links(backend: str) -> list[str]:
    """Device kinds that need a kernel module; asked by trying in no namespace but our own would leave traces, so by name."""
    release = os.uname().release
    builtin = Path(f"/lib/modules/{release}/modules.builtin")
    found = []
    needed = ("bridge", "veth", "nf_conntrack_netlink", *(("vxlan",) if backend == plan.VXLAN_BACKEND else ()))
    for module in needed:
        loaded = Path(f"/sys/module/{module}").exists()
        available = builtin.exists() and f"/{module}.ko" in builtin.read_text()
        available = available or any(Path(f"/lib/modules/{release}").rglob(f"{module}.ko*"))
        # Without a module tree nothing can be said: many small systems have everything built in and list nothing.
        if builtin.exists() and not loaded and not available:
            found.append(f"kernel module {module} is missing")
    return found


def _resolvers(resolv_conf: Path) -> list[str]:
    from k1s.net.dns.forward import resolvers_in

    try:
        text = resolv_conf.read_text(errors="replace")
    except OSError as error:
        return [f"{resolv_conf}: {os.strerror(error.errno or errno.EIO)}: pods will not resolve names outside the cluster"]
    if not resolvers_in(text, ()):
        return [f"{resolv_conf} names no resolver: pods will not resolve names outside the cluster"]
    return []
