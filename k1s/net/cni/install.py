"""Telling containerd about k1s's CNI plugin.

Owns: the conflist and the files in the plugin directory, both private to k1s's containerd.
Called by: agent.network.app, teardown.
Never does: touch /etc/cni or /opt/cni.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib import resources
from pathlib import Path

NETWORK, PLUGIN = "k1s", "k1s-cni"
CONFLIST = "10-k1s.conflist"


class InstallError(Exception):
    """The plugin cannot be put in place."""


def conflist(socket: Path) -> str:
    plugin = {"type": PLUGIN, "socket": str(socket), "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": NETWORK, "plugins": [plugin]}, indent=2) + "\n"


def install(conf_dir: Path, bin_dir: Path, socket: Path) -> None:
    """Write plugin first, conflist last: containerd calls itself ready when it sees the conflist. Repeatable."""
    if len(os.fsencode(socket)) > 107:
        raise InstallError(f"{socket}: a unix socket's path has at most 107 bytes; choose a shorter --run-dir")
    bin_dir.mkdir(parents=True, exist_ok=True)
    conf_dir.mkdir(parents=True, exist_ok=True)
    _install_plugin(bin_dir / PLUGIN)
    # containerd up to 1.7 (and 2.x unless told otherwise) also calls a plugin of this name.
    loopback = bin_dir / "loopback"
    if not loopback.is_symlink() or os.readlink(loopback) != PLUGIN:
        loopback.unlink(missing_ok=True)
        loopback.symlink_to(PLUGIN)
    _replace(conf_dir / CONFLIST, conflist(socket).encode(), 0o600)


def remove(conf_dir: Path, bin_dir: Path, socket: Path) -> None:
    """Take back what `install` and the service made."""
    for path in (conf_dir / CONFLIST, bin_dir / "loopback", bin_dir / PLUGIN, socket, socket.with_name(socket.name + ".new")):
        path.unlink(missing_ok=True)


def _install_plugin(target: Path) -> None:
    built = os.environ.get("K1S_BIN_DIR")
    if built and (Path(built) / PLUGIN).exists():
        fresh = target.with_name(PLUGIN + ".new")
        shutil.copyfile(Path(built) / PLUGIN, fresh)
        fresh.chmod(0o755)
        fresh.replace(target)
        return
    if getattr(sys, "frozen", False):
        raise InstallError(f"{PLUGIN} is missing from the executable's own files (K1S_BIN_DIR)")
    source = resources.files("k1s.net.cni").joinpath("shim.py").read_text()
    # -I: no environment, no user site; -S: no site at all. Together they halve Python's start.
    _replace(target, f"#!{sys.executable} -IS\n{source}".encode(), 0o755)


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all, and not at all where nothing changes (containerd reloads on every write)."""
    if path.exists() and path.read_bytes() == data:
        return
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(data)
    fresh.chmod(mode)
    fresh.replace(path)
