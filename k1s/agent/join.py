"""How this machine gets its credentials: once with a token, later with what it has.

Owns: `ensure_credentials`, `renew`, `leave`. Called by: agent/app (first of all), agent/certificates.
Never does: make the Node object. The server's side is server/join.

Keys are made on this machine (agent/key_requests) and never leave. The server's CA is checked against the hash in the token
before the secret is sent; a token without the hash is refused. A machine that has joined starts without token and without
server: everything it needs lies in its files.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import orjson

from k1s.agent import key_requests
from k1s.agent.config import AgentConfig
from k1s.agent.identity import IdentityFiles, JoinResult
from k1s.agent.join_request import ClockWrong, JoinError, Unreachable, clock_fault, fetch_ca, get, post, server_urls
from k1s.agent.load_balancer import known_servers, servers_file
from k1s.base import pki
from k1s.base.backoff import Backoff
from k1s.base.clock import REAL_CLOCK, Clock
from k1s.base.files import read_if_exists
from k1s.base.host import default_address, host_name

log = logging.getLogger("k1s.agent.join")

# A start with a server that is away is not held up for longer.
_GLANCE = 1.0
_RETRY = Backoff(initial=0.1, maximum=15.0)
# A server beside us is usually a moment away: only a longer silence is worth a line. Then every so many tries.
_QUIET_TRIES, _TRIES_PER_LINE = 4, 20
_WHOLE_TOKEN = re.compile(r"K10[0-9a-f]{64}::\S+")
_WHICH_TOKEN = "on the server, the file node-token in its data directory has one, and 'k1s token create' makes one"


async def ensure_credentials(config: AgentConfig, clock: Clock = REAL_CLOCK, *, anew: bool = False) -> JoinResult:
    """Credentials for this node, asked for if need be; waits while the server cannot be reached. Raises JoinError.

    `anew`: those it has are of no use, as the server said.
    """
    files = IdentityFiles(config.tls_dir)
    name, address = node_identity(config)
    if not config.node_ip and files.known_addresses().partition(",")[0] == address:
        # The host has not moved: its address of the other family, which is found out later, is most likely the same, too.
        address = files.known_addresses()
    token = find_token(config)
    given = server_urls(config.server or files.known_server() or _server_needed())
    servers = ",".join(given)
    known = None if anew else files.result(name, address, servers)
    if known is not None and _WHOLE_TOKEN.fullmatch(token) and token.partition("::")[0] != files.ca_hash():
        log.warning("the token is for another cluster than this machine's certificates: joining anew")
        known = None
    if known is not None and not files.expired(clock.now()):
        if await asyncio.to_thread(_refresh, files, given[0], clock.now()):
            known = files.result(name, address, servers)
        return known or _incomplete()
    if known is None:
        _check_token(config, token)
    me, failures = _Asker(files, name, address, servers, clock), 0
    while True:
        try:
            if known is not None:
                await asyncio.to_thread(_try_each, _with_learned(config, given), me.renew)
            else:
                await asyncio.to_thread(_try_each, given, partial(me.join, token=token))
            break
        except JoinError as error:
            if known is None or not token:
                raise
            log.warning("the old certificates are of no use (%s): joining anew", error)
            _check_token(config, token)
            known = None
        except Unreachable as error:
            failures += 1
            _tell(error, failures)
            await clock.sleep(_RETRY.delay(failures))
    return files.result(name, address, servers) or _incomplete()


async def renew(config: AgentConfig, addresses: str, clock: Clock = REAL_CLOCK) -> None:
    """New certificates for the same keys, by the present certificate. Raises JoinError, ConnectionError."""
    name, _ = node_identity(config)
    files = IdentityFiles(config.tls_dir)
    me = _Asker(files, name, addresses, files.known_server(), clock)
    try:
        await asyncio.to_thread(_try_each, _with_learned(config, server_urls(config.server or me.servers)), me.renew)
    except Unreachable as error:
        raise ConnectionError(str(error)) from error


def leave(config: AgentConfig) -> bool:
    """The cluster has removed this node: forget it, if there is a token to join again with. Whether there is one.

    A node may have been removed because somebody stole its key: the next identity has another.
    """
    if not find_token(config):
        return False
    IdentityFiles(config.tls_dir).discard_keys()
    return True


def node_identity(config: AgentConfig) -> tuple[str, str]:
    """This node's name and address: as configured, else the host's name and the address of the default route."""
    name = (config.node_name or host_name()).lower()
    return name, config.node_ip or default_address()


def find_token(config: AgentConfig) -> str:
    """The token, "" if there is none: a machine that has joined does not need it any more."""
    if config.token or not config.token_file:
        return config.token.strip()
    try:
        return (read_if_exists(Path(config.token_file)) or b"").decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise JoinError(f"--token-file: {config.token_file} cannot be read: {error}") from error


def _incomplete() -> NoReturn:
    raise JoinError("the server's answer is incomplete")


def _server_needed() -> str:
    raise JoinError("this machine has not joined yet: say which server, with --join https://server:6443, and --token")


def _check_token(config: AgentConfig, token: str) -> None:
    """A token that this machine can join with. Raises JoinError."""
    if not token and config.token_file:
        raise JoinError(f"--token-file: there is no token in {config.token_file}")
    if not token:
        raise JoinError(f"this machine has not joined yet: it needs --token ({_WHICH_TOKEN})")
    if not _WHOLE_TOKEN.fullmatch(token):
        raise JoinError(
            "the token is not a whole one (K10...::...): without the hash of the server's CA the server cannot be verified; "
            + _WHICH_TOKEN
        )


def _refresh(files: IdentityFiles, server: str, now: float) -> bool:
    """Ask the server, if it answers soon, for its settings and the time; whether the settings are new."""
    try:
        answer = get(server, "/v1-k1s/settings", files.server_ca, files.client, _GLANCE, now)
        settings = orjson.loads(answer.body)
    except ClockWrong as error:
        log.warning("%s: %s", server, error)
        return False
    except (JoinError, Unreachable, orjson.JSONDecodeError) as error:
        log.debug("%s: %s", server, error)
        return False
    fault = clock_fault(answer.server_time, now)
    if fault:
        log.warning("%s", fault)
    try:
        changed = isinstance(settings, dict) and files.update_settings(settings)
    except OSError as error:  # a full disk, most likely: no reason not to start with the old ones
        log.warning("the server's settings cannot be written: %s", error)
        return False
    if changed:
        log.info("the server has other settings than before: %s", settings)
    return changed


def _with_learned(config: AgentConfig, servers: list[str]) -> list[str]:
    return server_urls(known_servers(servers, servers_file(config.agent_dir)))


def _try_each(servers: list[str], ask: Callable[[str], None]) -> None:
    """Until one answers. Raises JoinError, Unreachable."""
    faults: list[Unreachable] = []
    for server in servers:
        try:
            ask(server)
            return
        except Unreachable as error:
            faults.append(type(error)(f"{server}: {error}"))
    raise next((fault for fault in faults if isinstance(fault, ClockWrong)), Unreachable("; ".join(map(str, faults))))


def _tell(error: Unreachable, failures: int) -> None:
    first = 1 if isinstance(error, ClockWrong) else _QUIET_TRIES
    loud = failures == first or failures % _TRIES_PER_LINE == 0
    log.log(logging.WARNING if loud else logging.DEBUG, "%s; trying again until it answers", error)


@dataclass(slots=True)
class _Asker:
    """This machine as a server sees it. `servers`: those to remember."""

    files: IdentityFiles
    name: str
    addresses: str
    servers: str
    clock: Clock
    # Made once: they take a process of their own, and a server may have to be asked many times.
    requests: list[str] = field(default_factory=list)

    def join(self, server: str, *, token: str) -> None:
        prefix, _, secret = token.partition("::")
        first = fetch_ca(server)
        if not hmac.compare_digest(prefix, f"K10{pki.ca_hash(first.body)}"):
            raise JoinError(
                f"{server} is not the server that the token is for: its CA has another hash. The token was not sent; "
                + _WHICH_TOKEN
            )
        fault = clock_fault(first.server_time, self.clock.now())
        if fault:
            log.warning("%s", fault)
        headers = {"Authorization": f"Bearer {secret}"}
        answer = post(server, "/v1-k1s/join", orjson.dumps(self._requests()), headers, first.body, self.clock.now())
        # What is left of another cluster must not be taken for half of this one's.
        self.files.discard()
        self._keep(answer)

    def renew(self, server: str) -> None:
        files = self.files
        body = orjson.dumps({**self._requests(), "certificate": files.client[0].read_text()})
        signature = pki.sign(files.client[1].read_bytes(), body)
        headers = {"X-K1s-Signature": base64.b64encode(signature).decode()}
        answer = post(server, "/v1-k1s/renew", body, headers, files.server_ca.read_bytes(), self.clock.now())
        self._keep(answer)

    def _keep(self, answer: dict[str, Any]) -> None:
        try:
            self.files.store(self.name, self.addresses, self.servers, answer)
        except OSError as error:
            raise JoinError(f"the certificates cannot be written: {error}") from error
        except (KeyError, AttributeError) as error:
            raise JoinError(f"the server's answer is incomplete: {error}") from error

    def _requests(self) -> dict[str, Any]:
        if not self.requests:
            try:
                self.requests = key_requests.make(self.name, (self.files.client[1], self.files.serving[1]))
            except key_requests.RequestsFailed as error:
                raise JoinError(f"the node's certificate requests could not be made: {error}") from error
        client, serving = self.requests
        return {
            "node": self.name,
            "addresses": [part for part in self.addresses.split(",") if part],
            "clientRequest": client,
            "servingRequest": serving,
        }
