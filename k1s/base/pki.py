"""Keys and certificates: EC P-256 throughout, PEM in and out.

Owns: making keys, CAs, leaves and CSRs, signing, the decision when to renew, and files of a certificate and its key.
Called by: server/certificates, server/join, agent/join, agent/certificates, the CSR signer. Never does: decide who gets what.

`cryptography` costs 15 MB and 50 ms, so it is imported only by the functions that need it; `validity` reads a
certificate's dates by walking the DER itself, so that a start with good certificates does not load it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from k1s.base.files import PUBLIC, read_if_exists, write_atomic

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

DAY = 86400.0
LEAF_LIFE = 365 * DAY
CA_LIFE = 3650 * DAY
# Boards without a battery-backed clock start in the past; a fresh certificate must not be "not yet valid" for a peer
# whose clock lags. NotBefore lies this far back.
BACKDATE = 24 * 3600.0


class PkiError(ValueError):
    """A certificate, key or CSR that cannot be used."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Validity:
    """When a certificate holds, seconds since the epoch."""

    not_before: float
    not_after: float

    @property
    def renew_at(self) -> float:
        """The moment from which it should be replaced: two thirds of its life have gone."""
        return self.not_before + (self.not_after - self.not_before) * 2 / 3


@dataclass(frozen=True, slots=True)
class Subject:
    """Who a certificate is for. `sans` are DNS names and IP addresses."""

    common_name: str
    organizations: tuple[str, ...] = ()
    sans: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadCsr:
    """A CSR whose own signature has been checked. `key_fingerprint` is the SHA-256 of its public key (SPKI), hex."""

    subject: Subject
    key_fingerprint: str


def new_key() -> bytes:
    """A new private key, PEM (PKCS#8)."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def create_ca(common_name: str, now: float, life: float = CA_LIFE) -> Pair:
    """A self-signed CA with a new key."""
    from cryptography import x509

    key_pem = new_key()
    key = _load_key(key_pem)
    name = _name(Subject(common_name))
    builder = _builder(name, name, key.public_key(), now, now + life)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(ca=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return Pair(_sign(builder, key), key_pem)


def issue(ca: Pair, key_pem: bytes, subject: Subject, *, usage: str, now: float, life: float = LEAF_LIFE) -> bytes:
    """A leaf for the key in `key_pem`. `usage`: "server" or "client"."""
    return _issue(ca, _load_key(key_pem).public_key(), subject, usage=usage, now=now, life=life)


def issue_for_csr(ca: Pair, csr_pem: bytes, subject: Subject, *, usage: str, now: float, life: float = LEAF_LIFE) -> bytes:
    """A leaf for the public key of a CSR. Of the CSR only the key is believed; `subject` is the caller's decision."""
    csr = _load_csr(csr_pem)
    return _issue(ca, _public_key(csr), subject, usage=usage, now=now, life=life)


def make_csr(key_pem: bytes, subject: Subject) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(subject))
    if subject.sans:
        builder = builder.add_extension(_alternative_names(subject.sans), critical=False)
    return builder.sign(_load_key(key_pem), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_csr(csr_pem: bytes) -> ReadCsr:
    """What a CSR asks for; PkiError if it is malformed or not signed by its own key."""
    from cryptography import x509

    csr = _load_csr(csr_pem)
    try:
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        sans = tuple(str(name.value) for name in names)
    except x509.ExtensionNotFound:
        sans = ()
    with _long_names():
        return ReadCsr(_subject(csr.subject, sans), _fingerprint(_public_key(csr)))


def read_certificate(pem: bytes) -> ReadCsr:
    """Subject and key fingerprint of a certificate; says nothing about who signed it (see `signed_by`)."""
    from cryptography import x509

    certificate = _load_certificate(pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        sans = tuple(str(name.value) for name in names)
    except x509.ExtensionNotFound:
        sans = ()
    with _long_names():
        return ReadCsr(_subject(certificate.subject, sans), _fingerprint(_public_key(certificate)))


def signed_by(pem: bytes, ca_pem: bytes) -> bool:
    """Whether the CA's key signed this certificate. Dates are not looked at."""
    from cryptography.exceptions import InvalidSignature

    try:
        _load_certificate(pem).verify_directly_issued_by(_load_certificate(ca_pem))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def sign(key_pem: bytes, data: bytes) -> bytes:
    """An ECDSA signature over `data`: proves possession of the key without TLS."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return _load_key(key_pem).sign(data, ec.ECDSA(hashes.SHA256()))


def verify(certificate_pem: bytes, data: bytes, signature: bytes) -> bool:
    """Whether the key of this certificate made the signature. Dates and issuer are not looked at."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = _public_key(_load_certificate(certificate_pem))
    if not isinstance(key, ec.EllipticCurvePublicKey):  # no key of ours
        return False
    try:
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def ca_hash(ca_pem: bytes) -> str:
    """SHA-256 of the CA's PEM as it stands in join tokens, hex."""
    return hashlib.sha256(ca_pem).hexdigest()


def validity(pem: bytes) -> Validity:
    """The dates of the first certificate in `pem`, without loading `cryptography`."""
    try:
        body = pem.split(b"-----BEGIN CERTIFICATE-----", 1)[1].split(b"-----END CERTIFICATE-----", 1)[0]
        der = base64.b64decode(b"".join(body.split()), validate=True)
        fields = _children(_children(_children(der)[0][1])[0][1])
        # TBSCertificate: [0] version (optional), serial, signature, issuer, validity, ...
        offset = 1 if fields[0][0] == 0xA0 else 0
        start, end = _children(fields[offset + 3][1])[:2]
        return Validity(_time(*start), _time(*end))
    except (IndexError, ValueError, binascii.Error) as error:
        raise PkiError(f"not a certificate: {error}") from error


def key_fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate's public key (SPKI), hex, without loading `cryptography`. `der`: the certificate."""
    try:
        fields = _children(_children(_children(der)[0][1])[0][1])
        tag, content = fields[(1 if fields[0][0] == 0xA0 else 0) + 5]
    except IndexError as error:
        raise PkiError("not a certificate") from error
    return hashlib.sha256(bytes([tag]) + _length(len(content)) + content).hexdigest()


def save(pair: Pair, certificate: Path, key: Path) -> None:
    """Write both files. The key goes first: a certificate without its key cannot be told from a good pair."""
    write_atomic(key, pair.key)
    write_atomic(certificate, pair.certificate, PUBLIC)


def load(certificate: Path, key: Path) -> Pair | None:
    """The pair, None unless both files are there."""
    pem, key_pem = read_if_exists(certificate), read_if_exists(key)
    return Pair(pem, key_pem) if pem and key_pem else None


def _children(der: bytes) -> list[tuple[int, bytes]]:
    """The (tag, content) pairs that stand one after the other in `der`."""
    out: list[tuple[int, bytes]] = []
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        out.append((tag, der[at : at + length]))
        at += length
    return out


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(digits)]) + digits


