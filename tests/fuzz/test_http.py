"""Bytes that are no good HTTP, on a real TLS socket: an answer below 500 or a closed connection, soon, and the server goes on.

corpus/http holds the requests as they go over the wire; each is sent whole, cut short, and with bytes changed.
"""

from __future__ import annotations

import random
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.whole_server import WholeServer

CORPUS = Path(__file__).parent / "corpus" / "http"
FILES = sorted(CORPUS.glob("*.txt"))
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
# A client's fault, yet upstream answers it with 500 and these words.
_AS_UPSTREAM = b"without impersonating a user"
# Unfinished requests may be waited for; the test does not.
_PATIENCE = 2.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    made = WholeServer(tmp_path_factory.mktemp("fuzzed"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def codes(server: WholeServer, context: ssl.SSLContext, data: bytes, *, whole: bool) -> list[int]:
    """The status codes that come back until the server closes or has nothing more to say."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=_PATIENCE) as plain:
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            connection.settimeout(_PATIENCE if whole else 0.15)
            found = b""
            try:
                connection.sendall(data)
                while part := connection.recv(65536):
                    found += part
                    # Keep-alive: nothing more comes after a whole answer.
                    connection.settimeout(0.15)
            except (TimeoutError, ConnectionError, ssl.SSLError):
                pass
    if _AS_UPSTREAM in found:
        return []
    return [int(code) for code in _STATUS.findall(found)]


@pytest.fixture(autouse=True)
def still_there(server: WholeServer) -> Iterator[None]:
    before = len(server.log.read_text())
    yield
    assert server.call("GET", "/readyz")[0] == 200
    new = server.log.read_text()[before:]
    assert "Traceback" not in new, new[-3000:]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_whole(file: Path, server: WholeServer) -> None:
    found = codes(server, server.tls(), file.read_bytes(), whole=True)
    assert all(code < 500 for code in found), found


@pytest.mark.parametrize("seed", range(4))
def test_changed(seed: int, server: WholeServer) -> None:
    chance, context = random.Random(seed), server.tls()
    for _ in range(30):
        data = bytearray(chance.choice(FILES).read_bytes())
        for _ in range(chance.choice((1, 2, 5, 20))):
            place = chance.randrange(len(data) or 1)
            data[place : place + chance.choice((0, 1, 1, 5))] = bytes(
                chance.randrange(256) for _ in range(chance.choice((0, 1, 1, 3)))
            )
        if chance.random() < 0.3:
            data = data[: chance.randrange(len(data) + 1)]
        found = codes(server, context, bytes(data), whole=False)
        assert all(code < 500 for code in found), (found, bytes(data[:2000]))


def test_nothing_was_made(server: WholeServer) -> None:
    """None of it has reached the store by another way than it said."""
    code, _, body = server.call("GET", "/api/v1/namespaces/default/configmaps")
    assert code == 200 and [item["metadata"]["name"] for item in body["items"]] == ["kube-root-ca.crt"]
