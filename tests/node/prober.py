"""One process in a pod's network namespace that serves some ports and tries others, hundreds at a time.

A command is a line of JSON on stdin: {"probe": [[id, protocol, address, port], ...], "seconds": 0.5}, answered by one line
[[id, "" or what went wrong, the address that the server saw], ...]; or {"collect": 1}, answered by the SCTP tokens that came.
There are no SCTP sockets in many kernels, and none are needed: a raw INIT shows what the rules do with its port.
"""

from __future__ import annotations

import errno
import json
import selectors
import socket
import struct
import sys
import time
from typing import Any

_SCTP = 132
_TABLE = [0] * 256
for _number in range(256):
    _value = _number
    for _ in range(8):
        _value = _value >> 1 ^ (0x82F63B78 if _value & 1 else 0)
    _TABLE[_number] = _value


def crc32c(data: bytes) -> int:
    """SCTP's checksum (RFC 9260 appendix A): a packet without it is invalid to connection tracking."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


class Prober:
    def __init__(self, ports: dict[str, list[int]]) -> None:
        self.selector = selectors.DefaultSelector()
        self.tokens: list[int] = []
        self.pending: dict[socket.socket, list[Any]] = {}
        self.results: list[list[Any]] = []
        for port in ports.get("tcp", []):
            listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256)
            self._watch(listener, self._accept)
        for port in ports.get("udp", []):
            server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            server.bind(("::", port))
            self._watch(server, self._echo)
        self.raw = [socket.socket(family, socket.SOCK_RAW, _SCTP) for family in (socket.AF_INET, socket.AF_INET6)]
        for raw in self.raw:
            self._watch(raw, self._sctp)
        self.out = {f: socket.socket(f, socket.SOCK_RAW, _SCTP) for f in (socket.AF_INET, socket.AF_INET6)}

    def _watch(self, sock: socket.socket, act: Any) -> None:
        sock.setblocking(False)
        self.selector.register(sock, selectors.EVENT_READ, act)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, peer = listener.accept()
        except OSError:
            return
        connection.sendall(peer[0].removeprefix("::ffff:").encode())
        connection.close()

    def _echo(self, server: socket.socket) -> None:
        try:
            _, about, _, peer = server.recvmsg(100, 200)
            # From the address that was asked, of several that a host has.
            server.sendmsg([peer[0].removeprefix("::ffff:").encode()], about, 0, peer)
        except OSError:
            return

    def _sctp(self, raw: socket.socket) -> None:
        while True:
            try:
                data = raw.recv(2000)
            except OSError:
                return
            start = (data[0] & 15) * 4 if raw.family == socket.AF_INET else 0
            if data[start + 12 : start + 13] == b"\1":
                self.tokens.append(struct.unpack_from(">I", data, start + 16)[0])

    def _begin(self, number: int, protocol: str, address: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        if protocol == "sctp":
            packet = struct.pack(">HHII BBH I IHHI", 1024 + number % 60000, port, 0, 0, 1, 0, 20, number, 65536, 1, 1, 1)
            packet = packet[:8] + struct.pack("<I", crc32c(packet)) + packet[12:]
            self.out[family].sendto(packet, (address, 0))
            return
        sock = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
        sock.setblocking(False)
        self.pending[sock] = [number, protocol]
        try:
            code = sock.connect_ex((address, port))
            if protocol == "udp" and code == 0:
                sock.send(b"x")
        except OSError as error:
            code = error.errno or 1
        if code not in (0, errno.EINPROGRESS):
            self._end(sock, errno.errorcode[code])
            return
        self.selector.register(sock, selectors.EVENT_READ, self._answered)

    def _answered(self, sock: socket.socket) -> None:
        try:
            seen = sock.recv(100).decode()
        except BlockingIOError:
            return
        except OSError as error:
            self._end(sock, errno.errorcode[error.errno or 1], True)
            return
        self._end(sock, "" if seen else "EOF", True, seen)

    def _end(self, sock: socket.socket, wrong: str, registered: bool = False, seen: str = "") -> None:
        number, _ = self.pending.pop(sock)
        if registered:
            self.selector.unregister(sock)
        sock.close()
        self.results.append([number, wrong, seen])

    def probe(self, wanted: list[list[Any]], seconds: float) -> list[list[Any]]:
        self.results = []
        for item in wanted:
            self._begin(*item)
        deadline = time.monotonic() + seconds
        while self.pending and time.monotonic() < deadline:
            self.turn(max(0.0, deadline - time.monotonic()))
        for sock in list(self.pending):
            self._end(sock, "timeout", True)
        return self.results

    def turn(self, timeout: float | None) -> None:
        for key, _ in self.selector.select(timeout):
            # Another event of this turn may have ended it.
            if key.fileobj in self.pending or key.data != self._answered:
                key.data(key.fileobj)

    def command(self, _: Any) -> None:
        line = sys.stdin.readline()
        if not line:
            sys.exit(0)
        asked = json.loads(line)
        if "collect" in asked:
            for raw in self.raw:
                self._sctp(raw)
            answer: list[Any] = self.tokens
            self.tokens = []
        else:
            answer = self.probe(asked["probe"], asked["seconds"])
        print(json.dumps(answer), flush=True)

    def run(self) -> None:
        self.selector.register(sys.stdin, selectors.EVENT_READ, self.command)
        print("ready", flush=True)
        while True:
            self.turn(None)


if __name__ == "__main__":
    Prober(json.loads(sys.argv[1])).run()