def _time(tag: int, content: bytes) -> float:
    text = content.decode("ascii")
    if tag == 0x17:  # UTCTime: two digits of the year, 50 and up mean 19xx
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _issue(ca: Pair, public_key: ec.EllipticCurvePublicKey, subject: Subject, *, usage: str, now: float, life: float) -> bytes:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    purposes = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
    issuer = _load_certificate(ca.certificate)
    # A leaf that outlives its CA would only fail later and more obscurely.
    end = min(now + life, issuer.not_valid_after_utc.timestamp())
    builder = _builder(_name(subject), issuer.subject, public_key, now, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(ca=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purposes[usage]]), critical=False)
    authority = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority), critical=False)
    if subject.sans:
        builder = builder.add_extension(_alternative_names(subject.sans), critical=False)
    return _sign(builder, _load_key(ca.key))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: float, end: float
) -> x509.CertificateBuilder:
    from cryptography import x509

    moment = datetime.fromtimestamp(int(now), UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - timedelta(seconds=BACKDATE))
        .not_valid_after(datetime.fromtimestamp(int(end), UTC))
    )


def _sign(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import hashes, serialization

    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _name(subject: Subject) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in subject.organizations]
    # X.520 allows 64 characters, which nobody checks who reads them; system:node: and a host's full name are longer at times.
    with _long_names():
        return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, subject.common_name, _validate=False)])


@contextmanager
def _long_names() -> Iterator[None]:
    """`cryptography` warns of each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _subject(name: x509.Name, sans: Sequence[str]) -> Subject:
    from cryptography.x509.oid import NameOID

    common = [str(a.value) for a in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = tuple(str(a.value) for a in name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    return Subject(common[0] if common else "", groups, tuple(sans))


def _alternative_names(sans: Sequence[str]) -> x509.SubjectAlternativeName:
    from cryptography import x509

    names: list[x509.GeneralName] = []
    for san in dict.fromkeys(sans):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(san)))
        except ValueError:
            names.append(x509.DNSName(san))
    return x509.SubjectAlternativeName(names)


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise PkiError("not a private key in PEM form") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError("the private key is not an elliptic-curve key")
    return key


def _load_certificate(pem: bytes) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise PkiError("not a certificate in PEM form") from error


def _load_csr(pem: bytes) -> x509.CertificateSigningRequest:
    from cryptography import x509

    try:
        csr = x509.load_pem_x509_csr(pem)
        good = csr.is_signature_valid
    except (ValueError, TypeError) as error:
        raise PkiError("not a certificate signing request in PEM form") from error
    if not good:
        raise PkiError("the certificate signing request is not signed by its own key")
    return csr


def _public_key(holder: x509.Certificate | x509.CertificateSigningRequest) -> ec.EllipticCurvePublicKey:
    # CSRs of other parties may hold RSA or Ed25519 keys; builders take any of them, so the type is narrowed for mypy only.
    return holder.public_key()  # type: ignore[return-value]


def _fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    from cryptography.hazmat.primitives import serialization

    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()
