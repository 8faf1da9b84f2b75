"""What a pod cannot do with its volumes: needs root for the mounts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k1s.agent.volumes import mounts, subpath
from k1s.agent.volumes.interface import VolumeFault

pytestmark = pytest.mark.root


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    directory = tmp_path / "volume"
    directory.mkdir()
    yield directory  # type: ignore[misc]
    mounts.unmount_below([tmp_path])


def test_a_piece_is_pinned_and_survives_its_replacement(volume: Path, tmp_path: Path) -> None:
    (volume / "a" / "b").mkdir(parents=True)
    (volume / "a" / "b" / "file").write_text("inside")
    target = subpath.pin(volume, "a/b", tmp_path / "pins" / "0")
    assert (target / "file").read_text() == "inside" and mounts.is_mounted(target)
    # The container swaps the directory for a link: what is mounted stays what was checked.
    (volume / "a").rename(volume / "old")
    (volume / "a").symlink_to("/etc")
    assert (target / "file").read_text() == "inside"
    assert subpath.pin(volume, "a/b", target) == target, "idempotent"


def test_missing_directories_are_made_and_files_can_be_pinned(volume: Path, tmp_path: Path) -> None:
    os.chown(volume, 12, 34)
    subpath.pin(volume, "x/y", tmp_path / "pins" / "0")
    assert (volume / "x" / "y").is_dir() and (volume / "x").stat().st_uid == 12
    (volume / "file").write_text("one")
    assert subpath.pin(volume, "file", tmp_path / "pins" / "1").read_text() == "one"


@pytest.mark.parametrize("piece", ["../out", "/abs", "link", "link/deeper", "up/.."])
def test_no_way_out_of_the_volume(volume: Path, tmp_path: Path, piece: str) -> None:
    (volume / "link").symlink_to("/etc")
    with pytest.raises(VolumeFault):
        subpath.pin(volume, piece, tmp_path / "pins" / "0")
    assert not (tmp_path / "pins").exists() or not mounts.is_mounted(tmp_path / "pins" / "0")


def test_a_tree_is_removed_with_its_mounts(volume: Path) -> None:
    inner = volume / "mem"
    inner.mkdir()
    mounts.mount("tmpfs", inner, "tmpfs", data="size=1m")
    (inner / "file").write_text("x")
    assert mounts.is_mounted(inner)
    mounts.remove_tree(volume)
    assert not volume.exists() and not mounts.is_mounted(inner)
    mounts.remove_tree(volume)
