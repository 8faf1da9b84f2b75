"""`k1s token create|list|delete|rotate`: what machines join with.

Owns: these verbs and what they print. Called by: cli/main. Never does: show a secret again once it was made (list), restart
anything (the server reads its files at each join).

`rotate` is for the node token in the server's data directory, which never expires; the others live in the cluster.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from k1s.api import bootstrap_token
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.cli.admin import Cluster, Parser, add_kubeconfig, ask, server_config
from k1s.cli.errors import UserError

SECRET = builtin("Secret")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+[smhd])+")
_LONGEST_DESCRIPTION = 256


def run(words: Sequence[str]) -> int:
    parser = Parser(prog="k1s token", description="Tokens that machines join the cluster with.")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    create = verbs.add_parser("create", help="make a token and print it")
    create.add_argument("--ttl", metavar="TIME", default="24h", help="how long it is good for, such as 30m, 24h, 7d; 0: for ever")
    create.add_argument("--description", metavar="TEXT", default="", help="what it is for")
    add_kubeconfig(create)
    listing = verbs.add_parser("list", help="show the tokens, without their secrets")
    add_kubeconfig(listing)
    delete = verbs.add_parser("delete", help="make tokens useless; nodes that have joined do not care")
    delete.add_argument("token", metavar="TOKEN", nargs="+", help="a token or its id")
    add_kubeconfig(delete)
    rotate = verbs.add_parser("rotate", help="replace the node token in the server's data directory, and print the new one")
    rotate.add_argument(
        "--data-dir", "-d", metavar="DIR", default="", help="the server's data directory (default: as configured)"
    )
    given = parser.parse_args(words[1:])
    verb: Callable[[argparse.Namespace], int] = {"create": _create, "list": _list, "delete": _delete, "rotate": _rotate}[
        given.verb
    ]
    return verb(given)


def _create(given: argparse.Namespace) -> int:
    seconds = parse_ttl(given.ttl)
    description = " ".join(given.description.split())
    if len(description) > _LONGEST_DESCRIPTION:
        raise UserError(f"--description may not be longer than {_LONGEST_DESCRIPTION} characters")
    identity, secret = bootstrap_token.new_token()

    async def work(cluster: Cluster) -> bytes:
        expires = time.time() + seconds if seconds else None
        await cluster.client.create(SECRET, bootstrap_token.new_secret(identity, secret, description, expires))
        return cluster.ca

    from k1s.server.tokens import whole

    print(whole(ask(given.kubeconfig, work), f"{identity}.{secret}"))
    return 0


def _list(given: argparse.Namespace) -> int:
    async def work(cluster: Cluster) -> list[dict[str, Any]]:
        fields = f"type={bootstrap_token.TYPE}"
        return await cluster.client.list(SECRET, bootstrap_token.NAMESPACE, field_selector=fields)

    print(table(ask(given.kubeconfig, work), time.time()))
    return 0


def _delete(given: argparse.Namespace) -> int:
    names = [_id_of(text) for text in given.token]

    async def work(cluster: Cluster) -> list[str]:
        missing = []
        for name in names:
            try:
                await cluster.client.delete(SECRET, bootstrap_token.secret_name(name), bootstrap_token.NAMESPACE)
                print(f'token "{name}" deleted')
            except ApiError as error:
                if error.code != 404:
                    raise
                missing.append(name)
        return missing

    missing = ask(given.kubeconfig, work)
    if missing:
        raise UserError(f"no such token: {', '.join(missing)} (see 'k1s token list')")
    return 0


def _rotate(given: argparse.Namespace) -> int:
    from k1s.server import tokens

    config = server_config()
    directory = Path(given.data_dir) / "server" if given.data_dir else config.server_dir
    authority = directory / "tls" / "server-ca.crt"
    if os.access(directory.parent, os.X_OK) and not directory.exists():
        raise UserError(f"{directory} does not exist: run this where the k1s server runs, or name its --data-dir")
    try:
        print(tokens.rotate(directory, directory / "node-token", authority.read_bytes()))
    except PermissionError as error:
        raise UserError(f"{directory} is not yours to change: use sudo") from error
    except OSError as error:
        raise UserError(f"the token was not rotated: {error}") from error
    return 0


def parse_ttl(text: str) -> int:
    """Seconds; 0 for ever. Raises UserError."""
    if text == "0":
        return 0
    if not _DURATION.fullmatch(text):
        raise UserError(f"--ttl: {text!r} is not a time such as 30m, 24h or 7d (0: for ever)")
    seconds = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", text))
    if not 0 < seconds <= 100 * 365 * _UNITS["d"]:
        raise UserError(f"--ttl: {text!r} is too short or too long (0: for ever)")
    return seconds


def table(secrets: list[dict[str, Any]], now: float) -> str:
    """Rows without secrets, the one that lasts longest first."""
    rows = [("TOKEN ID", "TTL", "EXPIRES", "DESCRIPTION")]

    def left(secret: dict[str, Any]) -> float:
        seconds = bootstrap_token.seconds_left(secret, now)
        return float("inf") if seconds is None else seconds

    for secret in sorted(secrets, key=left, reverse=True):
        fields = [bootstrap_token.field(secret, key) for key in ("token-id", "expiration", "description")]
        rows.append((fields[0], _short(left(secret)), fields[1] or "<never>", fields[2] or "<none>"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("   ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows)


def _short(seconds: float) -> str:
    if seconds == float("inf"):
        return "<forever>"
    if seconds <= 0:
        return "<expired>"
    for unit in ("d", "h", "m"):
        if seconds >= 2 * _UNITS[unit]:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    return f"{int(seconds)}s"


def _id_of(text: str) -> str:
    """The id in whatever form of a token. Raises UserError, which does not repeat what may be a secret."""
    rest = text.rpartition("::")[2]
    identity = rest.partition(".")[0]
    if rest.startswith(("node:", "server:")):
        raise UserError("the node token is not deleted but replaced: k1s token rotate")
    if not bootstrap_token.is_id(identity):
        raise UserError("a token's id has six letters and digits (see 'k1s token list')")
    return identity
