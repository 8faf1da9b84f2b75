"""How a start looks: a short list of steps with times on a terminal, log lines in a pipe.

Owns: that presentation. Called by: cli/server, cli/agent, which hand `Steps.done` down as a callback.
Never does: time anything else.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

log = logging.getLogger("k1s")


class Steps:
    """`done(text)` tells that a step is finished; its time runs from the end of the one before."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._terminal = self._out.isatty()
        self._began = self._last = time.monotonic()
        self._level = log.level
        if self._terminal and self._level == logging.INFO:
            # A person watching wants the steps; what goes wrong is still told. The log goes on once everything is up.
            log.setLevel(logging.WARNING)

    def done(self, text: str) -> None:
        now = time.monotonic()
        spent, self._last = now - self._last, now
        if self._terminal:
            self._out.write(f"  \x1b[32m✓\x1b[0m {text:<46} {spent * 1000:6.0f} ms\n")
            self._out.flush()
        else:
            log.info("%s (%.0f ms)", text, spent * 1000)

    def ready(self, text: str) -> None:
        """The last line: everything is up."""
        total = time.monotonic() - self._began
        log.setLevel(self._level)
        if self._terminal:
            self._out.write(f"\x1b[1m{text}\x1b[0m in {total:.1f} s\n")
            self._out.flush()
        else:
            log.info("%s in %.1f s", text, total)
