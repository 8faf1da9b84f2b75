"""Where the programs that k1s starts are found.

Owns: the search order: $K1S_BIN_DIR (the one executable and `make up` set it), then PATH. Called by: cli, agent.
Never does: start them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


class ProgramMissing(Exception):
    """A program that k1s needs is not on this host; the message says how to get it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not installed: not beside k1s and not in PATH (apt-get install {_PACKAGES.get(name, name)})")


_PACKAGES = {"containerd-shim-runc-v2": "containerd", "ctr": "containerd"}


def bundled(name: str) -> Path | None:
    """A file of that name that came with k1s."""
    directory = os.environ.get("K1S_BIN_DIR")
    if not directory:
        return None
    path = Path(directory) / name
    return path if path.exists() else None


def find(name: str) -> Path | None:
    """The program, or None."""
    here = bundled(name)
    if here is not None:
        return here
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin")
    return Path(found) if found else None


def require(name: str) -> Path:
    """The program; raises ProgramMissing."""
    path = find(name)
    if path is None:
        raise ProgramMissing(name)
    return path


def clean_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for child programs: without what a frozen k1s sets for itself, bundled programs first in PATH."""
    env = dict(os.environ if environ is None else environ)
    original = env.pop("LD_LIBRARY_PATH_ORIG", None)
    if original is not None:
        env["LD_LIBRARY_PATH"] = original
    elif "_PYI_ARCHIVE_FILE" in env or "_MEIPASS2" in env:
        env.pop("LD_LIBRARY_PATH", None)
    directory = env.get("K1S_BIN_DIR")
    path = env.get("PATH") or "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    env["PATH"] = f"{directory}:{path}" if directory else path
    return env
