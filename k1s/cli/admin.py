"""The cluster as its administrator sees it: a client for the verbs that ask the API server.

Owns: which kubeconfig they use, and the one line for a server that does not answer. Called by: cli/token, cli/node.
Never does: start a server.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k1s.agent.config import AgentConfig
from k1s.api.errors import ApiError
from k1s.base.config import load_all
from k1s.cli.errors import UserError
from k1s.client import kubeconfig
from k1s.client.rest import RestClient
from k1s.client.servers import TransportError
from k1s.client.transport import HttpTransport
from k1s.server.config import ServerConfig

CONFIG_FILE = Path("/etc/k1s/config.yaml")


@dataclass(frozen=True, slots=True)
class Cluster:
    """`ca`: the server's, which stands in tokens."""

    client: RestClient
    ca: bytes


class Parser(argparse.ArgumentParser):
    """Whose faults are one line."""

    def error(self, message: str) -> typing.NoReturn:
        raise UserError(f"{message} (see '{self.prog} --help')")


def add_kubeconfig(parser: argparse.ArgumentParser) -> None:
    text = "credentials to ask the server with (default: $KUBECONFIG, else what the server wrote)"
    parser.add_argument("--kubeconfig", metavar="FILE", default="", help=text)


def server_config() -> ServerConfig:
    """The server's options as its config file and the environment have them."""
    server: ServerConfig = load_all((ServerConfig, AgentConfig), [], program="k1s", description="", config_file=CONFIG_FILE)[0]
    return server


def ask(path: str, work: Callable[[Cluster], Awaitable[Any]]) -> Any:
    """The result of `work`, which is given the cluster of kubeconfig `path`. Raises UserError for whatever went wrong."""
    file = Path(path or os.environ.get("KUBECONFIG", "").partition(":")[0] or server_config().write_kubeconfig)
    if not file.exists():
        raise UserError(f"{file} does not exist: run this where the k1s server runs, or name a kubeconfig with --kubeconfig")
    if not os.access(file, os.R_OK):
        raise UserError(f"{file} is not readable by you: use sudo")
    try:
        credentials = kubeconfig.read(file)
    except kubeconfig.KubeconfigError as error:
        raise UserError(" ".join(str(error).split())) from error
    try:
        return asyncio.run(_asked(credentials, work))
    except TransportError as error:
        raise UserError(f"the server at {credentials.server} does not answer ({error.message}); is it running?") from error
    except ApiError as error:
        raise UserError(error.message) from error


async def _asked(credentials: kubeconfig.Credentials, work: Callable[[Cluster], Awaitable[Any]]) -> Any:
    client = RestClient(HttpTransport(credentials.server, _context(credentials), token=credentials.token), "k1s")
    try:
        return await work(Cluster(client, credentials.ca))
    finally:
        await client.close()


def _context(credentials: kubeconfig.Credentials) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=credentials.ca.decode() or None)
    if credentials.certificate:
        # OpenSSL takes them from a file only; this one has no name.
        descriptor = os.memfd_create("k1s-admin", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, credentials.certificate + credentials.key)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
    return context
