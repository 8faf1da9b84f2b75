"""AuthenticationConfiguration: who else may say who somebody is, and what nobody in particular may ask for.

Owns: reading and checking the file of --authentication-config, the same from the --oidc-* flags. Called by: server/security.
Never does: authenticate. Source: upstream apiserver/pkg/apis/apiserver (v1 and its validation), KEP-3331, KEP-4633.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from k1s.api.errors import FieldError, invalid_value
from k1s.server.apiserver.authn.configuration_rules import issuer_faults
from k1s.server.apiserver.authn.signatures import ALGORITHMS
from k1s.server.apiserver.config_file import ConfigFileError, check, load_object

Object = dict[str, Any]

KIND = "AuthenticationConfiguration"
_VERSIONS = ("v1", "v1beta1", "v1alpha1")
_MOST_ISSUERS = 64
_MAPPING = {"claim": None, "prefix": None, "expression": None}
_FIELDS = {
    "jwt": [
        {
            "issuer": {
                "url": None,
                "discoveryURL": None,
                "certificateAuthority": None,
                "audiences": None,
                "audienceMatchPolicy": None,
                "egressSelectorType": None,
            },
            "claimValidationRules": [{"claim": None, "requiredValue": None, "expression": None, "message": None}],
            "claimMappings": {
                "username": _MAPPING,
                "groups": _MAPPING,
                "uid": {"claim": None, "expression": None},
                "extra": [{"key": None, "valueExpression": None}],
            },
            "userValidationRules": [{"expression": None, "message": None}],
        }
    ],
    "anonymous": {"enabled": None, "conditions": [{"path": None}]},
}


@dataclass(frozen=True, slots=True)
class ClaimMapping:
    """Where something about the user stands: in a claim (with a prefix put before it) or in an expression's value."""

    claim: str = ""
    prefix: str = ""
    expression: str = ""

    def __bool__(self) -> bool:
        return bool(self.claim or self.expression)


@dataclass(frozen=True, slots=True)
class ClaimRule:
    claim: str = ""
    required: str = ""
    expression: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class JwtIssuer:
    """One entry of `jwt`."""

    url: str
    audiences: tuple[str, ...]
    username: ClaimMapping
    groups: ClaimMapping = ClaimMapping()
    uid: ClaimMapping = ClaimMapping()
    extra: tuple[tuple[str, str], ...] = ()
    claim_rules: tuple[ClaimRule, ...] = ()
    user_rules: tuple[tuple[str, str], ...] = ()
    discovery_url: str = ""
    ca: str = ""
    algorithms: tuple[str, ...] = ALGORITHMS

    @property
    def document(self) -> str:
        """Where the issuer describes itself."""
        return self.discovery_url or f"{self.url.rstrip('/')}/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class AuthenticationConfig:
    """`anonymous_paths`: None, everywhere."""

    issuers: tuple[JwtIssuer, ...] = ()
    anonymous: bool = True
    anonymous_paths: frozenset[str] | None = None
    # Whether the file speaks of anonymous requests at all: --anonymous-auth may not be given then.
    says_anonymous: bool = False

    def allows_anonymous(self, path: str) -> bool:
        return self.anonymous and (self.anonymous_paths is None or path in self.anonymous_paths)


def read(path: Path, own_issuers: Iterable[str] = ()) -> AuthenticationConfig:
    """`own_issuers`: of service account tokens, which nobody else may be. Raises ConfigFileError."""
    obj = load_object(path, KIND, _VERSIONS, _FIELDS)
    entries = obj.get("jwt") or []
    faults: list[FieldError] = []
    if len(entries) > _MOST_ISSUERS:
        faults.append(FieldError("FieldValueTooMany", "jwt", f"must have at most {_MOST_ISSUERS} items", len(entries)))
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        faults += issuer_faults(f"jwt[{index}]", entry, frozenset(own_issuers), seen)
    anonymous = obj.get("anonymous")
    conditions = (anonymous or {}).get("conditions") or []
    enabled = bool((anonymous or {}).get("enabled")) if anonymous is not None else True
    if conditions and not enabled:
        faults.append(
            invalid_value("anonymous.conditions", conditions, "enabled should be set to true when conditions are defined")
        )
    check(path, faults)
    paths = frozenset(str(c.get("path") or "") for c in conditions) if conditions else None
    return AuthenticationConfig(tuple(_issuer(entry) for entry in entries), enabled, paths, anonymous is not None)


def _issuer(entry: Object) -> JwtIssuer:
    issuer, mappings = entry["issuer"], entry.get("claimMappings") or {}
    return JwtIssuer(
        url=issuer["url"],
        audiences=tuple(issuer["audiences"]),
        username=_mapping(mappings.get("username")),
        groups=_mapping(mappings.get("groups")),
        uid=_mapping(mappings.get("uid")),
        extra=tuple((e["key"], e["valueExpression"]) for e in mappings.get("extra") or ()),
        claim_rules=tuple(
            ClaimRule(*(str(rule.get(key) or "") for key in ("claim", "requiredValue", "expression", "message")))
            for rule in entry.get("claimValidationRules") or ()
        ),
        user_rules=tuple((rule["expression"], rule.get("message") or "") for rule in entry.get("userValidationRules") or ()),
        discovery_url=issuer.get("discoveryURL") or "",
        ca=issuer.get("certificateAuthority") or "",
    )


def _mapping(given: Mapping[str, Any] | None) -> ClaimMapping:
    given = given or {}
    return ClaimMapping(given.get("claim") or "", given.get("prefix") or "", given.get("expression") or "")


def from_flags(flags: Mapping[str, tuple[str, ...]]) -> JwtIssuer | None:
    """The issuer that the --oidc-* flags describe, None without --oidc-issuer-url. Raises ConfigFileError."""

    def one(name: str, default: str = "") -> str:
        return flags[name][-1] if flags.get(name) else default

    url, client = one("oidc-issuer-url"), one("oidc-client-id")
    if not url and not client:
        return None
    if not url or not client:
        raise ConfigFileError("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set")
    if urlsplit(url).scheme != "https":
        raise ConfigFileError("oidc-issuer-url: URL scheme must be https")
    claim = one("oidc-username-claim", "sub")
    prefix = one("oidc-username-prefix")
    if not prefix:
        prefix = "" if claim == "email" else f"{url}#"
    algorithms = tuple(one("oidc-signing-algs", "RS256").split(","))
    if not set(algorithms) <= set(ALGORITHMS):
        raise ConfigFileError(f"oidc-signing-algs: unsupported signing alg, known: {','.join(ALGORITHMS)}")
    pairs = [text.partition("=") for value in flags.get("oidc-required-claim", ()) for text in value.split(",")]
    ca = ""
    if one("oidc-ca-file"):
        try:
            ca = Path(one("oidc-ca-file")).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigFileError(f"oidc-ca-file: {error}") from error
    return JwtIssuer(
        url=url,
        audiences=(client,),
        username=ClaimMapping(claim, "" if prefix == "-" else prefix),
        groups=ClaimMapping(one("oidc-groups-claim"), one("oidc-groups-prefix")),
        claim_rules=tuple(ClaimRule(name, value) for name, _, value in pairs),
        ca=ca,
        algorithms=algorithms,
    )
