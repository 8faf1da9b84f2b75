"""Logging: one line an event, key=value, no secrets.

Owns: the set-up of the standard logging module. Called by: cli. Never does: decide what is an error.
"""

from __future__ import annotations

import logging
import sys
import time

_LEVEL_LETTERS = {"DEBUG": "D", "INFO": "I", "WARNING": "W", "ERROR": "E", "CRITICAL": "F"}


class LineFormatter(logging.Formatter):
    """`2026-01-02T03:04:05.678Z I k1s.part message`; a traceback follows only where the caller asked for one."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        level = _LEVEL_LETTERS.get(record.levelname, "?")
        line = f"{stamp}.{int(record.msecs):03d}Z {level} {record.name} {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def configure(*, debug: bool = False) -> None:
    """Send everything to standard error at INFO (DEBUG with `debug`); third parties only from WARNING up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("k1s").setLevel(logging.DEBUG if debug else logging.INFO)
