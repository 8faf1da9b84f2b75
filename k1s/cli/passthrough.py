"""`k1s kubectl`, `k1s helm` and `k1s ctr`: the real programs, pointed at this cluster.

Owns: which kubeconfig or socket they get. Called by: cli/main. Never does: interpret their arguments.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from k1s.base.process import ProgramMissing, child_environment, require_binary
from k1s.cli.errors import UserError

KUBECONFIG = Path("/etc/k1s/k1s.yaml")
CONTAINERD_SOCKET = Path("/run/k1s/containerd/containerd.sock")


def run(words: Sequence[str]) -> int:
    """Replace this process by the program; returns only on failure."""
    verb, *rest = words
    try:
        program = require_binary(verb)
    except ProgramMissing as error:
        raise UserError(str(error)) from error
    env = child_environment()
    if verb == "ctr":
        arguments = ["ctr", "--address", str(CONTAINERD_SOCKET), "--namespace", "k8s.io", *rest]
    else:
        arguments = [verb, *rest]
        if not env.get("KUBECONFIG") and KUBECONFIG.exists():
            if not os.access(KUBECONFIG, os.R_OK):
                raise UserError(
                    f"{KUBECONFIG} is not readable by you: use sudo, or start the server with --write-kubeconfig-mode 644"
                )
            env["KUBECONFIG"] = str(KUBECONFIG)
    os.execve(program, arguments, env)
    return 70
