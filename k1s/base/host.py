"""What this host is called and under which address others reach it.

Owns: those two questions. Called by: server/app, agent/join. Never does: send anything.
"""

from __future__ import annotations

import socket


def host_name() -> str:
    """The host's name in the lower case that a Node's name must have."""
    return socket.gethostname().lower()


def default_address() -> str:
    """The source address of the way out; 127.0.0.1 on a machine that is alone. Connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # An address of the documentation range: only the routing table is asked.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
