"""What check-config prints, and what makes it fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import k1s.net.check
from k1s.base.config import ConfigError
from k1s.cli import check_config
from k1s.cli.check_config import Finding


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(check_config, "CONFIG_FILE", tmp_path / "config.yaml")
    monkeypatch.setattr(check_config, "check", lambda: iter([Finding("kernel", True)]))
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def asked(monkeypatch: pytest.MonkeyPatch, answer: list[str]) -> list[str]:
    files: list[str] = []

    def problems(resolv_conf: str, **_: object) -> list[str]:
        files.append(resolv_conf)
        return answer

    monkeypatch.setattr(k1s.net.check, "problems", problems)
    return files


def test_problems_of_the_pod_network_are_warnings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    files = asked(monkeypatch, ["a chain drops", "no resolver"])
    assert check_config.run(["check-config", "--resolv-conf", "/x/resolv.conf"]) == 0
    out = capsys.readouterr().out
    assert "warning  pod network: a chain drops\n" in out and "warning  pod network: no resolver\n" in out
    assert "this host can run k1s" in out and files == ["/x/resolv.conf"]


def test_a_good_network_is_said_to_be_good(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    files = asked(monkeypatch, [])
    (check_config.CONFIG_FILE).write_text("resolv-conf: /from/the/file\n")
    assert check_config.run(["check-config"]) == 0
    assert "ok       pod network\n" in capsys.readouterr().out and files == ["/from/the/file"]


def test_what_is_required_and_missing_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked(monkeypatch, [])
    monkeypatch.setattr(check_config, "check", lambda: iter([Finding("runc", True, "install it")]))
    assert check_config.run(["check-config"]) == 1
    assert "MISSING  runc: install it" in capsys.readouterr().out


def test_who_is_not_root_is_not_asked_about_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    files = asked(monkeypatch, ["never seen"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert check_config.run(["check-config"]) == 0 and files == []


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(ConfigError, match="--nope"):
        check_config.run(["check-config", "--nope"])
