"""One resolver that questions are sent on to: how it is asked, and how it has done so far.

Owns: the exchange over UDP and TCP, and what is remembered of the resolver. Called by: dns.forward.
Never does: choose between resolvers, cache.

A forged answer has to guess the port (a socket per question), the identifier and the question. A resolver that does not
know EDNS (FORMERR, NOTIMP) is asked without from then on.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import secrets
import socket
import struct

from k1s.net.dns import message as messages
from k1s.net.dns import wire
from k1s.net.dns.message import MessageError
from k1s.net.dns.wire import Question
from k1s.net.family import parse_address

TIMEOUT = 2.0
_RECEIVE = 4096


class UpstreamError(Exception):
    """No usable answer from this resolver; the message says which and why."""


class Upstream:
    """`failed_at`: monotonic time of the last failure if it has not answered since; `looping`: it sends questions back;
    `probed_at`, `probing`, `returned`: when it was last asked our own question, that it is just now, that this came back."""

    def __init__(self, address: str, port: int = 53) -> None:
        self.address, self.port = address, port
        self.failed_at: float | None = None
        self.looping = False
        self.returned = False
        self.probing = False
        self.probed_at = -math.inf
        self._edns = True

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    async def ask(self, question: Question) -> bytes:
        """The answer, without OPT, whatever its code. Raises UpstreamError."""
        try:
            async with asyncio.timeout(TIMEOUT):
                answer = await self._exchange(question)
                if self._edns and answer[3] & 0xF in (wire.FORMERR, wire.NOTIMP):
                    self._edns = False
                    answer = await self._exchange(question)
        except TimeoutError as error:
            raise UpstreamError(f"{self}: no answer within {TIMEOUT:g} s") from error
        except (OSError, asyncio.IncompleteReadError, MessageError) as error:
            raise UpstreamError(f"{self}: {error}") from error
        return answer

    async def _exchange(self, question: Question) -> bytes:
        flags = 0x0100 | (question.flags & 0x30)
        query = wire.encode_query(
            question.name, question.type, secrets.randbits(16), flags=flags, edns=self._edns, dnssec=question.dnssec
        )
        answer = await self._by_udp(query)
        if answer[2] & (wire.TRUNCATED >> 8):
            answer = await self._by_tcp(query)
        return messages.without_option(answer)

    async def _by_udp(self, query: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as udp:
            udp.connect(_endpoint(self.address, self.port))
            udp.send(query)
            while True:
                answer = await loop.sock_recv(udp, _RECEIVE)
                if _is_answer_to(answer, query):
                    return answer

    async def _by_tcp(self, query: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self.address, self.port)
        try:
            writer.write(struct.pack(">H", len(query)) + query)
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            answer = await reader.readexactly(length)
        finally:
            writer.close()
        if not _is_answer_to(answer, query):
            raise MessageError("answered another question over TCP")
        return answer


def parse_upstream(text: str, port: int = 53) -> Upstream | None:
    """10.0.0.53, 10.0.0.53:5353, fd00::53, [fd00::53]:5353, fe80::1%eth0; None for anything else."""
    host, number = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        if rest and not rest.startswith(":"):
            return None
        number = rest[1:]
    elif text.count(":") == 1:
        host, _, number = text.partition(":")
    if parse_address(host.partition("%")[0]) is None:
        return None
    if number:
        if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
            return None
        port = int(number)
    return Upstream(host, port)


def _endpoint(address: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """What connect takes; without a look-up of names, and with the interface of a link-local address."""
    host, _, zone = address.partition("%")
    if not zone:
        return address, port
    return str(ipaddress.ip_address(host)), port, 0, int(zone) if zone.isdigit() else socket.if_nametoindex(zone)


def _is_answer_to(answer: bytes, query: bytes) -> bool:
    """Same identifier, an answer, and the same question (which stands uncompressed at the same place)."""
    if len(answer) < 12 or answer[:2] != query[:2] or not answer[2] & 0x80:
        return False
    if answer[4:6] != b"\0\1":
        return False
    end = wire.skip_name(query, 12) + 4
    return answer[12:end].lower() == query[12:end].lower()
