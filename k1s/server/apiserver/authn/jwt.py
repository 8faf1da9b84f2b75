"""JSON Web Tokens signed with ES256, and nothing else.

Owns: `TokenKeys` (sign, verify, the JWK set). Called by: service_accounts, handlers of /openid. Never does: look at claims.
Source: RFC 7515 (compact form), RFC 7518 3.4 (ES256: r and s, 32 bytes each), RFC 7517 (JWK).

Only ES256 is accepted whatever the header says: "alg" chosen by the sender is the oldest hole in JWT.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

Claims = dict[str, Any]
_LONGEST_TOKEN = 16 * 1024


class InvalidToken(Exception):
    """A token that is malformed or not signed by one of the keys. The message never holds the token."""


class TokenKeys:
    """The first key signs; all of them verify (a rotated key stays until its tokens have expired)."""

    def __init__(self, private_keys: Sequence[bytes]) -> None:
        self._pems = tuple(private_keys)
        self._signer: tuple[str, ec.EllipticCurvePrivateKey] | None = None
        self._public: dict[str, ec.EllipticCurvePublicKey] = {}

    def sign(self, claims: Claims) -> str:
        """The compact form, signed by the first key."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        self._load()
        assert self._signer is not None
        key_id, key = self._signer
        signed = b".".join((_encode(orjson.dumps({"alg": "ES256", "kid": key_id})), _encode(orjson.dumps(claims))))
        r, s = utils.decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
        return b".".join((signed, _encode(r.to_bytes(32, "big") + s.to_bytes(32, "big")))).decode()

    def verify(self, token: str) -> Claims:
        """The claims of a token that one of the keys signed; InvalidToken for any other. Dates are the caller's matter."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        header, claims, signed, signature = _parse(token)
        if header.get("alg") != "ES256" or len(signature) != 64:
            raise InvalidToken("not an ES256 token")
        self._load()
        key = self._public.get(str(header.get("kid")))
        if key is None:
            raise InvalidToken("signed by an unknown key")
        der = utils.encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        try:
            key.verify(der, signed, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise InvalidToken("the signature does not fit") from error
        return claims

    def jwks(self) -> dict[str, Any]:
        """The public keys as a JWK set, as /openid/v1/jwks serves it."""
        self._load()
        keys = []
        for key_id, key in self._public.items():
            numbers = key.public_numbers()
            x, y = (_encode(n.to_bytes(32, "big")).decode() for n in (numbers.x, numbers.y))
            keys.append({"use": "sig", "kty": "EC", "kid": key_id, "crv": "P-256", "alg": "ES256", "x": x, "y": y})
        return {"keys": keys}

    def _load(self) -> None:
        if self._signer is not None:
            return
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        for pem in self._pems:
            key = serialization.load_pem_private_key(pem, password=None)
            if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
                raise ValueError("service account keys must be EC P-256")
            public = key.public_key()
            der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            key_id = _encode(hashlib.sha256(der).digest()).decode()
            self._public[key_id] = public
            if self._signer is None:
                self._signer = (key_id, key)


def peek(token: str) -> Claims:
    """The claims without any check: only to decide who might have issued it."""
    return _parse(token)[1]


def _parse(token: str) -> tuple[Claims, Claims, bytes, bytes]:
    if len(token) > _LONGEST_TOKEN:
        raise InvalidToken("too long")
    parts = token.encode("ascii", "replace").split(b".")
    if len(parts) != 3:
        raise InvalidToken("not in compact form")
    try:
        header, claims = orjson.loads(_decode(parts[0])), orjson.loads(_decode(parts[1]))
        signature = _decode(parts[2])
    except (ValueError, binascii.Error) as error:
        raise InvalidToken("not in compact form") from error
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise InvalidToken("not in compact form")
    return header, claims, parts[0] + b"." + parts[1], signature


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
