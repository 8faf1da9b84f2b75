"""This node's private keys and the requests for their certificates, made in a child process that ends.

Owns: `make` (in the agent) and `run` (in the child). Called by: agent.join; `run` by cli/main. Never does: talk to a server.
`cryptography` takes 10 MiB, and a process that has loaded it keeps them for good; an agent needs it once a year.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from k1s.base.files import read_if_exists, write_atomic
from k1s.base.process import own_command

VERB = "node-requests"
_SECONDS = 60


class RequestsFailed(Exception):
    """The child failed; the message is what it said."""


def make(name: str, keys: Sequence[Path]) -> list[str]:
    """A certificate request (PEM) of node `name` for each key file; keys that do not exist are made. Blocks."""
    command = [*own_command(), VERB, name, *map(str, keys)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RequestsFailed(str(error)) from error
    if done.returncode == -signal.SIGALRM:
        raise RequestsFailed(f"no answer within {_SECONDS} s")
    if done.returncode != 0:
        raise RequestsFailed(f"exit code {done.returncode}: {' '.join(done.stderr.split())[-400:]}")
    requests: list[str] = json.loads(done.stdout)
    return requests


def run(words: Sequence[str]) -> int:
    """`k1s node-requests NAME KEY ...`: the requests as JSON on standard output."""
    # The child watches over its own time: a parent that does has to look again and again.
    signal.alarm(_SECONDS)
    from k1s.base import pki

    _, name, *keys = words
    subject = pki.Subject(f"system:node:{name}", ("system:nodes",))
    print(json.dumps([pki.make_csr(_key(Path(key)), subject).decode() for key in keys]))
    sys.stdout.flush()
    return 0


def _key(path: Path) -> bytes:
    """The private key in `path`, made if there is none: a join that is tried again asks with the same key."""
    from k1s.base import pki

    key = read_if_exists(path)
    if key is None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.chmod(0o700)
        key = pki.new_key()
        write_atomic(path, key)
    return key
