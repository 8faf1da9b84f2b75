"""kube-apiserver's flags as k3s users give them."""

from __future__ import annotations

import pytest

from k1s.server.apiserver_args import ApiServerArgs, ArgumentError


def test_what_was_split_at_commas_is_put_together() -> None:
    args = ApiServerArgs(["--authorization-mode=Node", "RBAC", "oidc-required-claim=a=b", "c=d", "anonymous-auth=false"])
    assert args.all("authorization-mode") == ("Node", "RBAC")
    assert args.one("oidc-required-claim") == "a=b,c=d"
    assert not args.flag("anonymous-auth", True)


def test_options_of_ours_count() -> None:
    args = ApiServerArgs.merged(["token-auth-file=/a"], {"token-auth-file": "/b", "authorization-config": ""})
    assert args.one("token-auth-file") == "/b"
    assert not args.has("authorization")


def test_several_values() -> None:
    args = ApiServerArgs(["service-account-issuer=https://a", "service-account-issuer=https://b"])
    assert args.all("service-account-issuer") == ("https://a", "https://b")


@pytest.mark.parametrize(("text", "seconds"), [("2m0s", 120), ("1h", 3600), ("", 7), ("1h1m1s", 3661)])
def test_durations(text: str, seconds: float) -> None:
    flag = f"service-account-max-token-expiration={text}"
    assert ApiServerArgs([flag]).seconds("service-account-max-token-expiration", 7) == seconds


@pytest.mark.parametrize("given", ["etcd-servers=x", "anonymous-auth=maybe", "authentication-token-webhook-cache-ttl=soon"])
def test_what_cannot_be_heard_is_refused(given: str) -> None:
    with pytest.raises(ArgumentError):
        args = ApiServerArgs([given])
        args.flag("anonymous-auth", True)
        args.seconds("authentication-token-webhook-cache-ttl", 0)
