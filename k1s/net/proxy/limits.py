"""The connection tracker's limits, as kube-proxy sets them where nobody chose otherwise.

Owns: which they are. Called by: agent.network.services, in a worker thread. Never does: lower a limit; touch one that this
network namespace may not write (the size of the table is the whole machine's). Teardown puts back what was there.
Source: upstream pkg/proxy/apis/config/v1alpha1/defaults.go, KubeProxyConntrackConfiguration.
"""

from __future__ import annotations

import os
from pathlib import Path

from k1s.net import sysctl

_ROOT, _AT = Path("/proc/sys"), "net/netfilter/nf_conntrack_"
_LEAST, _PER_CPU = 131072, 32768
# Seconds. A connection that one side has closed may be used by the other for an hour, not only for the kernel's minute.
_TIMEOUTS = {"tcp_timeout_established": 86400, "tcp_timeout_close_wait": 3600}


def plan(cpus: int, size: int) -> dict[str, str]:
    """The settings to make, by name; `size` is how many connections the table has room for now."""
    settings = {f"{_AT}{name}": str(seconds) for name, seconds in _TIMEOUTS.items()}
    wanted = max(_PER_CPU * cpus, _LEAST)
    if size < wanted:
        settings[f"{_AT}max"] = str(wanted)
    return settings


def apply(memory: Path) -> None:
    """Make them; `memory` is where sysctl keeps what was there before."""
    table = _ROOT / f"{_AT}max"
    if not table.exists():
        return  # no connection tracker, so nothing is translated; `k1s check-config` says so
    wanted = plan(os.cpu_count() or 1, int(table.read_text()))
    sysctl.write({name: value for name, value in wanted.items() if (_ROOT / name).stat().st_mode & 0o200}, memory)
