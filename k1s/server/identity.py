"""From options to the parts that say who somebody is and what they may.

Owns: reading the flags and the files they name, building authenticators and authorizers from them, following the files.
Called by: server/security. Never does: authenticate, authorize.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from k1s.base.clock import Clock
from k1s.server.apiserver.answer_cache import AnswerCache
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.apiserver.authn import configuration as authentication_file
from k1s.server.apiserver.authn import signatures
from k1s.server.apiserver.authn import static_tokens as token_file
from k1s.server.apiserver.authn import webhook as token_webhooks
from k1s.server.apiserver.authn.configuration import AuthenticationConfig
from k1s.server.apiserver.authn.jwt import TokenKeys
from k1s.server.apiserver.authn.webhook import TokenWebhook
from k1s.server.apiserver.authz import configuration as authorization_file
from k1s.server.apiserver.authz import webhook as authorization_webhooks
from k1s.server.apiserver.authz.app import Authorizer, Fixed, LocalAuthorizer, RemoteAuthorizer
from k1s.server.apiserver.authz.configuration import Mode
from k1s.server.apiserver.authz.webhook import WebhookAuthorizer
from k1s.server.apiserver.config_file import ConfigFileError, WatchedFile
from k1s.server.apiserver.dial import direct
from k1s.server.apiserver.kubeconfig_call import KubeconfigCall
from k1s.server.apiserver.outgoing import Outgoing
from k1s.server.apiserver_args import ApiServerArgs
from k1s.server.config import ServerConfig

log = logging.getLogger("k1s.server.identity")


def arguments(config: ServerConfig) -> ApiServerArgs:
    """Upstream's flags, those that k1s has options of its own for included. Raises ArgumentError."""
    return ApiServerArgs.merged(
        config.kube_apiserver_arg,
        {
            "authentication-config": config.authentication_config,
            "authorization-config": config.authorization_config,
            "token-auth-file": config.token_auth_file,
        },
    )


def token_keys(args: ApiServerArgs, own: Sequence[bytes]) -> TokenKeys:
    """`own` keys verify whatever the flags say: tokens of theirs are in use. Raises ConfigFileError."""
    private, public = list(own), []
    if args.one("service-account-signing-key-file"):
        private.insert(0, _content("service-account-signing-key-file", args.one("service-account-signing-key-file")))
    for file in args.all("service-account-key-file"):
        public.append(_content("service-account-key-file", file))
    if args.has("service-account-key-file"):
        try:
            for pem in public:
                signatures.load_public(pem)
        except ValueError as error:
            raise ConfigFileError(f"service-account-key-file: {error}") from error
    return TokenKeys(private, public)


def static_tokens(args: ApiServerArgs) -> dict[str, UserInfo]:
    """Raises ConfigFileError."""
    file = args.one("token-auth-file")
    if not file:
        return {}
    try:
        return token_file.read(Path(file))
    except token_file.TokenFileError as error:
        raise ConfigFileError(str(error)) from error


def authentication(args: ApiServerArgs, issuers: Sequence[str], clock: Clock) -> Callable[[], AuthenticationConfig]:
    """What says which configuration holds now. `issuers`: of service account tokens. Raises ConfigFileError."""
    anonymous, file = args.flag("anonymous-auth", True), args.one("authentication-config")
    if not file:
        issuer = authentication_file.from_flags(args.flags)
        fixed = AuthenticationConfig((issuer,) if issuer is not None else (), anonymous)
        return lambda: fixed
    if args.has("oidc-"):
        raise ConfigFileError("authentication-config file and oidc-* flags are mutually exclusive")

    def parse(path: Path) -> AuthenticationConfig:
        config = authentication_file.read(path, issuers)
        if args.has("anonymous-auth") and config.says_anonymous:
            raise ConfigFileError(
                "--anonymous-auth flag cannot be set when anonymous field is configured in authentication-config"
            )
        return config if config.says_anonymous else replace(config, anonymous=anonymous)

    return WatchedFile(Path(file), parse, clock).value


def token_webhook(args: ApiServerArgs, outgoing: Outgoing, clock: Clock, audiences: Sequence[str]) -> TokenWebhook | None:
    """Raises ConfigFileError."""
    file = args.one("authentication-token-webhook-config-file")
    if not file:
        return None
    version = args.one("authentication-token-webhook-version", "v1beta1")
    if version not in ("v1", "v1beta1"):
        raise ConfigFileError(f'authentication-token-webhook-version: "{version}" is not v1 or v1beta1')
    seconds = args.seconds("authentication-token-webhook-cache-ttl", token_webhooks.CACHE_SECONDS)
    call = KubeconfigCall(Path(file), outgoing, clock)
    return TokenWebhook(call, AnswerCache(clock, token_webhooks.MAX_ANSWERS), audiences, version=version, seconds=seconds)


def authorization(args: ApiServerArgs, clock: Clock) -> Callable[[], tuple[Mode, ...]]:
    """What says which authorizers are asked now. Raises ConfigFileError."""
    file = args.one("authorization-config")
    if not file:
        modes = authorization_file.from_flags(args.flags)
        return lambda: modes
    if args.has("authorization-mode") or args.has("authorization-webhook-"):
        raise ConfigFileError("authorization-config cannot be specified when authorization-mode or authorization-webhook-* are")
    return WatchedFile(Path(file), authorization_file.read, clock).value


def check_webhooks(args: ApiServerArgs, modes: Sequence[Mode], clock: Clock) -> None:
    """That what names webhooks can be used: at the start, not at the first request. Raises ConfigFileError."""
    token_webhook(args, Outgoing(direct), clock, ())
    for mode in modes:
        if mode.webhook is not None:
            KubeconfigCall(mode.webhook.kubeconfig, Outgoing(direct), clock)


class Modes:
    """Keeps an Authorizer to what `wanted` says."""

    def __init__(self, authorizer: Authorizer, wanted: Callable[[], tuple[Mode, ...]], outgoing: Outgoing, clock: Clock) -> None:
        self._authorizer, self._wanted = authorizer, wanted
        self._outgoing, self._clock = outgoing, clock
        self._known: tuple[Mode, ...] = authorization_file.DEFAULT
        self.follow()

    def follow(self) -> None:
        """Cheap when nothing changed: before each request."""
        wanted = self._wanted()
        if wanted is self._known:
            return
        self._known = wanted
        try:
            self._authorizer.configure([self._made(mode) for mode in wanted])
        except ConfigFileError as error:
            log.error("%s: the authorizers stay as they were", error)

    def _made(self, mode: Mode) -> LocalAuthorizer | RemoteAuthorizer:
        if mode.webhook is not None:
            call = KubeconfigCall(mode.webhook.kubeconfig, self._outgoing, self._clock)
            return WebhookAuthorizer(mode.webhook, call, AnswerCache(self._clock, authorization_webhooks.MAX_ANSWERS))
        if mode.type == "Node":
            return self._authorizer.node
        return self._authorizer.rbac if mode.type == "RBAC" else Fixed(mode.type == "AlwaysAllow")


def _content(flag: str, file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigFileError(f"{flag}: {error}") from error
