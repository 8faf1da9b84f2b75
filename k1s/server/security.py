"""Authentication, authorization, admission and their endpoints, put together for one server.

Owns: Security. Called by: server/app. Never does: decide anything itself.

The API server needs these at construction, and they need its informers: so make Security first, give it to ApiServer, then
`attach`. Until then every request is answered 503.
"""

from __future__ import annotations

from k1s.api.catalog import Catalog
from k1s.api.errors import ApiError, service_unavailable
from k1s.base.clock import Clock
from k1s.base.http import Answer, Handler, Request
from k1s.client.interface import Client, InformerFactory
from k1s.server import identity
from k1s.server.apiserver.admission import settings as admission_settings
from k1s.server.apiserver.admission.chain import AdmissionChain, build
from k1s.server.apiserver.admission.webhooks.steps import Convert, convert_builtin
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.authn import openid
from k1s.server.apiserver.authn.app import Authenticator, TokenChecker
from k1s.server.apiserver.authn.bootstrap_tokens import BootstrapTokens
from k1s.server.apiserver.authn.node_keys import NodeKeys
from k1s.server.apiserver.authn.providers import Providers
from k1s.server.apiserver.authn.secret_tokens import SecretTokens
from k1s.server.apiserver.authn.service_accounts import ServiceAccountTokens
from k1s.server.apiserver.authn.static_tokens import StaticTokens
from k1s.server.apiserver.authz.app import Authorizer
from k1s.server.apiserver.authz.node import NodeAuthorizer
from k1s.server.apiserver.authz.rbac import RbacAuthorizer
from k1s.server.apiserver.dial import direct
from k1s.server.apiserver.forward import Connect
from k1s.server.apiserver.impersonation import impersonate
from k1s.server.apiserver.outgoing import Outgoing
from k1s.server.apiserver.registry import HandlerKey, ResourceHandler
from k1s.server.apiserver.subresources.reviews import ReviewHandler
from k1s.server.apiserver.subresources.token import TokenHandler
from k1s.server.config import ServerConfig
from k1s.server.defaults import rbac
from k1s.server.identity import arguments

_REVIEWS = (
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
)


