"""k1s's own containerd: started, adopted, watched over, and taken down with all it runs.

Owns: its directories, config.toml, pid file and log; restarts it with backoff when it dies. Called by: app.py, teardown.py.
Never does: speak CRI; touch a containerd it did not start.

containerd runs in a session of its own, so that it and the containers (in their shims) outlive the agent, kill -9 included. The
next agent finds it by pid file and socket and goes on with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from k1s.agent.config import AgentConfig
from k1s.agent.containerd_config import ContainerdSettings, render
from k1s.base.backoff import Backoff
from k1s.base.clock import REAL_CLOCK, Clock
from k1s.base.files import read_if_exists, write_atomic
from k1s.base.process import child_environment, find_binary

log = logging.getLogger("k1s.agent.containerd")

_RESTART = Backoff(initial=0.5, maximum=30.0)
_STEADY = 60.0  # seconds of life after which a death counts as the first again
_START_TIMEOUT = 60.0
_CAP_SYS_RESOURCE = 24
_LOG_LIMIT = 10 * 1024 * 1024


class ContainerdError(Exception):
    """containerd cannot be run here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class ContainerdPaths:
    """Where this instance keeps things."""

    root: Path
    state: Path
    socket: Path
    config: Path
    pid_file: Path
    log: Path
    registry_dir: Path

    @classmethod
    def of(cls, config: AgentConfig) -> ContainerdPaths:
        state = config.run_dir / "containerd"
        etc = config.agent_dir / "etc" / "containerd"
        return cls(
            root=config.agent_dir / "containerd",
            state=state,
            socket=config.containerd_socket,
            config=etc / "config.toml",
            pid_file=config.run_dir / "containerd.pid",
            log=config.agent_dir / "containerd.log",
            registry_dir=etc / "certs.d",
        )


