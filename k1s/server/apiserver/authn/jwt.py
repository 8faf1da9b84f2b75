"""JSON Web Tokens of this cluster: signed by its own key, checked with every key that may have signed one.

Owns: `TokenKeys` (sign, verify, the JWK set), the compact form. Called by: service_accounts, oidc, handlers of /openid.
Never does: look at claims. Source: RFC 7515 (compact form), RFC 7517 (JWK).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from k1s.server.apiserver.authn import signatures

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

Claims = dict[str, Any]
_LONGEST_TOKEN = 16 * 1024


class InvalidToken(Exception):
    """Credentials that are not good; the message, which TokenReviews show, never holds them."""


class NotOurs(InvalidToken):
    """A token of a kind or an issuer that the checker does not know: somebody else may."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A token taken apart, nothing of it checked."""

    header: Claims
    claims: Claims
    signed: bytes
    signature: bytes


class TokenKeys:
    """The first private key signs. It, the others and `public` (PEM, RSA or EC) verify: a key that was rotated away stays
    until its tokens have expired."""

    def __init__(self, private_keys: Sequence[bytes], public: Sequence[bytes] = ()) -> None:
        self._pems, self._others = tuple(private_keys), tuple(public)
        self._signer: tuple[str, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey] | None = None
        self._public: dict[str, signatures.PublicKey] = {}

    def sign(self, claims: Claims) -> str:
        """The compact form, signed by the first key."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

        self._load()
        assert self._signer is not None
        key_id, key = self._signer
        algorithm = signatures.to_jwk(self._public[key_id], key_id)["alg"]
        head = signatures.encode(orjson.dumps({"alg": algorithm, "kid": key_id}))
        signed = b".".join((head, signatures.encode(orjson.dumps(claims))))
        if isinstance(key, ec.EllipticCurvePrivateKey):
            r, s = utils.decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        else:
            signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return b".".join((signed, signatures.encode(signature))).decode()

    def verify(self, token: str) -> Claims:
        """The claims of a token that one of the keys signed; InvalidToken for any other. Dates are the caller's matter."""
        parsed = parse(token)
        self._load()
        named = parsed.header.get("kid")
        keys = [self._public[named]] if isinstance(named, str) and named in self._public else []
        if not named:
            keys = list(self._public.values())
        algorithm = str(parsed.header.get("alg"))
        if not any(signatures.verify(key, algorithm, parsed.signed, parsed.signature) for key in keys):
            raise InvalidToken(
                "go-jose/go-jose: error in cryptographic primitive" if keys else "invalid signature, no keys found"
            )
        return parsed.claims

    def jwks(self) -> dict[str, Any]:
        """The public keys as a JWK set, as /openid/v1/jwks serves it."""
        self._load()
        return {"keys": [signatures.to_jwk(key, key_id) for key_id, key in self._public.items()]}

    def algorithms(self) -> list[str]:
        return sorted({str(key["alg"]) for key in self.jwks()["keys"]})

    def _load(self) -> None:
        if self._signer is not None:
            return
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec, rsa

        for pem in self._pems:
            key = serialization.load_pem_private_key(pem, password=None)
            fits = isinstance(key, rsa.RSAPrivateKey) or (
                isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
            )
            if not fits:
                raise ValueError("service account signing keys must be RSA or EC P-256")
            assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
            public = key.public_key()
            key_id = signatures.key_id(public)
            self._public[key_id] = public
            if self._signer is None:
                self._signer = (key_id, key)
        for pem in self._others:
            for other in signatures.load_public(pem):
                self._public.setdefault(signatures.key_id(other), other)


def parse(token: str) -> Parsed:
    """Raises NotOurs for what is not the compact form of a signed token."""
    if len(token) > _LONGEST_TOKEN:
        raise NotOurs("too long")
    parts = token.encode("ascii", "replace").split(b".")
    if len(parts) != 3:
        raise NotOurs("not in compact form")
    try:
        header, claims = orjson.loads(signatures.decode(parts[0])), orjson.loads(signatures.decode(parts[1]))
        signature = signatures.decode(parts[2])
    except ValueError as error:
        raise NotOurs("not in compact form") from error
    # "crit" names extensions that must be understood (RFC 7515, 4.1.11): there are none here.
    if not isinstance(header, dict) or not isinstance(claims, dict) or "crit" in header:
        raise NotOurs("not in compact form")
    return Parsed(header, claims, parts[0] + b"." + parts[1], signature)
