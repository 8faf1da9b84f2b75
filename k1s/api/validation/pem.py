"""PEM blocks and what is in them, as Go's encoding/pem and crypto/x509 see them.

Owns: blocks, certificate_request, certificate. Called by: certificates.py, extension.py. Never does: trust anything.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s*\n(.*?)-----END \1-----", re.DOTALL)


def blocks(data: bytes) -> Iterator[tuple[str, bool, bytes]]:
    """(type, whether it has headers, content) of each block; what cannot be read is skipped."""
    for match in _BLOCK.finditer(data.replace(b"\r\n", b"\n")):
        body = match.group(2)
        headers = b":" in body
        if headers:
            body = body.partition(b"\n\n")[2]
        try:
            content = b64decode(b"".join(body.split()), validate=True)
        except (binascii.Error, ValueError):
            continue
        yield match.group(1).decode(), headers, content


def certificate_request(der: bytes) -> tuple[x509.CertificateSigningRequest | None, str]:
    """The request, or None and what is wrong with it; its signature is checked."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        request = x509.load_der_x509_csr(der)
        good = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None, "asn1: structure error: malformed certificate request"
    return (request, "") if good else (None, _failure(request))


def _failure(request: x509.CertificateSigningRequest) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    key = request.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "x509: ECDSA verification failure"
    return "crypto/rsa: verification error" if isinstance(key, rsa.RSAPublicKey) else "x509: Ed25519 verification failure"


def certificate(der: bytes) -> x509.Certificate | None:
    """The certificate; None if it is none."""
    from cryptography import x509

    try:
        found = x509.load_der_x509_certificate(der)
        found.public_key()
        _ = list(found.extensions)
    except (ValueError, TypeError):
        return None
    return found


def is_authority(found: x509.Certificate) -> bool:
    """Whether basic constraints say CA."""
    from cryptography import x509

    try:
        return found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def public_key(holder: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    """The public key as DER: two are the same if these bytes are."""
    from cryptography.hazmat.primitives import serialization

    return holder.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def unsupported_key(request: x509.CertificateSigningRequest) -> str:
    """Why a pod's certificate may not be for this key; "" if it may."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    key = request.public_key()
    if isinstance(key, ed25519.Ed25519PublicKey):
        return ""
    if isinstance(key, ec.EllipticCurvePublicKey):
        good = isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1)
        return "" if good else "elliptic public keys must use curve P256, P384, or P521"
    if isinstance(key, rsa.RSAPublicKey):
        return "" if key.key_size in (3072, 4096) else "RSA keys must have modulus size 3072 or 4096"
    return "unknown public key type; supported types are Ed25519, ECDSA, and RSA"
