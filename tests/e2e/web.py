"""Small web programs for the ingress tests, run by `python -IS web.py VERB ...` in some network namespace.

serve ADDRESS PORT              answers every path with what it was asked, upgrades to WebSocket and echoes frames
load URL HOST SECONDS FILE      GETs one after the other, each on a new connection, until FILE exists or SECONDS are over; prints
                                how many were answered and what went wrong
files ADDRESS PORT DIR USER     the files of a directory, for who says USER (name:password)
echo URL HOST TEXT...           one WebSocket; sends every TEXT, prints what comes back
"""

from __future__ import annotations

import base64
import functools
import hashlib
import http.client
import http.server
import json
import os
import socket
import ssl
import struct
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_key(key: bytes) -> str:
    return base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self.websocket()
            return
        told = {name.lower(): value for name, value in self.headers.items()}
        body = json.dumps({"path": self.path, "headers": told, "peer": self.client_address[0]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def websocket(self) -> None:
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept_key(self.headers["Sec-WebSocket-Key"].encode()))
        self.end_headers()
        self.wfile.flush()
        while (frame := read_frame(self.rfile)) is not None:
            opcode, data = frame
            self.wfile.write(make_frame(opcode, data))
            self.wfile.flush()
            if opcode == 8:
                break
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        return


class Files(http.server.SimpleHTTPRequestHandler):
    """Set by `files`."""

    expected = ""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") == self.expected:
            super().do_GET()
        else:
            self.send_error(401)

    def log_message(self, format: str, *arguments: object) -> None:
        return


def read_frame(file) -> tuple[int, bytes] | None:  # type: ignore[no-untyped-def]
    head = file.read(2)
    if len(head) < 2:
        return None
    length = head[1] & 0x7F
    if length == 126:
        (length,) = struct.unpack(">H", file.read(2))
    elif length == 127:
        (length,) = struct.unpack(">Q", file.read(8))
    mask = file.read(4) if head[1] & 0x80 else b""
    data = file.read(length)
    return head[0] & 0x0F, bytes(b ^ mask[i % 4] for i, b in enumerate(data)) if mask else data


def make_frame(opcode: int, data: bytes, mask: bytes = b"") -> bytes:
    flag = 0x80 if mask else 0
    size = len(data)
    head = bytes([0x80 | opcode])
    if size < 126:
        head += bytes([flag | size])
    else:
        head += bytes([flag | 126]) + struct.pack(">H", size)
    return head + mask + (bytes(b ^ mask[i % 4] for i, b in enumerate(data)) if mask else data)


def connect(url: str, host: str) -> socket.socket:
    parts = urlsplit(url)
    sock = socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), 10)
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        sock = context.wrap_socket(sock, server_hostname=host)
    return sock


def load(url: str, host: str, seconds: float, stop: Path) -> None:
    good, bad = 0, []
    until = time.monotonic() + seconds
    while time.monotonic() < until and not stop.exists():
        connection = http.client.HTTPConnection("x", timeout=10)
        try:
            connection.sock = connect(url, host)
            connection.request("GET", urlsplit(url).path or "/", headers={"Host": host, "Connection": "close"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                good += 1
            else:
                bad.append(f"{answer.status} {body[:60]!r}")
        except (OSError, http.client.HTTPException) as error:
            bad.append(repr(error))
        finally:
            connection.close()
    print(json.dumps({"good": good, "bad": bad}))


def echo(url: str, host: str, texts: list[str]) -> None:
    sock = connect(url, host)
    key = base64.b64encode(os.urandom(16))
    path = urlsplit(url).path or "/"
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    sock.sendall(("\r\n".join([*lines, f"Sec-WebSocket-Key: {key.decode()}"]) + "\r\n\r\n").encode())
    file = sock.makefile("rb")
    status = file.readline().decode()
    assert " 101 " in status, status
    headers = {}
    while (line := file.readline().strip()) != b"":
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    assert headers["sec-websocket-accept"] == accept_key(key), headers
    for text in texts:
        sock.sendall(make_frame(1, text.encode(), os.urandom(4)))
        frame = read_frame(file)
        assert frame is not None and frame[0] == 1, frame
        print(frame[1].decode())
    sock.sendall(make_frame(8, b"", os.urandom(4)))
    sock.close()


def main(words: list[str]) -> None:
    if words[0] == "serve":
        http.server.ThreadingHTTPServer((words[1], int(words[2])), Handler).serve_forever()
    elif words[0] == "files":
        Files.expected = "Basic " + base64.b64encode(words[4].encode()).decode()
        handler = functools.partial(Files, directory=words[3])
        http.server.ThreadingHTTPServer((words[1], int(words[2])), handler).serve_forever()
    elif words[0] == "load":
        load(words[1], words[2], float(words[3]), Path(words[4]))
    else:
        echo(words[1], words[2], words[3:])


if __name__ == "__main__":
    main(sys.argv[1:])
