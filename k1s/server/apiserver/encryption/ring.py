"""Values sealed and opened: AES-GCM, upstream's format.

Owns: Ring. Called by: encryption/store, rotation. Never does: I/O. A sealed value is `k8s:enc:aesgcm:v1:KEY:` + nonce (12) +
ciphertext + tag (16); the key's path in the store is authenticated with it, so nobody can swap two Secrets in the file.
Source: apiserver/pkg/storage/value/encrypt/aes/aes.go. The library is loaded when the first key is used.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from k1s.server.apiserver.encryption.config import Configuration, EncryptionError, Key, Rule

MARK = b"k8s:enc:"
_HEAD = b"k8s:enc:aesgcm:v1:"
_NONCE = 12


class Ring:
    """`load` puts another configuration in force at once."""

    def __init__(self, configuration: Configuration | None = None) -> None:
        self._ciphers: dict[bytes, Any] = {}
        # Writes on their way to the disk, by the configuration they were sealed under.
        self._generation = 0
        self._writing: dict[int, int] = {}
        self._ended: asyncio.Event | None = None
        self.load(configuration or Configuration())

    def load(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self._rules: list[tuple[tuple[str, ...], Rule]] = [(rule.prefixes(), rule) for rule in configuration.rules]
        # Keys under these may have to be sealed, or may be sealed.
        self.prefixes: tuple[str, ...] = tuple(prefix for prefixes, _ in self._rules for prefix in prefixes)
        self._ciphers.clear()
        self._generation += 1

    def begin(self) -> int:
        """A write is about to be sealed; `end` takes what this returns."""
        self._writing[self._generation] = self._writing.get(self._generation, 0) + 1
        return self._generation

    def end(self, generation: int) -> None:
        self._writing[generation] -= 1
        if not self._writing[generation]:
            del self._writing[generation]
            if self._ended is not None:
                self._ended.set()

    async def settled(self) -> None:
        """Return once nothing that was sealed under an earlier configuration is still to be written."""
        while any(generation < self._generation for generation in self._writing):
            self._ended = asyncio.Event()
            await self._ended.wait()

    def rule(self, path: str) -> Rule | None:
        return next((rule for prefixes, rule in self._rules if path.startswith(prefixes)), None)

    def seal(self, path: str, value: bytes) -> bytes:
        """As it is to be stored: sealed, or as it is."""
        rule = self.rule(path)
        key = rule.writer if rule is not None else None
        if key is None:
            return value
        nonce = os.urandom(_NONCE)
        sealed: bytes = self._cipher(key).encrypt(nonce, value, path.encode())
        return b"%b%b:%b%b" % (_HEAD, key.name.encode(), nonce, sealed)

    def open(self, path: str, value: bytes) -> bytes:
        """Raises EncryptionError."""
        if value[: len(MARK)] != MARK:
            return value
        name, colon, sealed = value[len(_HEAD) :].partition(b":")
        if not value.startswith(_HEAD) or not colon:
            kind = value[len(MARK) : len(MARK) + 32].split(b":")[0].decode("ascii", "replace")
            raise EncryptionError(f"{path} is encrypted with {kind}, which k1s does not read")
        rule = self.rule(path)
        key = rule.key(name.decode("utf-8", "replace")) if rule is not None else None
        if key is None:
            raise EncryptionError(
                f"{path} is encrypted with the key {name.decode('utf-8', 'replace')!r}, which this server does not have: "
                "put back the encryption configuration (server/cred/encryption-config.json) that belongs to this database"
            )
        from cryptography.exceptions import InvalidTag

        try:
            opened: bytes = self._cipher(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], path.encode())
        except (InvalidTag, ValueError):
            raise EncryptionError(
                f"{path} cannot be decrypted with the key {key.name!r}: the key is not the one it was written with, "
                "or the value was changed"
            ) from None
        return opened

    def current(self, path: str, value: bytes) -> bool:
        """Whether a stored value is kept the way it would be written now."""
        rule = self.rule(path)
        key = rule.writer if rule is not None else None
        if key is None:
            return value[: len(MARK)] != MARK
        return value.startswith(_HEAD + key.name.encode() + b":")

    def _cipher(self, key: Key) -> Any:
        cipher = self._ciphers.get(key.secret)
        if cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            cipher = self._ciphers[key.secret] = AESGCM(key.secret)
        return cipher
