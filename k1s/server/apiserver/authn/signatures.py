"""Signatures of JSON Web Tokens and the public keys that check them.

Owns: verify, JWK in and out. Called by: jwt, oidc. Never does: choose a key, look at claims.
Source: RFC 7518 3.3-3.5 (RS, ES, PS), RFC 7517 and 7518 6 (JWK). An algorithm must fit the key's type and, for ES, its curve:
"alg" is chosen by the sender. There is no "none" and no HMAC.

`cryptography` is loaded by the first token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
# alg -> (JWK curve, bytes of r and of s)
_CURVES = {"ES256": ("P-256", 32), "ES384": ("P-384", 48), "ES512": ("P-521", 66)}
_SMALLEST_RSA, _LARGEST_RSA = 2048, 8192


def verify(key: PublicKey, algorithm: str, signed: bytes, signature: bytes) -> bool:
    """Whether `signature` is the key's over `signed`; False for an algorithm that is not the key's."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

    if algorithm not in ALGORITHMS:
        return False
    digest = _hash(algorithm)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            name, size = _CURVES.get(algorithm, ("", 0))
            if name != curve_name(key) or len(signature) != 2 * size:
                return False
            r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
            key.verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(digest))
            return True
        if not isinstance(key, rsa.RSAPublicKey) or algorithm[0] == "E":
            return False
        form: padding.AsymmetricPadding = padding.PKCS1v15()
        if algorithm[0] == "P":
            form = padding.PSS(padding.MGF1(digest), padding.PSS.AUTO)
        key.verify(signature, signed, form, digest)
    except InvalidSignature:
        return False
    return True


def from_jwk(jwk: dict[str, Any]) -> PublicKey | None:
    """The key of a JWK, None if it is not one for signatures of ours. Raises ValueError."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if jwk.get("use") not in (None, "", "sig"):
        return None
    if jwk.get("kty") == "RSA":
        numbers = rsa.RSAPublicNumbers(_number(jwk, "e"), _number(jwk, "n"))
        if not _SMALLEST_RSA <= numbers.n.bit_length() <= _LARGEST_RSA:
            return None
        return numbers.public_key()
    curves: dict[Any, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
    if jwk.get("kty") == "EC" and jwk.get("crv") in curves:
        return ec.EllipticCurvePublicNumbers(_number(jwk, "x"), _number(jwk, "y"), curves[jwk["crv"]]()).public_key()
    return None


def to_jwk(key: PublicKey, key_id: str) -> dict[str, Any]:
    """As /openid/v1/jwks shows a key."""
    from cryptography.hazmat.primitives.asymmetric import ec

    out = {"use": "sig", "kty": "RSA", "kid": key_id, "alg": "RS256"}
    if isinstance(key, ec.EllipticCurvePublicKey):
        algorithm, (name, size) = next((a, c) for a, c in _CURVES.items() if c[0] == curve_name(key))
        numbers = key.public_numbers()
        x, y = (encode(n.to_bytes(size, "big")).decode() for n in (numbers.x, numbers.y))
        return {**out, "kty": "EC", "alg": algorithm, "crv": name, "x": x, "y": y}
    rsa_numbers = key.public_numbers()
    return {**out, "n": _text(rsa_numbers.n), "e": _text(rsa_numbers.e)}


def load_public(pem: bytes) -> list[PublicKey]:
    """Every key of a PEM file: public ones, certificates' and those of private keys. Raises ValueError."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    out: list[PublicKey] = []
    for block in _blocks(pem):
        if b"BEGIN CERTIFICATE" in block:
            key: Any = x509.load_pem_x509_certificate(block).public_key()
        elif b"PRIVATE KEY" in block:
            key = serialization.load_pem_private_key(block, password=None).public_key()
        elif b"PUBLIC KEY" in block:
            key = serialization.load_pem_public_key(block)
        else:
            continue  # EC PARAMETERS stand before keys of openssl's
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise ValueError("service account keys must be RSA or EC")
        out.append(key)
    return out


def key_id(key: PublicKey) -> str:
    """As upstream derives it: the SHA-256 of the key's DER."""
    from cryptography.hazmat.primitives import serialization

    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encode(hashlib.sha256(der).digest()).decode()


def curve_name(key: ec.EllipticCurvePublicKey) -> str:
    return {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}.get(key.curve.name, "")


def encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def decode(text: bytes) -> bytes:
    """Raises ValueError."""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _hash(algorithm: str) -> hashes.HashAlgorithm:
    from cryptography.hazmat.primitives import hashes

    found: dict[str, type[hashes.HashAlgorithm]] = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
    return found[algorithm[2:]]()


def _number(jwk: dict[str, Any], name: str) -> int:
    return int.from_bytes(decode(str(jwk.get(name) or "").encode()), "big")


def _text(number: int) -> str:
    return encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).decode()


def _blocks(pem: bytes) -> list[bytes]:
    out, lines = [], []
    for line in pem.splitlines():
        lines.append(line)
        if line.startswith(b"-----END"):
            out.append(b"\n".join(lines) + b"\n")
            lines = []
    return out
