"""Starting other programs from k1s.

Owns: the environment that children get and where bundled binaries are looked for. Called by: everything that runs containerd,
runc, ctr, mount, nft. Never does: run anything through a shell.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping


def child_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Our environment without what the one executable's loader put in, and without secrets of ours.

    A frozen program points LD_LIBRARY_PATH at its own libraries; the host's programs must not load those.
    """
    out = {name: value for name, value in environ.items() if name not in ("K1S_TOKEN", "LD_LIBRARY_PATH_ORIG")}
    original = environ.get("LD_LIBRARY_PATH_ORIG")
    if original is not None:
        out["LD_LIBRARY_PATH"] = original
    elif "K1S_EXE" in environ:
        out.pop("LD_LIBRARY_PATH", None)
    return out


def find_binary(name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The bundled program of that name (in $K1S_BIN_DIR), else the host's; None if there is neither."""
    bundled = environ.get("K1S_BIN_DIR", "")
    if bundled:
        path = os.path.join(bundled, name)
        if os.access(path, os.X_OK):
            return path
    search = os.pathsep.join(
        [environ.get("PATH", ""), "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    )
    return shutil.which(name, path=search)


def own_command() -> list[str]:
    """How this program starts itself with another verb."""
    return [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "k1s.cli.main"]


class ProgramMissing(Exception):
    """A program that k1s needs is not on this host; the message says how to get it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not installed: not beside k1s and not in PATH (apt-get install {_PACKAGES.get(name, name)})")


_PACKAGES = {"containerd-shim-runc-v2": "containerd", "ctr": "containerd"}


def require_binary(name: str) -> str:
    """As find_binary; raises ProgramMissing."""
    path = find_binary(name)
    if path is None:
        raise ProgramMissing(name)
    return path


def bundled_file(name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """A file that came with k1s (in $K1S_BIN_DIR)."""
    path = os.path.join(environ.get("K1S_BIN_DIR", ""), name)
    return path if environ.get("K1S_BIN_DIR") and os.path.exists(path) else None


def limit_malloc_arenas(count: int = 2) -> None:
    """Fewer arenas for the C library's malloc: each thread would get one of its own, some megabytes that never shrink again.

    Only arenas made afterwards are limited, so call it before threads start. Does nothing where libc has no mallopt (musl).
    """
    import ctypes

    try:
        ctypes.CDLL(None).mallopt(-8, count)  # M_ARENA_MAX
    except AttributeError:
        return


def release_free_memory() -> None:
    """What the C library's malloc holds but nobody uses goes back to the system. Some milliseconds after a burst, else less.

    Does nothing where libc has no malloc_trim (musl).
    """
    import ctypes

    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        return
