"""Runs helm.

Owns: its directories and environment, private files of a run, time limits, what is kept of its output.
Called by: helm/controller. Never does: decide what to run.
Bounds: 64 KiB of output (its end); twice the chart's timeout and a minute, then SIGTERM, 10 s later SIGKILL.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from k1s.base.files import write_atomic
from k1s.base.process import child_environment, require_binary
from k1s.server.addons.context import AddonSettings
from k1s.server.addons.helm.plan import Plan

_MAX_OUTPUT = 64 * 1024
_MAX_MESSAGE = 900
_GRACE = 10.0
_SLACK = 60.0


class HelmFailed(Exception):
    """helm said no, or took too long; the message is its own, on one line."""


class Run:
    """One HelmChart's commands; its files are gone afterwards."""

    def __init__(self, program: str, directory: Path, plan: Plan, env: dict[str, str], version: int) -> None:
        self._program, self._directory, self._plan, self._env = program, directory, plan, env
        self._version = version

    async def status(self) -> str:
        """The release's status ("deployed", "failed", "pending-install", ...), "" if there is no such release."""
        try:
            answer = await self._helm("status", "--output=json", "--", self._plan.release)
        except HelmFailed as error:
            if "not found" in str(error):
                return ""
            raise
        try:
            return str(json.loads(answer)["info"]["status"])
        except (ValueError, KeyError, TypeError) as error:
            raise HelmFailed(f"helm status said something else than expected: {error}") from error

    async def upgrade(self) -> None:
        if self._plan.repository:
            flag = f"--repository-config={self._directory / 'repositories.yaml'}"
            await self._helm("repo", "update", flag, "--", self._plan.repository)
        flags = [self._filled(flag) for flag in self._plan.flags]
        if self._version >= 4:
            # As helm 3 and k3s: what the chart says wins over what others changed by hand.
            flags = ["--server-side=true", "--force-conflicts", *flags]
        chart = self._filled(self._plan.chart)
        await self._helm("upgrade", "--install", self._timeout(), *flags, "--", self._plan.release, chart)

    async def rollback(self) -> None:
        await self._helm("rollback", self._timeout(), "--", self._plan.release)

    async def uninstall(self, namespace: str = "") -> None:
        """`namespace`: where the release is, if it is not where the plan wants it."""
        wait = "--wait=watcher" if self._version >= 4 else "--wait"
        # The last one counts.
        place = [f"--namespace={namespace}"] if namespace else []
        await self._helm("uninstall", "--ignore-not-found", wait, self._timeout(), *place, "--", self._plan.release)

    async def major(self) -> int:
        """helm's own version."""
        text = (await self._helm("version", "--template={{.Version}}")).strip()
        number = text.removeprefix("v").partition(".")[0]
        return int(number) if number.isdigit() else 4

    def _timeout(self) -> str:
        return f"--timeout={self._plan.timeout:g}s"

    def _filled(self, text: str) -> str:
        for name in self._plan.files:
            text = text.replace(f"{{{name}}}", str(self._directory / name))
        return text

    async def _helm(self, *arguments: str) -> str:
        verb, *rest = arguments
        process = await asyncio.create_subprocess_exec(
            self._program, verb, *self._spread(verb, rest),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            cwd=self._directory, env=self._env, start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(2 * self._plan.timeout + _SLACK):
                output = await _tail(process)
                code = await process.wait()
        except TimeoutError:
            raise HelmFailed(f"helm {verb} took longer than {2 * self._plan.timeout + _SLACK:g} s and was ended") from None
        finally:
            await _end(process)
        if code != 0:
            raise HelmFailed(_message(verb, code, output))
        return output

    def _spread(self, verb: str, rest: Sequence[str]) -> list[str]:
        """These know no namespace."""
        return list(rest) if verb in ("repo", "version") else [f"--namespace={self._plan.namespace}", *rest]


class Helm:
    def __init__(self, settings: AddonSettings) -> None:
        self._settings = settings
        # program and when it was made -> its major version.
        self._version: tuple[str, int, int] = ("", 0, 0)

    @asynccontextmanager
    async def run(self, plan: Plan) -> AsyncIterator[Run]:
        """Raises ProgramMissing where there is no helm, OSError where the files cannot be written."""
        program = require_binary("helm")
        home = self._settings.helm_dir
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory = Path(tempfile.mkdtemp(prefix="run-", dir=home))
        try:
            for name, data in {**plan.files, "kubeconfig": self._settings.kubeconfig()}.items():
                if name == "repositories.yaml":
                    data = data.replace(b"{ca.pem}", os.fsencode(directory / "ca.pem"))
                write_atomic(directory / name, data)
            env = _environment(home, directory)
            yield Run(program, directory, plan, env, await self._major(Run(program, directory, plan, env, 0), program))
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def _major(self, run: Run, program: str) -> int:
        made = os.stat(program).st_mtime_ns
        if self._version[:2] != (program, made):
            self._version = (program, made, await run.major())
        return self._version[2]

    def forget_old_runs(self) -> None:
        """What a killed server left."""
        for path in self._settings.helm_dir.glob("run-*"):
            shutil.rmtree(path, ignore_errors=True)


def _environment(home: Path, directory: Path) -> dict[str, str]:
    """Nothing of the server's own helm or kubectl settings, and nobody's plugins."""
    env = {k: v for k, v in child_environment().items() if not k.startswith(("HELM_", "KUBE"))}
    own = {
        "HOME": home,
        "KUBECONFIG": directory / "kubeconfig",
        "HELM_CACHE_HOME": home / "cache",
        "HELM_CONFIG_HOME": home / "config",
        "HELM_DATA_HOME": home / "data",
        "HELM_PLUGINS": home / "plugins",
    }
    return {**env, **{name: str(path) for name, path in own.items()}, "HELM_DRIVER": "secret", "NO_COLOR": "1"}


async def _tail(process: asyncio.subprocess.Process) -> str:
    """The end of what it says; all of it is read, or it would stop."""
    assert process.stdout is not None
    kept = b""
    while chunk := await process.stdout.read(_MAX_OUTPUT):
        kept = (kept + chunk)[-_MAX_OUTPUT:]
    return kept.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        try:
            os.killpg(process.pid, number)
            async with asyncio.timeout(_GRACE):
                await process.wait()
        except ProcessLookupError:
            await process.wait()
        except TimeoutError:
            continue


def _message(verb: str, code: int, output: str) -> str:
    """From helm's last error on; before it stand warnings. Only `repo update` gives its reasons first."""
    if verb == "repo":
        output = "\n".join(line for line in output.splitlines() if not line.startswith(("Hang tight", "Error:")))
    start = output.rfind("Error:")
    text = " ".join((output[start + len("Error:") :] if start >= 0 else output).split())
    return f"helm {verb}: {text[:_MAX_MESSAGE]}" if text else f"helm {verb} ended with code {code}"
