"""`k1s secrets-encrypt status|enable|disable|prepare|rotate|rotate-keys|reencrypt`: Secrets at rest. Names are k3s'.

Owns: those verbs. Called by: cli/main. Never does: touch keys or the database (the server does).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from k1s.cli.admin import Cluster, Parser, add_kubeconfig, ask
from k1s.cli.errors import UserError

_PATH = "/v1-k1s/encrypt/"
_VERBS = {
    "status": "say whether Secrets are encrypted, with which key",
    "enable": "encrypt Secrets from now on, and those that are there",
    "disable": "store Secrets as they are from now on, and decrypt those that are there",
    "rotate-keys": "make a new key, encrypt everything with it and drop the old one (prepare, rotate and reencrypt in one)",
    "prepare": "make a new key that is not written with yet",
    "rotate": "write with the new key from now on",
    "reencrypt": "encrypt everything with the present key and drop older ones",
}
_NEXT = {"prepare": "next: k1s secrets-encrypt rotate", "rotate": "next: k1s secrets-encrypt reencrypt"}


def run(words: Sequence[str]) -> int:
    parser = Parser(prog="k1s secrets-encrypt", description="Secrets encrypted at rest.")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    for name, text in _VERBS.items():
        verb = verbs.add_parser(name, help=text)
        add_kubeconfig(verb)
        if name == "status":
            verb.add_argument("-o", "--output", choices=("text", "json"), default="text")
    given = parser.parse_args(words[1:])
    if given.verb == "status":
        found: dict[str, Any] = ask(given.kubeconfig, _status)
        print(json.dumps(found, indent=1) if given.output == "json" else _text(found))
        return 0

    async def work(cluster: Cluster) -> dict[str, Any]:
        return await _do(cluster, given.verb)

    result = ask(given.kubeconfig, work)
    if result["failed"]:
        raise UserError(f"{result['failed']} (what was done is kept: run 'k1s secrets-encrypt reencrypt' again)")
    print(_NEXT.get(given.verb) or f"{given.verb}: done, {result['total']} values looked at")
    return 0


async def _status(cluster: Cluster) -> dict[str, Any]:
    out: dict[str, Any] = json.loads(await cluster.client.raw("GET", _PATH + "status"))
    return out


async def _do(cluster: Cluster, verb: str) -> dict[str, Any]:
    last: dict[str, Any] = {}
    async for line in cluster.client.lines("POST", _PATH + verb):
        last = json.loads(line)
        if last["total"] and not last["finished"] and sys.stderr.isatty():
            print(f"\r{last['done']} of {last['total']}", end="", file=sys.stderr, flush=True)
    if last.get("total") and sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    if not last.get("finished"):
        raise UserError("the server ended before it was done; it goes on when it starts again (see 'k1s secrets-encrypt status')")
    return last


def _text(found: dict[str, Any]) -> str:
    state = "Enabled" if found["enabled"] else "Disabled"
    lines = [f"Encryption Status: {state}"]
    if found["static"]:
        lines.append("Keys: kept in the file named by --encryption-provider-config")
    else:
        lines.append(f"Current Rotation Stage: {found['stage']}")
    if found["resources"]:
        lines.append(f"Resources: {', '.join(found['resources'])}")
    progress = found["progress"]
    if not progress["finished"]:
        lines.append(f"Rewriting: {progress['done']} of {progress['total']}")
    if progress["failed"]:
        lines.append(f"Rewriting failed: {progress['failed']}")
    if found["keys"]:
        lines += ["", "Active  Key Type  Name", "------  --------  ----"]
        lines += [f" {'*' if key['active'] else ' '}      {key['type']:<8}  {key['name']}" for key in found["keys"]]
    return "\n".join(lines)
