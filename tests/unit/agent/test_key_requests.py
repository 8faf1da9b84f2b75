"""Keys and certificate requests come from a child process; the agent itself never loads `cryptography` for them."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from k1s.agent import key_requests
from k1s.base import pki


def test_requests_are_the_nodes_and_made_again_with_the_same_key(tmp_path: Path) -> None:
    keys = [tmp_path / "tls" / "client.key", tmp_path / "tls" / "serving.key"]
    requests = key_requests.make("n1", keys)
    made = [key.read_bytes() for key in keys]
    assert made[0] != made[1]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (keys[0].parent, *keys)] == [0o700, 0o600, 0o600]
    assert [pki.read_csr(request.encode()).subject for request in requests] == [
        pki.Subject("system:node:n1", ("system:nodes",)),
    ] * 2
    key_requests.make("n1", keys)
    assert [key.read_bytes() for key in keys] == made


def test_a_failure_says_why(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key")
    with pytest.raises(key_requests.RequestsFailed, match=r"exit code 1: .*key"):
        key_requests.make("n1", [tmp_path / "key"])


def test_the_caller_stays_small(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from k1s.agent import key_requests; "
        f"key_requests.make('n1', [pathlib.Path({str(tmp_path / 'key')!r})]); print('cryptography' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_a_child_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import signal, time; signal.alarm(1); time.sleep(60)"
    monkeypatch.setattr(key_requests, "own_command", lambda: [sys.executable, "-c", script])
    with pytest.raises(key_requests.RequestsFailed, match="no answer"):
        key_requests.make("n1", [tmp_path / "key"])
