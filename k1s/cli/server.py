"""`k1s server`: the control plane, and a node beside it.

Owns: its flags, what is checked before anything is touched, signals. Called by: cli/main. Never does: start parts (server/app).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from k1s.agent.config import AgentConfig
from k1s.base import log
from k1s.base.config import ConfigError, as_flags, load_all
from k1s.base.host import host_name
from k1s.base.process import own_command
from k1s.cli import check_config, ranges
from k1s.cli.errors import EXIT_FAULT, UserError
from k1s.cli.runner import run_until_signal
from k1s.cli.steps import Steps
from k1s.net.family import parse_network
from k1s.server.config import ServerConfig
from k1s.server.controllers.service_lb_pool import PoolError, configured_pools

CONFIG_FILE = Path("/etc/k1s/config.yaml")


def run(words: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT."""
    server, agent = load_all(
        (ServerConfig, AgentConfig),
        words[1:],
        program="k1s server",
        description="Run the control plane, and a node beside it.",
        config_file=CONFIG_FILE,
    )
    log.configure(debug=server.debug)
    agent = dataclasses.replace(agent, node_ip=ranges.node_addresses(agent.node_ip))
    advertised = server.advertise_address or agent.node_ip.partition(",")[0]
    server = dataclasses.replace(server, cluster_dns=cluster_dns(server), advertise_address=advertised)
    _check(server)
    if not server.disable_agent:
        for finding in check_config.missing_for_agent():
            raise UserError(f"{finding.name}: {finding.remedy} (or start with --disable-agent)")
    from k1s.server import app

    steps = Steps()
    try:
        run_until_signal(
            app.run(
                server,
                agent_argv(server, agent),
                run_dir=agent.run_dir,
                node_name=(agent.node_name or host_name()).lower(),
                step=steps.done,
                ready=steps.ready,
            )
        )
    except app.StartError as error:
        raise UserError(str(error)) from error
    except Exception:
        import logging

        logging.getLogger("k1s").exception("the server ended by a fault")
        return EXIT_FAULT
    return 0


def agent_argv(server: ServerConfig, agent: AgentConfig) -> list[str]:
    """The command of the agent beside the server; its token stays in a file."""
    local = dataclasses.replace(
        agent,
        server=f"https://127.0.0.1:{server.https_listen_port}",
        token="",
        token_file=str(server.node_token_file),
        supervised=True,
    )
    # A config file of the server must not be read again by the agent: it is in these flags already.
    return [*own_command(), "agent", "--config", os.devnull, *as_flags(local)]


def cluster_dns(config: ServerConfig) -> str:
    """What was chosen; else, as with k3s, the tenth address of each service range."""
    if config.cluster_dns != ServerConfig().cluster_dns:
        return ",".join(text.strip() for text in config.cluster_dns.split(","))
    ranges = [parse_network(part.strip()) for part in config.service_cidr.split(",")]
    return ",".join(str(found[10]) for found in ranges if found is not None and found.num_addresses > 10) or config.cluster_dns


def _check(config: ServerConfig) -> None:
    ranges.check(config.cluster_cidr, config.service_cidr, config.network_backend)
    services = ranges.parse("service-cidr", config.service_cidr)
    versions = set()
    for text in config.cluster_dns.split(","):
        try:
            dns = ipaddress.ip_address(text)
        except ValueError as error:
            raise ConfigError(f"--cluster-dns: {error}") from error
        if not any(dns in found for found in services if found.version == dns.version):
            raise ConfigError(f"--cluster-dns {dns} is not in --service-cidr {config.service_cidr}")
        if dns.version in versions:
            raise ConfigError(f"--cluster-dns {config.cluster_dns}: one address of each family is possible")
        versions.add(dns.version)
    try:
        configured_pools(config.loadbalancer_pool, config.cluster_cidr, config.service_cidr)
    except PoolError as error:
        raise ConfigError(str(error)) from error
    try:
        if config.advertise_address:
            ipaddress.ip_address(config.advertise_address)
    except ValueError as error:
        raise ConfigError(f"--advertise-address (or --node-ip): {error}") from error
    if not 0 < config.https_listen_port < 65536:
        raise ConfigError(f"--https-listen-port: {config.https_listen_port} is not a port")
    try:
        mode = int(config.write_kubeconfig_mode, 8)
    except ValueError as error:
        raise ConfigError(
            f"--write-kubeconfig-mode: {config.write_kubeconfig_mode!r} is not an octal mode such as 600"
        ) from error
    if not 0 <= mode <= 0o777:
        raise ConfigError(f"--write-kubeconfig-mode: {config.write_kubeconfig_mode!r} is not an octal mode such as 600")
    low, _, high = config.service_node_port_range.partition("-")
    if not (low.isdigit() and high.isdigit() and 0 < int(low) <= int(high) < 65536):
        raise ConfigError(f"--service-node-port-range: {config.service_node_port_range!r} is not a range such as 30000-32767")
