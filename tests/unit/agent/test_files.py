"""Files the agent writes: atomic volumes, cgroups, logs, image archives, inotify."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from k1s.agent import containerd
from k1s.agent.containers import logs
from k1s.agent.resources.cgroups import CgroupLimits, Cgroups, shares, weight
from k1s.agent.volumes import atomic_writer
from k1s.agent.volumes.atomic_writer import FileContent
from k1s.base.clock import VirtualClock
from k1s.cri.errors import RuntimeFailure
from k1s.cri.fake import FakeRuntime
from k1s.cri.runtime import ContainerStatus


def _tree(directory: Path) -> dict[str, str]:
    return {str(p.relative_to(directory)): p.read_text() for p in directory.rglob("*") if p.is_file() and ".." not in str(p)[5:]}


def test_atomic_writer_replaces_everything_at_once(tmp_path: Path) -> None:
    assert atomic_writer.write(tmp_path, {"a": FileContent(b"1", 0o600), "d/b": FileContent(b"2")}) is True
    first = os.readlink(tmp_path / "..data")
    assert (tmp_path / "a").read_bytes() == b"1" and (tmp_path / "d" / "b").read_bytes() == b"2"
    assert os.readlink(tmp_path / "a") == "..data/a"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    # The same again changes nothing; another content swaps the link and drops what is gone.
    assert atomic_writer.write(tmp_path, {"a": FileContent(b"1", 0o600), "d/b": FileContent(b"2")}) is False
    assert os.readlink(tmp_path / "..data") == first
    assert atomic_writer.write(tmp_path, {"a": FileContent(b"3", 0o644)}) is True
    assert (tmp_path / "a").read_bytes() == b"3" and not (tmp_path / "d").exists() and not (tmp_path / first).exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["..data", "a", os.readlink(tmp_path / "..data")])


@pytest.mark.parametrize("path", ["/abs", "../up", "a/../../b", "..hidden", ""])
def test_atomic_writer_refuses_paths_out_of_the_volume(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="invalid path"):
        atomic_writer.write(tmp_path, {path: FileContent(b"")})


def test_cgroups_v2(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("")
    made = tmp_path / "k1s" / "kubepods" / "burstable" / "podu1"
    for directory in (tmp_path / "k1s", tmp_path / "k1s/kubepods", tmp_path / "k1s/kubepods/burstable", made):
        directory.mkdir()
        for name in ("cgroup.controllers", "cgroup.subtree_control", "cpu.weight", "cpu.max", "memory.max", "pids.max"):
            (directory / name).write_text("cpu memory pids\n" if name == "cgroup.controllers" else "")
    groups = Cgroups("/k1s", tmp_path)
    path = groups.ensure_pod("u1", "Burstable", CgroupLimits(cpu_shares=1024, cpu_quota=50_000, memory=1 << 20))
    assert path == "/k1s/kubepods/burstable/podu1"
    got = [(made / n).read_text() for n in ("cpu.weight", "cpu.max", "memory.max", "pids.max")]
    assert got == ["39", "50000 100000", "1048576", "max"]
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_cgroups_v1(tmp_path: Path) -> None:
    for controller in ("cpu", "memory", "pids", "freezer"):
        (tmp_path / controller).mkdir()
        (tmp_path / controller / "cgroup.procs").write_text("")
    groups = Cgroups("/k1s", tmp_path)
    groups.ensure_pod("u1", "Guaranteed", CgroupLimits())
    pod = "k1s/kubepods/podu1"
    assert (tmp_path / "cpu" / pod).is_dir() and (tmp_path / "pids" / pod).is_dir() and not (tmp_path / "freezer" / pod).exists()
    (tmp_path / "freezer" / pod / "container").mkdir(parents=True)
    assert groups.pods() == {"u1"}
    groups.remove_pod("u1")
    assert groups.pods() == set() and (tmp_path / "cpu/k1s/kubepods").is_dir()
    groups.remove_all()
    assert not any((tmp_path / c / "k1s").exists() for c in ("cpu", "memory", "pids", "freezer"))


def test_shares_and_weight() -> None:
    assert [shares(m) for m in (0, 100, 1000, 10_000_000)] == [2, 102, 1024, 262_144]
    assert [weight(s) for s in (2, 1024, 262_144)] == [1, 39, 10_000]


class _Reopening(FakeRuntime):
    """Opens the log anew, as the real one does; can be told to refuse."""

    refuse = False

    async def reopen_container_log(self, container_id: str) -> None:
        if self.refuse:
            raise RuntimeFailure("no")
        Path(container_id).write_bytes(b"")


async def test_log_rotation_keeps_five_files(tmp_path: Path) -> None:
    path, clock, runtime = tmp_path / "0.log", VirtualClock(), _Reopening()
    container = ContainerStatus(str(path), "c", 0, "running", 0.0, log_path=str(path))
    assert logs.too_large([container]) == []
    for number in range(8):
        with path.open("wb") as file:
            file.truncate(logs.MAX_SIZE)
            file.seek(0, 2)
            file.write(b"%d" % number)
        assert logs.too_large([container]) == [container]
        await logs.rotate(container, runtime, clock)
        await clock.advance(10)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert len(names) == logs.MAX_FILES and names[0] == "0.log"
    assert [n.endswith(".gz") for n in names] == [False, True, True, False, False]
    assert gzip.decompress((tmp_path / names[1]).read_bytes()).endswith(b"4")
    runtime.refuse = True
    path.write_bytes(b"kept")
    with pytest.raises(RuntimeFailure):
        await logs.rotate(container, runtime, clock)
    assert path.read_bytes() == b"kept"
    logs.remove_of(container)
    assert list(tmp_path.iterdir()) == []


def test_the_runtimes_log_stays_small_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containerd, "_LOG_LIMIT", 10)
    path = tmp_path / "containerd.log"
    containerd.bound_log(path)
    assert not path.exists()
    with path.open("ab", buffering=0) as writer:  # as containerd holds it
        writer.write(b"0123456789")
        containerd.bound_log(path)
        assert path.read_bytes() == b"0123456789"
        writer.write(b"!")
        containerd.bound_log(path)
        writer.write(b"more")
    assert path.read_bytes() == b"more" and path.with_suffix(".log.1").read_bytes() == b"0123456789!"
