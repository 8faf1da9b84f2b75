"""The command `k1s`: finds the verb and imports only what it needs.

Owns: the verbs, the aliases by argv[0] (kubectl, ctr), and that a user's error is one line on standard error.
Called by: the console script. Never does: the work of a verb.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

# verb -> (module, one line for the help, "" for what only k1s itself calls); each module has `run(argv) -> int`.
VERBS: dict[str, tuple[str, str]] = {
    "server": ("k1s.cli.server", "run the control plane, and a node beside it"),
    "agent": ("k1s.cli.agent", "run a node"),
    "token": ("k1s.cli.token", "make, list, delete and rotate the tokens that machines join with"),
    "node": ("k1s.cli.node", "free a node's name"),
    "secrets-encrypt": ("k1s.cli.secrets_encrypt", "encrypt Secrets at rest, exchange the keys"),
    "kubectl": ("k1s.cli.passthrough", "the real kubectl, with the admin kubeconfig"),
    "helm": ("k1s.cli.passthrough", "the real helm, with the admin kubeconfig"),
    "ctr": ("k1s.cli.passthrough", "containerd's client, on k1s's containerd"),
    "check-config": ("k1s.cli.check_config", "say what this host lacks for running k1s"),
    "stop": ("k1s.cli.stop", "end k1s with all its containers and take back its changes to the host"),
    "uninstall": ("k1s.cli.stop", "stop, and delete all data"),
    "node-requests": ("k1s.agent.key_requests", ""),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns its exit code."""
    arguments = list(sys.argv if argv is None else argv)
    called = os.path.basename(os.environ.get("K1S_EXE") or arguments[0])
    words = [called, *arguments[1:]] if called in ("kubectl", "ctr", "helm") else arguments[1:]
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] in ("-v", "--version", "version"):
        return _version()
    if words[0] not in VERBS:
        print(f"k1s: unknown command {words[0]!r} (see 'k1s --help')", file=sys.stderr)
        return 1
    return _run(words)


def _run(words: list[str]) -> int:
    module = importlib.import_module(VERBS[words[0]][0])
    # Imported here, so that a faulty verb module cannot break `k1s --help`.
    from k1s.base.config import ConfigError
    from k1s.cli.errors import UserError

    try:
        code: int = module.run(words)
        return code
    except (UserError, ConfigError) as error:
        print(f"k1s {words[0]}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _version() -> int:
    from k1s.version import GIT_VERSION, K1S_VERSION

    print(f"k1s {K1S_VERSION} ({GIT_VERSION}, Python {sys.version.split()[0]})")
    return 0


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items() if text]
    return "k1s: Kubernetes for one board up to a rack\n\nusage: k1s COMMAND [OPTION ...]\n\n" + "\n".join(
        [*lines, "", "'k1s COMMAND --help' lists a command's options; 'k1s --version' says what this is."]
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        os._exit(0)
