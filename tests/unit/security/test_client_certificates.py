"""Client certificates over real TLS: who gets in as whom, and who does not get in."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from k1s.base import http_server, pki
from k1s.base.http import Answer, Request, Response
from k1s.server.apiserver.authn.app import Authenticator

NOW = time.time()
UID = ObjectIdentifier("1.3.6.1.4.1.57683.2")
CA = pki.create_ca("client-ca", NOW)
OTHER = pki.create_ca("other-ca", NOW)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def leaf(home: Path, ca: pki.Pair, *, uids: tuple[str, ...] = (), usage: ObjectIdentifier = CLIENT, end: float = 3600) -> Path:
    """A file with a client certificate of jane's and its key."""
    issuer = x509.load_pem_x509_certificate(ca.certificate)
    key_pem = pki.new_key()
    key = serialization.load_pem_private_key(key_pem, None)
    parts = [(NameOID.ORGANIZATION_NAME, "dev"), (NameOID.ORGANIZATION_NAME, "ops"), (NameOID.COMMON_NAME, "jane")]
    name = x509.Name([x509.NameAttribute(kind, value) for kind, value in (*parts, *((UID, uid) for uid in uids))])
    end_of_life = datetime.fromtimestamp(NOW + end, UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer.subject).public_key(key.public_key())  # type: ignore[arg-type]
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(end_of_life - timedelta(days=1))
    builder = builder.not_valid_after(end_of_life).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    made = builder.sign(serialization.load_pem_private_key(ca.key, None), hashes.SHA256())  # type: ignore[arg-type]
    file = home / "client.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key_pem)
    return file


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    authenticator = Authenticator([])

    async def handle(request: Request) -> Answer:
        user = await authenticator.authenticate(request)
        return Response(200, orjson.dumps([user.name, user.uid, list(user.groups)]))

    key = pki.new_key()
    certificate = pki.issue(CA, key, pki.Subject("s", sans=("127.0.0.1",)), usage="server", now=NOW)
    pair = tmp_path / "server.pem"
    pair.write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=CA.certificate.decode())
    context.load_cert_chain(pair)
    listener = await http_server.listen(handle, host="127.0.0.1", port=0, tls=context)
    yield listener.port
    await listener.close(0.1)


async def whoami(port: int, file: Path | None) -> list[object]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=CA.certificate.decode())
    if file is not None:
        context.load_cert_chain(file)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await writer.drain()
        answer = await reader.read()
    finally:
        writer.close()
    if not answer:
        raise ConnectionError("closed")
    found: list[object] = orjson.loads(answer.partition(b"\r\n\r\n")[2])
    return found


async def test_who_one_is(port: int, tmp_path: Path) -> None:
    assert await whoami(port, None) == ["system:anonymous", "", ["system:unauthenticated"]]
    groups = ["dev", "ops", "system:authenticated"]
    assert await whoami(port, leaf(tmp_path, CA)) == ["jane", "", groups]
    assert await whoami(port, leaf(tmp_path, CA, uids=("7",))) == ["jane", "7", groups]


async def test_certificates_of_others_old_ones_and_those_for_servers(port: int, tmp_path: Path) -> None:
    for ca, end, usage in ((OTHER, 3600.0, CLIENT), (CA, -60.0, CLIENT), (CA, 3600.0, SERVER)):
        file = leaf(tmp_path, ca, end=end, usage=usage)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await whoami(port, file)