class Security:
    """What ApiServer takes as authenticator and authorizer; `handlers`, `paths` and `impersonate` go there too.

    `service_account_keys`: PEM, the first one signs unless a flag names another.
    Raises ConfigFileError, ArgumentError where flags or the files that they name cannot be used.
    """

    def __init__(self, config: ServerConfig, clock: Clock, service_account_keys: list[bytes]) -> None:
        self._config, self._clock = config, clock
        self._args = args = arguments(config)
        issuers = args.all("service-account-issuer") or (f"https://kubernetes.default.svc.{config.cluster_domain}",)
        self.issuer, self._former = issuers[0], issuers[1:]
        self._keys = identity.token_keys(args, service_account_keys)
        self._static = identity.static_tokens(args)
        plugins = (args.all("enable-admission-plugins"), args.all("disable-admission-plugins"))
        self._admission_settings = admission_settings.read(*plugins, args.one("admission-control-config-file"))
        self._authentication = identity.authentication(args, issuers, clock)
        self._authorization = identity.authorization(args, clock)
        identity.check_webhooks(args, self._authorization(), clock)
        self.tokens: ServiceAccountTokens | None = None
        self.node_keys: NodeKeys | None = None
        self.authenticator: Authenticator | None = None
        self.authorizer: Authorizer | None = None
        self.admission: AdmissionChain | None = None
        self._reviews: ReviewHandler | None = None
        self._token: TokenHandler | None = None

    def attach(
        self,
        informers: InformerFactory,
        client: Client,
        catalog: Catalog | None = None,
        convert: Convert = convert_builtin,
        connect: Connect = direct,
    ) -> AdmissionChain:
        """Go to work; the result is for ApiServer.admission. `client`: privileged and in-process. `catalog`: what is served.

        `convert` brings an object into another version of its kind; `connect` reaches webhooks (Dialer.connect).
        """
        args, outgoing = self._args, Outgoing(connect)
        audiences = args.all("api-audiences") or (self.issuer, *(() if args.has("service-account-issuer") else ("k1s",)))
        self.tokens = ServiceAccountTokens(
            self._keys,
            informers,
            self._clock,
            issuer=self.issuer,
            audiences=audiences,
            others=self._former,
            longest=int(args.seconds("service-account-max-token-expiration", 0)),
            extend=args.flag("service-account-extend-token-expiration", True),
        )
        self.node_keys = NodeKeys(informers)
        checkers: list[TokenChecker] = [StaticTokens(self._static, audiences)] if self._static else []
        checkers += [self.tokens, BootstrapTokens(informers, self._clock, audiences)]
        webhook = identity.token_webhook(args, outgoing, self._clock, audiences)
        providers = Providers(self._authentication, outgoing, self._clock, audiences, webhook)
        self.authenticator = Authenticator(checkers, remote=providers.remote, nodes=self.node_keys, anonymous=providers.anonymous)
        self.authorizer = Authorizer(RbacAuthorizer(informers), NodeAuthorizer(informers, rbac.node_rules()))
        self._modes = identity.Modes(self.authorizer, self._authorization, outgoing, self._clock)
        self._reviews = ReviewHandler(self.authenticator, self.authorizer)
        self._token = TokenHandler(self.tokens, informers)
        self.admission = build(client, informers, self.authorizer, catalog, convert, connect, self._admission_settings)
        return self.admission

    def secret_tokens(self, client: Client, informers: InformerFactory, *, ca: bytes) -> SecretTokens:
        """The task that fills token Secrets: run its `run`."""
        assert self.tokens is not None, "attach first"
        return SecretTokens(client, informers, self.tokens, self._clock, ca=ca)

    async def authenticate(self, request: Request) -> UserInfo:
        if self.authenticator is None:
            raise _starting()
        return await self.authenticator.authenticate(request)

    async def authorize(self, user: UserInfo, info: RequestInfo) -> None:
        if self.authorizer is None:
            raise _starting()
        self._modes.follow()
        await self.authorizer.authorize(user, info)

    def reason(self, user: UserInfo, info: RequestInfo) -> str:
        """Why a user may or may not, for the audit log, as far as that can be said without asking somebody."""
        if self.authorizer is None:
            return ""
        good, reason = self.authorizer.decide(user, info)
        return reason or (self.authorizer.why(user, info) if good else "")

    async def impersonate(self, request: Request, user: UserInfo) -> UserInfo:
        if self.authorizer is None:
            raise _starting()
        return await impersonate(request, user, self.authorizer)

    def handlers(self) -> dict[HandlerKey, ResourceHandler]:
        """For ApiServer(handlers=...)."""
        out: dict[HandlerKey, ResourceHandler] = {(group, plural, ""): self._review for group, plural in _REVIEWS}
        out["", "serviceaccounts", "token"] = self._token_request
        return out

    def paths(self) -> dict[str, Handler]:
        """For ApiServer(paths=...): what others need to check this cluster's tokens."""
        return {openid.CONFIGURATION_PATH: self._configuration, openid.JWKS_PATH: self._jwks}

    async def _review(self, request: Request, info: RequestInfo, user: UserInfo, server: object) -> Answer:
        if self._reviews is None:
            raise _starting()
        return await self._reviews.handle(request, info, user, server)  # type: ignore[arg-type]

    async def _token_request(self, request: Request, info: RequestInfo, user: UserInfo, server: object) -> Answer:
        if self._token is None:
            raise _starting()
        return await self._token.handle(request, info, user, server)  # type: ignore[arg-type]

    async def _configuration(self, request: Request) -> Answer:
        host = request.headers.get("Host") or f"{self._config.advertise_address or '127.0.0.1'}:{self._config.https_listen_port}"
        uri = self._args.one("service-account-jwks-uri") or f"https://{host}{openid.JWKS_PATH}"
        return openid.configuration(self.issuer, uri, self._keys)

    async def _jwks(self, _request: Request) -> Answer:
        return openid.jwks(self._keys)


def _starting() -> ApiError:
    return service_unavailable("the API server is starting")
