"""Tokens: their files, their rotation, and the ones that live in the cluster."""

from __future__ import annotations

import base64
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from k1s.api import bootstrap_token
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base import pki
from k1s.base.clock import VirtualClock
from k1s.server.config import ServerConfig
from k1s.server.tokens import JoinTokens, load_tokens, rotate, secret_of

CA = b"the CA"


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    return ServerConfig(data_dir=tmp_path)


def refused(tokens: JoinTokens, given: str) -> str:
    with pytest.raises(ApiError) as caught:
        tokens.check(given)
    assert caught.value.code == 401
    return caught.value.message


def test_tokens_are_kept_private_and_survive_a_restart(config: ServerConfig) -> None:
    first = load_tokens(config, CA)
    assert load_tokens(config, CA) == first
    assert first.startswith(f"K10{pki.ca_hash(CA)}::node:")
    for name in ("node-token", "token"):
        assert stat.S_IMODE((config.server_dir / name).stat().st_mode) == 0o600
    given = load_tokens(replace(config, token="mine"), CA)
    assert given.endswith("::node:mine")
    assert load_tokens(config, CA) == given


def test_a_token_that_can_be_guessed_is_told(config: ServerConfig, caplog: pytest.LogCaptureFixture) -> None:
    load_tokens(replace(config, token="longer-than-that"), CA)
    assert not caplog.records
    load_tokens(replace(config, token="node:mine"), CA)
    assert "who guesses it joins machines" in caplog.text
    assert "mine" not in caplog.text


@pytest.mark.parametrize("given", ["", "x", "node:", "K10::node:", "node:wrong", "abc.def", "abcdef.0123456789abcdef"])
def test_tokens_that_are_not_ours(config: ServerConfig, informers: Any, given: str) -> None:
    load_tokens(config, CA)
    refused(JoinTokens(config, informers, VirtualClock()), given)


def test_without_files_nothing_is_accepted(config: ServerConfig, informers: Any) -> None:
    refused(JoinTokens(config, informers, VirtualClock()), "")
    refused(JoinTokens(config, informers, VirtualClock()), "node:")


def test_both_tokens_are_good_for_joining(config: ServerConfig, informers: Any) -> None:
    node = load_tokens(config, CA)
    tokens = JoinTokens(config, informers, VirtualClock())
    server = (config.server_dir / "token").read_text().strip()
    assert secret_of(node) != secret_of(server)
    for token in (node, server):
        assert tokens.check(token.partition("::")[2]).name == "system:node-token"


def test_a_rotated_token_is_of_no_use_from_then_on(config: ServerConfig, informers: Any) -> None:
    old = load_tokens(config, CA)
    tokens = JoinTokens(config, informers, VirtualClock())
    new = rotate(config.server_dir, config.node_token_file, CA)
    assert new != old
    assert "rotated" in refused(tokens, old.partition("::")[2])
    assert tokens.check(new.partition("::")[2])
    assert load_tokens(config, CA) == new
    assert stat.S_IMODE(config.node_token_file.stat().st_mode) == 0o600


def test_a_rotated_token_does_not_come_back_by_an_option(
    config: ServerConfig, informers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    given = replace(config, token="mine")
    load_tokens(given, CA)
    new = rotate(config.server_dir, config.node_token_file, CA)
    tokens = JoinTokens(config, informers, VirtualClock())
    # The option made one secret of both tokens: neither may keep it.
    for old in ("node:mine", "server:mine"):
        refused(tokens, old)
    assert load_tokens(given, CA) == new
    assert "take the option out" in caplog.text
    assert "mine" not in caplog.text
    refused(tokens, "node:mine")
    # Another one is a new decision.
    assert load_tokens(replace(config, token="other"), CA).endswith(":other")


def put(informers: Any, **changes: str) -> None:
    secret = bootstrap_token.new_secret("abcdef", "0123456789abcdef", "", None)

    for key, value in changes.items():
        secret["data"][key.replace("_", "-")] = base64.b64encode(value.encode()).decode()
    informers.informer(builtin("Secret")).put(secret)


def test_a_token_of_the_cluster_says_who_it_is(config: ServerConfig, informers: Any) -> None:
    put(informers)
    user = JoinTokens(config, informers, VirtualClock()).check("abcdef.0123456789abcdef")
    assert (user.name, user.groups) == ("system:bootstrap:abcdef", ("system:bootstrappers",))


@pytest.mark.parametrize(
    "changes",
    [
        {"usage_bootstrap_authentication": "false"},
        {"token_id": "other1"},
        {"token_secret": ""},
        {"token_secret": "0123456789abcdeg"},
        {"expiration": "yesterday"},
        {"expiration": "2020-01-01T00:00:00Z"},
    ],
)
def test_secrets_that_are_no_good_tokens(config: ServerConfig, informers: Any, changes: dict[str, str]) -> None:
    put(informers, **changes)
    refused(JoinTokens(config, informers, VirtualClock()), "abcdef.0123456789abcdef")


def test_a_secret_of_another_namespace_is_no_token(config: ServerConfig, informers: Any) -> None:
    secret = bootstrap_token.new_secret("abcdef", "0123456789abcdef", "", None)
    secret["metadata"]["namespace"] = "default"
    informers.informer(builtin("Secret")).put(secret)
    refused(JoinTokens(config, informers, VirtualClock()), "abcdef.0123456789abcdef")


def test_new_tokens_differ_and_have_the_form_of_upstream() -> None:
    made = {bootstrap_token.new_token() for _ in range(50)}
    assert len(made) == 50
    assert all(bootstrap_token.split(f"{identity}.{secret}") == (identity, secret) for identity, secret in made)
    assert bootstrap_token.split("ABCDEF.0123456789abcdef") is None
