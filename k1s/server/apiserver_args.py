"""kube-apiserver's own flags, as k3s users give them: --kube-apiserver-arg=oidc-issuer-url=https://...

Owns: ApiServerArgs: which of upstream's flags mean something here, their values. Called by: server/security, server/app.
Never does: read the files they name. A flag that k1s does not know is refused: it would be a wish that nobody hears.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Upstream's flags that are heard, whoever hears them.
KNOWN = frozenset(
    {
        "admission-control-config-file",
        "anonymous-auth",
        "api-audiences",
        "authentication-config",
        "authentication-token-webhook-cache-ttl",
        "authentication-token-webhook-config-file",
        "authentication-token-webhook-version",
        "authorization-config",
        "authorization-mode",
        "authorization-webhook-cache-authorized-ttl",
        "authorization-webhook-cache-unauthorized-ttl",
        "authorization-webhook-config-file",
        "authorization-webhook-version",
        "disable-admission-plugins",
        "enable-admission-plugins",
        "oidc-ca-file",
        "oidc-client-id",
        "oidc-groups-claim",
        "oidc-groups-prefix",
        "oidc-issuer-url",
        "oidc-required-claim",
        "oidc-signing-algs",
        "oidc-username-claim",
        "oidc-username-prefix",
        "service-account-extend-token-expiration",
        "service-account-issuer",
        "service-account-jwks-uri",
        "service-account-key-file",
        "service-account-max-token-expiration",
        "service-account-signing-key-file",
        "token-auth-file",
    }
)
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


class ArgumentError(ValueError):
    """A flag that cannot be used; one line."""


class ApiServerArgs:
    """`given`: values of the option, each `name=value` (dashes in front are allowed). A flag may stand several times."""

    def __init__(self, given: Iterable[str], known: frozenset[str] = KNOWN) -> None:
        self.flags: dict[str, tuple[str, ...]] = {}
        last = ""
        for text in given:
            name, equals, value = text.lstrip("-").partition("=")
            if last and name not in known:
                # A list's later items: the option itself was split at commas.
                self.flags[last] = (*self.flags[last][:-1], f"{self.flags[last][-1]},{text}")
                continue
            if name not in known:
                raise ArgumentError(f'--kube-apiserver-arg: "{name}" is no flag that k1s knows')
            self.flags[name] = (*self.flags.get(name, ()), value if equals else "true")
            last = name

    @classmethod
    def merged(cls, given: Iterable[str], options: Mapping[str, str]) -> ApiServerArgs:
        """`options`: k1s's own options of the same names, which count where they are set."""
        out = cls(given)
        for name, value in options.items():
            if value:
                out.flags[name] = (value,)
        return out

    def one(self, name: str, default: str = "") -> str:
        """The last value, as flags go."""
        return self.flags[name][-1] if self.flags.get(name) else default

    def all(self, name: str) -> tuple[str, ...]:
        """Every value; items separated by commas count one by one."""
        return tuple(item.strip() for value in self.flags.get(name, ()) for item in value.split(",") if item.strip())

    def flag(self, name: str, default: bool) -> bool:
        """Raises ArgumentError."""
        text = self.one(name).lower()
        if text not in ("", "true", "false", "1", "0"):
            raise ArgumentError(f'{name}: "{text}" is not true or false')
        return default if not text else text in ("true", "1")

    def seconds(self, name: str, default: float) -> float:
        """A duration such as 1h30m. Raises ArgumentError."""
        text = self.one(name)
        if not text:
            return default
        found = _DURATION.fullmatch(text)
        if found is None or not any(found.groups()):
            raise ArgumentError(f'{name}: "{text}" is not a duration such as 2m0s')
        hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return float(hours * 3600 + minutes * 60 + seconds)

    def has(self, prefix: str) -> bool:
        """Whether any flag begins so."""
        return any(name.startswith(prefix) for name in self.flags)
