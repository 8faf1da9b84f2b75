"""The start on a terminal and in a pipe; how a user's mistakes end."""

from __future__ import annotations

import io
import logging

import pytest

from k1s.cli import main as cli
from k1s.cli.server import cluster_dns
from k1s.cli.steps import Steps
from k1s.server.config import ServerConfig


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def level():
    log = logging.getLogger("k1s")
    before = log.level
    log.setLevel(logging.INFO)
    yield log
    log.setLevel(before)


def test_a_terminal_gets_a_list_with_times_and_no_chatter(level: logging.Logger) -> None:
    out = Terminal()
    steps = Steps(out)
    assert level.level == logging.WARNING
    steps.done("database open")
    steps.ready("k1s is ready")
    first, last = out.getvalue().splitlines()
    assert "database open" in first and first.rstrip().endswith("ms")
    assert last.endswith(" s") and "k1s is ready" in last
    assert level.level == logging.INFO


def test_a_pipe_gets_log_lines(level: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    out = io.StringIO()
    steps = Steps(out)
    steps.done("database open")
    steps.ready("k1s is ready")
    assert out.getvalue() == ""
    assert [record.message.split(" (")[0].split(" in ")[0] for record in caplog.records] == ["database open", "k1s is ready"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["k1s", "frobnicate"], 1, "unknown command 'frobnicate'"),
        (["k1s", "server", "--no-such-flag"], 1, "--no-such-flag"),
        (["k1s", "server", "--service-cidr=10.42.0.0/16"], 1, "overlap"),
        (["k1s", "server", "--cluster-cidr=banana"], 1, "--cluster-cidr"),
        (["k1s", "server", "--cluster-dns=1.2.3.4"], 1, "--cluster-dns"),
        (["k1s", "server", "--cluster-dns=10.43.0.10,10.43.0.11"], 1, "one address of each family"),
        (["k1s", "server", "--https-listen-port=70000"], 1, "not a port"),
        (["k1s", "server", "--write-kubeconfig-mode=999"], 1, "octal"),
        (["k1s", "server", "--service-node-port-range=5"], 1, "not a range"),
        (["k1s", "server", "--loadbalancer-pool=192.168.1.240-300"], 1, "write a range (192.168.1.240-192.168.1.250)"),
        (["k1s", "server", "--loadbalancer-pool=10.43.9.0/24"], 1, "overlaps --service-cidr 10.43.0.0/16"),
        (["k1s", "agent", "--max-pods=many"], 1, "whole number"),
    ],
)
def test_mistakes_are_one_line(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == code
    err = capsys.readouterr().err
    assert said in err and len(err.strip().splitlines()) == 1


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["k1s", "--version"]) == 0
    assert "v1.37" in capsys.readouterr().out
    assert cli.main(["k1s"]) == 0
    assert "check-config" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ([], "10.43.0.10"),
        (["--service-cidr=10.99.0.0/16"], "10.99.0.10"),
        (["--service-cidr=10.43.0.0/16,fd00:43::/112"], "10.43.0.10,fd00:43::a"),
        (["--service-cidr=10.43.0.0/16,fd00:43::/112", "--cluster-dns=10.43.0.53"], "10.43.0.53"),
        (["--service-cidr=10.43.0.0/16,fd00:43::/112", "--cluster-dns=10.43.0.53, fd00:43::53"], "10.43.0.53,fd00:43::53"),
    ],
)
def test_the_address_of_the_dns_follows_the_service_range(flags: list[str], wanted: str) -> None:
    given = {flag.partition("=")[0][2:].replace("-", "_"): flag.partition("=")[2] for flag in flags}
    assert cluster_dns(ServerConfig(**given)) == wanted
