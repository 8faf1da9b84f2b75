"""Flags over environment over files over defaults, and one clear line for what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from k1s.base.config import ConfigError, as_flags, load, load_all, option


@dataclass(frozen=True)
class Server:
    port: int = option("port", 6443, "the port", short="p")
    names: tuple[str, ...] = option("name", (), "names")
    quiet: bool = option("quiet", False, "say less")
    home: Path = option("home", Path("/h"), "where", env="K1S_HOME")
    token: str = option("token", "", "secret", secret=True)


@dataclass(frozen=True)
class Agent:
    home: Path = option("home", Path("/h"), "where")
    label: str = option("label", "", "a label", alias="mark")


def read(tmp_path: Path, *argv: str, env: dict[str, str] | None = None) -> Server:
    return load(Server, argv, program="x", description="", config_file=tmp_path / "config.yaml", environ=env or {})


def test_sources_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("port: 1\nname: [a, b]\nquiet: true\nhome: /file\n")
    (tmp_path / "config.yaml.d").mkdir()
    (tmp_path / "config.yaml.d" / "10.yaml").write_text("port: 2\n")
    assert read(tmp_path) == Server(2, ("a", "b"), True, Path("/file"))
    got = read(tmp_path, "-p", "3", "--name=c,d", "--name", "e", "--quiet=false", env={"K1S_HOME": "/env"})
    assert got == Server(3, ("c", "d", "e"), False, Path("/env"))


@pytest.mark.parametrize(
    ("argv", "file", "words"),
    [
        (["--prot", "1"], "", ["--prot"]),
        (["--port", "x"], "", ["--port", "whole number"]),
        (["--quiet=maybe"], "", ["--quiet", "true or false"]),
        ([], "prot: 1", ["config.yaml", "prot"]),
        ([], "port: [1]", ["--port", "config.yaml"]),
        ([], "a: b: c", ["config.yaml"]),
        ([], "- port", ["mapping"]),
        (["--config", "/nonexistent"], "", ["/nonexistent"]),
    ],
)
def test_faults_are_one_line(tmp_path: Path, argv: list[str], file: str, words: list[str]) -> None:
    if file:
        (tmp_path / "config.yaml").write_text(file)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, *argv)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_another_name_of_a_flag_is_as_good(tmp_path: Path) -> None:
    def label(*argv: str) -> str:
        return load(Agent, argv, program="x", description="", config_file=tmp_path / "config.yaml", environ={}).label

    assert label("--mark=a") == label("--label", "a") == "a"
    (tmp_path / "config.yaml").write_text("mark: b\n")
    assert label() == "b"
    assert label("--label=c") == "c"
    assert as_flags(Agent(label="d")) == ["--label=d"]


def test_two_configs_share_a_flag_and_survive_an_argv(tmp_path: Path) -> None:
    argv = ["--home=/x", "--label", "a=b", "--port=7", "--name=a,b", "--quiet", "--token=secret"]
    server, agent = load_all((Server, Agent), argv, program="x", description="", config_file=tmp_path / "c", environ={})
    assert (server.home, agent.home, agent.label) == (Path("/x"), Path("/x"), "a=b")
    assert "secret" not in " ".join(as_flags(server))
    again = read(tmp_path, *as_flags(server))
    assert again == Server(7, ("a", "b"), True, Path("/x"))
