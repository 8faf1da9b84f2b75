"""Importing aiohttp without its reading of the system's CA bundle.

Owns: that trick. Called by: base/http_server and client/transport, the two adapters. Never does: import anything itself.
aiohttp parses the bundle when imported (80-150 ms, 3 MB), although every context of ours is explicit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLES = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": "/nonexistent"}


@contextmanager
def without_system_cas() -> Iterator[None]:
    """Inside the block OpenSSL's default paths lead nowhere; the environment is as before after it."""
    saved = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.update(_VARIABLES)
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
