"""Entering a network namespace.

Owns: setns for the calling thread, and back; unpinning what a killed runtime left. Called by: cni.add, cni.check, teardown,
agent.serving (port-forward), tests. Never does: create namespaces, delete those of living sandboxes (containerd does both),
run in the event loop's thread while it has other work.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_MNT_DETACH = 2
# How containerd names them, below /run/netns or its own state directory.
_PINNED = re.compile(r"/.*/netns/cni-[0-9a-f-]+")
_libc = ctypes.CDLL(None, use_errno=True)


class NetnsError(Exception):
    """A namespace could not be opened or entered."""


@contextmanager
def entered(path: str) -> Iterator[None]:
    """The calling thread is in the namespace at `path` inside the block, and back in its own after it."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NetnsError(f"network namespace {path}: {error.strerror}") from error
        try:
            _setns(there, path)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _setns(here, "that this thread came from")
    finally:
        os.close(here)


def unpin(path: str) -> bool:
    """Unmount and remove the file that keeps a CNI namespace alive; False if it is none or is gone."""
    if not _PINNED.fullmatch(path) or not os.path.exists(path):
        return False
    # EINVAL: not mounted any more, the file alone is left.
    if _libc.umount2(path.encode(), _MNT_DETACH) != 0 and ctypes.get_errno() != errno.EINVAL:
        raise NetnsError(f"cannot unmount {path}: {os.strerror(ctypes.get_errno())}")
    os.unlink(path)
    return True


def _setns(descriptor: int, name: str) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise NetnsError(f"cannot enter the network namespace {name}: {os.strerror(number)}")
