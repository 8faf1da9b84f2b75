"""A watcher that does not read: nobody waits for it, what piles up for it is bounded, and its connection is cut."""

from __future__ import annotations

import json
import socket
import ssl
import threading

from tests.wire.conftest import Wire

EVENTS, BYTES = 160, 250_000


def _watch(wire: Wire, path: str, *, receive_buffer: int = 0) -> ssl.SSLSocket:
    plain = socket.socket()
    if receive_buffer:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    plain.settimeout(30)
    plain.connect(("127.0.0.1", wire.port))
    context = ssl.create_default_context(cafile=str(wire.home / "ca.pem"))
    secured = context.wrap_socket(plain, server_hostname="127.0.0.1")
    secured.sendall(f"GET {path}?watch=1&resourceVersion=0 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return secured


def _read(secured: ssl.SSLSocket, enough: bytes = b"") -> bytes:
    """What comes until the connection ends, or until `enough` has come."""
    found = bytearray()
    try:
        while data := secured.recv(1 << 20):
            found += data
            if enough and enough in found[-len(data) - len(enough) :]:
                break
    except (ConnectionError, ssl.SSLError):
        pass
    return bytes(found)


def test_a_watcher_that_does_not_read_is_cut_off(wire: Wire, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    slow, quick = _watch(wire, path, receive_buffer=4096), _watch(wire, path)
    heard: list[bytes] = []
    listener = threading.Thread(target=lambda: heard.append(_read(quick, b'"n":"%d"' % EVENTS)), daemon=True)
    listener.start()
    connection = wire.connect()
    for number in range(1, EVENTS + 1):
        body = {"metadata": {"name": "big"}, "data": {"n": str(number), "x": "y" * BYTES}}
        method, target = ("POST", path) if number == 1 else ("PUT", f"{path}/big")
        connection.request(method, target, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status < 300
    listener.join(30)
    # The quick one has seen every event, whatever the slow one did.
    assert heard and [b'"n":"%d"' % number in heard[0] for number in range(1, EVENTS + 1)] == [True] * EVENTS
    rest = _read(slow)
    assert rest.count(b'"type":') < EVENTS and not rest.endswith(b"0\r\n\r\n"), "the stream must not look complete"
    for done in (slow, quick):
        done.close()
    connection.close()
