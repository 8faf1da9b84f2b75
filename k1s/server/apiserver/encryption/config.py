"""What is encrypted with which keys: apiserver.config.k8s.io/v1 EncryptionConfiguration.

Owns: Key, Provider, Rule, Configuration, reading and writing that document. Called by: encryption/ring, rotation, app.
Never does: I/O, encrypt. Providers: aesgcm and identity; the first of a rule is written with, all are read with.
Source: apiserver/pkg/apis/apiserver/v1 types_encryption.go and its validation.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from k1s.api.catalog import builtin_catalog
from k1s.storage.errors import StoreError

Object = Mapping[str, Any]

AESGCM, IDENTITY = "aesgcm", "identity"
_API_VERSION, _KIND = "apiserver.config.k8s.io/v1", "EncryptionConfiguration"
_KEY_BYTES = (16, 24, 32)
_OTHERS = ("aescbc", "secretbox", "kms")


class EncryptionError(StoreError):
    """Values cannot be written or read as they are to be; one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Key:
    """`secret` must not be shown by accident."""

    name: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Provider:
    kind: str
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """`resources`: `secrets`, `deployments.apps`, `*.apps`, `*.*`."""

    resources: tuple[str, ...]
    providers: tuple[Provider, ...]

    @property
    def writer(self) -> Key | None:
        """The key that values are written with; None: they are written as they are."""
        first = self.providers[0]
        return first.keys[0] if first.kind == AESGCM else None

    def key(self, name: str) -> Key | None:
        return next((key for p in self.providers for key in p.keys if key.name == name), None)

    def prefixes(self) -> tuple[str, ...]:
        """Where the store keeps these resources."""
        return tuple(prefix for resource in self.resources for prefix in _prefixes(resource))


@dataclass(frozen=True, slots=True)
class Configuration:
    rules: tuple[Rule, ...] = ()

    def render(self) -> bytes:
        document = {
            "kind": _KIND,
            "apiVersion": _API_VERSION,
            "resources": [
                {"resources": list(rule.resources), "providers": [_provider(provider) for provider in rule.providers]}
                for rule in self.rules
            ],
        }
        return json.dumps(document, indent=1).encode() + b"\n"

    def with_providers(self, *providers: Provider) -> Configuration:
        """The same resources (secrets, if there are none yet), kept another way."""
        first = self.rules[0] if self.rules else Rule(("secrets",), ())
        return Configuration((replace(first, providers=providers),))


def new_key(now: str) -> Key:
    """A random one of 256 bits, named after the moment as in k3s."""
    return Key(f"aesgcmkey-{now.replace(':', '').replace('-', '')}-{secrets.token_hex(3)}", secrets.token_bytes(32))


def parse(document: Any, source: str) -> Configuration:
    """Raises EncryptionError."""
    if not isinstance(document, dict) or document.get("kind") != _KIND or document.get("apiVersion") != _API_VERSION:
        raise EncryptionError(f"{source}: not an {_KIND} of {_API_VERSION}")
    rules = []
    for index, entry in enumerate(document.get("resources") or ()):
        at = f"{source}: resources[{index}]"
        resources, providers = entry.get("resources") or [], entry.get("providers") or []
        if not resources or not all(isinstance(name, str) and name for name in resources):
            raise EncryptionError(f"{at}.resources: Required value: at least one resource is needed")
        if not providers:
            raise EncryptionError(f"{at}.providers: Required value: at least one provider is needed")
        rules.append(Rule(tuple(resources), tuple(_parsed(p, f"{at}.providers[{n}]") for n, p in enumerate(providers))))
    return Configuration(tuple(rules))


def _parsed(provider: Any, at: str) -> Provider:
    if not isinstance(provider, dict) or len(provider) != 1:
        raise EncryptionError(f"{at}: exactly one of {AESGCM}, {IDENTITY} must be named")
    kind = next(iter(provider))
    if kind == IDENTITY:
        return Provider(IDENTITY)
    if kind != AESGCM:
        known = "is not served by k1s" if kind in _OTHERS else "is not known"
        raise EncryptionError(f"{at}: provider {kind} {known}: use {AESGCM} or {IDENTITY}")
    keys: list[Key] = []
    for number, entry in enumerate((provider[kind] or {}).get("keys") or ()):
        name = entry.get("name") or ""
        try:
            secret = base64.b64decode(entry.get("secret") or "", validate=True)
        except (binascii.Error, ValueError):
            raise EncryptionError(f"{at}.keys[{number}].secret: must be base64 encoded") from None
        if not name or ":" in name or any(key.name == name for key in keys):
            raise EncryptionError(f"{at}.keys[{number}].name: must be set, unique, and without a colon")
        if len(secret) not in _KEY_BYTES:
            raise EncryptionError(f"{at}.keys[{number}].secret: secret is not of the expected length, must be one of [16 24 32]")
        keys.append(Key(name, secret))
    if not keys:
        raise EncryptionError(f"{at}.keys: Required value: at least one key is needed")
    return Provider(AESGCM, tuple(keys))


def _provider(provider: Provider) -> Object:
    if provider.kind == IDENTITY:
        return {IDENTITY: {}}
    keys = [{"name": key.name, "secret": base64.b64encode(key.secret).decode()} for key in provider.keys]
    return {AESGCM: {"keys": keys}}


def _prefixes(resource: str) -> tuple[str, ...]:
    plural, dot, group = resource.partition(".")
    if plural == "*" and group == "*":
        return ("/registry/",)
    found = tuple(
        dict.fromkeys(
            r.storage_prefix for r in builtin_catalog() if r.persisted and r.group == group and plural in ("*", r.plural)
        )
    )
    if found:
        return found
    if not dot:
        raise EncryptionError(f'no resource "{resource}" in the core group')
    return (f"/registry/{group}/",) if plural == "*" else (f"/registry/{group}/{plural}/",)
