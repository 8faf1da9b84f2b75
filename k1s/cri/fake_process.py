"""How a pretended process of the fake runtime ends.

Owns: the reading of a command line: true, false, sleep, echo, exit, and `sh -c` of those joined by `;` or `&&`.
Called by: fake.py. Never does: run anything. A command it does not know runs until it is stopped.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

_SHELLS = ("sh", "bash", "ash")


@dataclass(frozen=True, slots=True)
class Process:
    """`seconds` until it ends by itself (None: never) with `exit_code`; `error`: it cannot even start."""

    seconds: float | None = None
    exit_code: int = 0
    output: bytes = b""
    error: str = ""


def parse(command: Sequence[str]) -> Process:
    """What the command line would do."""
    if not command:
        return Process()
    if command[0].startswith("/no-such") or command[0] == "no-such-command":
        return Process(error=f'exec: "{command[0]}": executable file not found in $PATH: unknown')
    program = command[0].rsplit("/", 1)[-1]
    if program == "busybox" and len(command) > 1:
        return parse(command[1:])
    if program in _SHELLS and len(command) >= 3 and command[1] == "-c":
        return _script(command[2])
    return _simple(program, list(command[1:]))


def _script(text: str) -> Process:
    seconds, code, output = 0.0, 0, b""
    for part in text.replace("&&", ";").split(";"):
        words = shlex.split(part)
        if not words:
            continue
        if words[0] == "exit":
            return Process(seconds, int(words[1]) if len(words) > 1 else code, output)
        step = _simple(words[0].rsplit("/", 1)[-1], words[1:])
        if step.seconds is None:
            return Process(None, 0, output)
        seconds, code, output = seconds + step.seconds, step.exit_code, output + step.output
    return Process(seconds, code, output)


def _simple(program: str, arguments: list[str]) -> Process:
    if program == "true":
        return Process(0.0)
    if program == "false":
        return Process(0.0, 1)
    if program == "echo":
        return Process(0.0, 0, (" ".join(arguments) + "\n").encode())
    if program == "sleep" and arguments:
        try:
            return Process(sum(float(a) for a in arguments))
        except ValueError:
            return Process()  # "infinity", or a unit we do not read
    return Process()
