"""What `k1s token` and `k1s node` understand and print."""

from __future__ import annotations

from pathlib import Path

import pytest

from k1s.api import bootstrap_token
from k1s.cli import node, token
from k1s.cli.errors import UserError
from k1s.server.config import ServerConfig
from k1s.server.tokens import load_tokens

NOW = 1_700_000_000.0


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("30m", 1800), ("24h", 86400), ("7d", 604800), ("1h30m", 5400)])
def test_times(text: str, seconds: int) -> None:
    assert token.parse_ttl(text) == seconds


@pytest.mark.parametrize("text", ["", "24", "-1h", "1y", "h", "0s", "1.5h", "999999999d"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="--ttl"):
        token.parse_ttl(text)


def test_the_list_shows_no_secrets() -> None:
    secrets = [
        bootstrap_token.new_secret("aaaaaa", "0123456789abcdef", "for host b", NOW + 3 * 3600),
        bootstrap_token.new_secret("bbbbbb", "0123456789abcdef", "", None),
        bootstrap_token.new_secret("cccccc", "0123456789abcdef", "late", NOW - 1),
    ]
    assert token.table(secrets, NOW).splitlines() == [
        "TOKEN ID   TTL         EXPIRES                DESCRIPTION",
        "bbbbbb     <forever>   <never>                <none>",
        "aaaaaa     3h          2023-11-15T01:13:20Z   for host b",
        "cccccc     <expired>   2023-11-14T22:13:19Z   late",
    ]


@pytest.mark.parametrize("given", ["abcdef", "abcdef.0123456789abcdef", f"K10{'0' * 64}::abcdef.0123456789abcdef"])
def test_a_token_is_deleted_by_any_of_its_forms(given: str) -> None:
    assert token._id_of(given) == "abcdef"


def test_what_cannot_be_deleted_is_not_repeated() -> None:
    with pytest.raises(UserError, match="k1s token rotate"):
        token._id_of(f"K10{'0' * 64}::node:geheim")
    with pytest.raises(UserError) as caught:
        token._id_of("geheim-and-long")
    assert "geheim" not in str(caught.value)


def test_rotating(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ServerConfig(data_dir=tmp_path)
    authority = tmp_path / "server" / "tls" / "server-ca.crt"
    authority.parent.mkdir(parents=True)
    authority.write_bytes(b"the CA")
    old = load_tokens(config, b"the CA")
    assert token.run(["token", "rotate", "--data-dir", str(tmp_path)]) == 0
    new = capsys.readouterr().out.strip()
    assert new == config.node_token_file.read_text().strip() != old
    assert new.partition("::")[0] == old.partition("::")[0]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["token"], "COMMAND"),
        (["token", "make"], "invalid choice"),
        (["token", "create", "--ttl", "soon"], "--ttl"),
        (["token", "create", "--description", "x" * 300], "--description"),
        (["token", "list", "--kubeconfig", "/nowhere/k.yaml"], "does not exist: run this where the k1s server runs"),
        (["token", "delete"], "TOKEN"),
        (["token", "rotate", "--data-dir", "/nowhere"], "was not rotated"),
    ],
)
def test_faults_are_one_line(words: list[str], text: str) -> None:
    with pytest.raises(UserError, match=text) as caught:
        token.run(words)
    assert "\n" not in str(caught.value)


def test_a_kubeconfig_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "k.yaml"
    file.write_text("hello: [")
    with pytest.raises(UserError) as caught:
        node.run(["node", "forget", "n1", "--kubeconfig", str(file)])
    assert "\n" not in str(caught.value)