class Containerd:
    """One instance. `run(ready)` keeps it alive for as long as it is awaited, and leaves it running when cancelled."""

    def __init__(self, config: AgentConfig, clock: Clock = REAL_CLOCK) -> None:
        self._config, self._clock = config, clock
        self.paths = ContainerdPaths.of(config)
        self.binary = _binary(config)

    async def run(self, ready: Callable[[], None]) -> None:
        failures = 0
        while True:
            pid, adopted = await self.start_or_adopt()
            log.info("containerd %s pid=%d socket=%s", "adopted" if adopted else "started", pid, self.paths.socket)
            started = self._clock.monotonic()
            ready()
            await _ended(pid)
            failures = 1 if self._clock.monotonic() - started > _STEADY else failures + 1
            delay = _RESTART.delay(failures)
            log.warning("containerd pid=%d died; containers go on in their shims; starting it again in %.1f s", pid, delay)
            await self._clock.sleep(delay)

    async def start_or_adopt(self) -> tuple[int, bool]:
        """(pid, whether it ran already). Returns once the socket accepts connections."""
        pid = running_pid(self.paths)
        if pid is not None and not self._looks_here_for_networks():
            log.warning("the pods' network is another one now: containerd is started anew; containers go on in their shims")
            await _terminate(pid)
            pid = None
        if pid is not None and await _accepts(self.paths.socket):
            return pid, True
        if pid is not None:
            # It lives but does not listen: still starting, or stuck. Give it its time before it is replaced.
            if await self._wait_for_socket(pid):
                return pid, True
            await _terminate(pid)
        return await self._start(), False

    def _looks_here_for_networks(self) -> bool:
        """--network-backend may have changed between k1s's own CNI plugin and another one."""
        written = read_if_exists(self.paths.config)
        return written is None or str(self._config.cni_conf_dir.absolute()).encode() in written

    async def _start(self) -> int:
        paths = self.paths
        for directory in (paths.root, paths.state, paths.registry_dir, self._config.cni_conf_dir, self._config.cni_bin_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        major = await containerd_major(self.binary)
        write_atomic(paths.config, render(self._settings(), major=major).encode())
        paths.socket.unlink(missing_ok=True)
        process = await asyncio.to_thread(self._spawn)
        write_atomic(paths.pid_file, f"{process.pid}\n".encode())
        if not await self._wait_for_socket(process.pid):
            process.poll()
            raise ContainerdError(f"containerd did not come up within {_START_TIMEOUT:.0f} s: {_last_error(paths.log)}")
        return process.pid

    def _spawn(self) -> subprocess.Popen[bytes]:
        environment = child_environment()
        # The bundled shim and runc first; they may also live in sbin directories that a service's PATH lacks.
        search = [
            environment.get("K1S_BIN_DIR", ""),
            environment.get("PATH", ""),
            "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin",
        ]
        environment["PATH"] = os.pathsep.join(part for part in search if part)
        self.paths.log.parent.mkdir(parents=True, exist_ok=True)
        bound_log(self.paths.log)
        with self.paths.log.open("ab") as output:
            return subprocess.Popen(
                [self.binary, "--config", str(self.paths.config), "--log-level", "info"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=environment,
                cwd="/",
            )

    def _settings(self) -> ContainerdSettings:
        config, paths = self._config, self.paths
        return ContainerdSettings(
            root=str(paths.root.absolute()),
            state=str(paths.state.absolute()),
            socket=str(paths.socket.absolute()),
            cni_conf_dir=str(config.cni_conf_dir.absolute()),
            cni_bin_dir=str(config.cni_bin_dir.absolute()),
            pause_image=config.pause_image,
            snapshotter=config.snapshotter,
            registry_config_dir=str(paths.registry_dir.absolute()),
            restrict_oom_score_adj=not has_capability(_CAP_SYS_RESOURCE),
            runtime_binary=find_binary("runc") or "",
        )

    async def _wait_for_socket(self, pid: int) -> bool:
        """True once the socket accepts; False when the process is gone or time is up. Start-up only, a second or two."""
        deadline = self._clock.monotonic() + _START_TIMEOUT
        delay = 0.01
        while self._clock.monotonic() < deadline:
            if await _accepts(self.paths.socket):
                return True
            if not _alive(pid):
                return False
            await self._clock.sleep(delay)
            delay = min(delay * 1.5, 0.2)
        return False


def bound_log(log_file: Path) -> None:
    """Move what the log holds to `.log.1` when it is too large. containerd goes on writing: it appends to the emptied file."""
    if log_file.exists() and log_file.stat().st_size > _LOG_LIMIT:
        shutil.copyfile(log_file, log_file.with_suffix(".log.1"))
        os.truncate(log_file, 0)


def _binary(config: AgentConfig) -> str:
    named = config.containerd
    found = (named if os.access(named, os.X_OK) else None) if named else find_binary("containerd")
    if found is None:
        what = f"--containerd {named} is not an executable file" if named else "no containerd in $K1S_BIN_DIR or PATH"
        raise ContainerdError(f"{what}: install containerd and runc, or name a runtime by --container-runtime-endpoint")
    return found


async def containerd_major(binary: str) -> int:
    """1 or 2, as `containerd --version` says."""
    process = await asyncio.create_subprocess_exec(
        binary, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=child_environment()
    )
    output, _ = await process.communicate()
    match = re.search(rb"\sv?(\d+)\.\d+", output)
    if match is None:
        raise ContainerdError(f"{binary} --version says {output[:80]!r}, which names no version")
    return int(match[1])


def has_capability(number: int) -> bool:
    """Whether this process holds a capability (effective)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def running_pid(paths: ContainerdPaths) -> int | None:
    """The pid in the pid file, if that process is our containerd (pids are used again, so its command line decides)."""
    try:
        pid = int(paths.pid_file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if str(paths.config).encode() in command and _alive(pid) else None


def _alive(pid: int) -> bool:
    try:
        # A zombie still has its directory; the state is the first word after the command in parentheses.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def _accepts(socket: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return False
    writer.close()
    return True


async def _ended(pid: int) -> None:
    """Return when the process ends: the kernel tells (pidfd), whether or not it is our child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
        _reap(pid)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # an adopted one is init's child


async def _terminate(pid: int, grace_seconds: float = 10.0) -> None:
    for sig in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            return
        try:
            await asyncio.wait_for(_ended(pid), grace_seconds)
            return
        except TimeoutError:
            continue


def _last_error(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()[-50:]
    except OSError:
        return "no log"
    errors = [line for line in lines if "level=fatal" in line or "level=error" in line or line.startswith("containerd:")]
    return (errors or lines or ["empty log"])[-1][-300:]


async def stop_containerd(config: AgentConfig) -> None:
    """End this instance's containerd alone; containers go on."""
    pid = running_pid(ContainerdPaths.of(config))
    if pid is not None:
        await _terminate(pid)
