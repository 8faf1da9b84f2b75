"""A DNS server on loopback with resolvers of the test's own upstream.

The server is 127.0.0.1, the resolvers .2 and .3, all on one port that was free.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from contextlib import ExitStack
from pathlib import Path

import dnslib

from k1s.base.clock import RealClock
from k1s.net.dns import wire
from k1s.net.dns.forward import Forwarder
from k1s.net.dns.server import DnsServer


class OneZone:
    def __init__(self) -> None:
        self.services: dict[tuple[str, str], dict] = {}
        self.pieces: list[dict] = []

    def add(self, name: str, **spec: object) -> None:
        self.services[("shop", name)] = {"metadata": {"name": name, "namespace": "shop"}, "spec": spec}

    def service(self, namespace: str, name: str) -> dict | None:
        return self.services.get((namespace, name))

    def slices(self, namespace: str, name: str) -> list[dict]:
        return self.pieces

    def has_services(self, namespace: str) -> bool:
        return True

    def services_at(self, address: str) -> list[dict]:
        return []

    def slices_at(self, address: str) -> list[dict]:
        return []


class Upstream:
    """A resolver on 127.0.0.x: answers A with 192.0.2.53, counts what it was asked.

    Modes: answer, silent, refuse, forge, long (more than UDP takes), missing, slow (0.3 s), old (knows no EDNS), odd (records
    that reach past the end), loop (asks whoever `forward_to` says).
    """

    def __init__(self, address: str, port: int) -> None:
        self.address, self.port = address, port
        self.asked: list[tuple[str, str]] = []
        self.probes = 0
        self.sources: set[int] = set()
        self.forward_to: tuple[str, int] = ("127.0.0.1", port)
        self._tasks: set[asyncio.Task[None]] = set()
        self.mode = "answer"
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        upstream = self

        class Protocol(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                upstream.sources.add(addr[1])
                if upstream.mode in ("loop", "slow"):
                    task = asyncio.ensure_future(upstream.later(data, addr))
                    upstream._tasks.add(task)
                    return
                answer = upstream.answer(data, "udp")
                if answer is not None and upstream._transport is not None:
                    upstream._transport.sendto(answer, addr)

        self._transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=(self.address, self.port))
        self._tcp = await asyncio.start_server(self._connection, self.address, self.port)

    async def later(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.mode == "slow":
            await asyncio.sleep(0.3)
            answer = self.answer(data, "udp")
        else:
            self.note(dnslib.DNSRecord.parse(data), "udp")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as back:
                back.connect(self.forward_to)
                back.send(data)
                answer = await asyncio.get_running_loop().sock_recv(back, 65535)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)

    def note(self, question: dnslib.DNSRecord, how: str) -> None:
        if question.q.qtype == wire.HINFO:  # the server's own question, to see whether we send it back
            self.probes += 1
        else:
            self.asked.append((how, str(question.q.qname)))

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack(">H", await reader.readexactly(2))
        answer = self.answer(await reader.readexactly(length), "tcp") or b""
        writer.write(struct.pack(">H", len(answer)) + answer)
        writer.close()

    def answer(self, data: bytes, how: str) -> bytes | None:
        question = dnslib.DNSRecord.parse(data)
        self.note(question, how)
        if self.mode == "silent":
            return None
        reply = question.reply()
        if self.mode == "refuse":
            reply.header.rcode = wire.REFUSED
        elif self.mode == "forge":
            # Another identifier, then another name: both are to be ignored; the right one comes last.
            reply.header.id ^= 1
        elif self.mode == "old" and question.ar:
            reply.header.rcode = wire.FORMERR
        elif self.mode == "odd":
            reply.add_answer(dnslib.RR(question.q.qname, rdata=dnslib.A("192.0.2.66"), ttl=60))
            return bytes(reply.pack())[:-2]
        elif self.mode == "long" and how == "udp":
            reply.header.tc = 1
        elif self.mode == "long":
            for number in range(100):
                reply.add_answer(dnslib.RR(question.q.qname, rdata=dnslib.A(f"192.0.2.{number}"), ttl=60))
        elif self.mode == "missing":
            reply.header.rcode = wire.NXDOMAIN
            soa = dnslib.SOA("ns.example", "h.example", (1, 2, 3, 4, 20))
            reply.add_auth(dnslib.RR("example", dnslib.QTYPE.SOA, rdata=soa, ttl=3600))
        else:
            reply.add_answer(dnslib.RR(question.q.qname, rdata=dnslib.A("192.0.2.53"), ttl=300))
        return bytes(reply.pack())

    def stop(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._tcp.close()
        for task in self._tasks:
            task.cancel()


class Clock(RealClock):
    """Real, but for what a test adds to it."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


def free_port() -> int:
    """Free for UDP and TCP on all three addresses, and none that an outgoing connection could take meanwhile."""
    while True:
        port = random.randrange(20_000, 30_000)
        with ExitStack() as stack:
            try:
                for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
                    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                        stack.enter_context(socket.socket(socket.AF_INET, kind)).bind((address, port))
            except OSError:
                continue
            return port


class World:
    """A server on 127.0.0.1 with two resolvers, .2 and .3, all on one port."""

    def __init__(self, tmp_path: Path) -> None:
        self.port = free_port()
        self.zone, self.clock = OneZone(), Clock()
        self.first, self.second = Upstream("127.0.0.2", self.port), Upstream("127.0.0.3", self.port)
        self.file = tmp_path / "resolv.conf"
        self.file.write_text("# comment\nnameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.3\noptions ndots:1\n")
        self.forwarder = Forwarder(str(self.file), own_addresses=["127.0.0.1"], clock=self.clock, port=self.port)
        self.server = DnsServer(self.zone, self.forwarder, domain="cluster.local", addresses=["127.0.0.1"], port=self.port)

    async def udp(self, name: str, kind: str = "A", size: int = 0) -> dnslib.DNSRecord:
        message = dnslib.DNSRecord.question(name, kind)
        if size:
            message.add_ar(dnslib.EDNS0(udp_len=size))
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
            client.connect(("127.0.0.1", self.port))
            client.send(message.pack())
            answer = dnslib.DNSRecord.parse(await asyncio.wait_for(loop.sock_recv(client, 65535), 10))
        assert answer.header.id == message.header.id
        assert str(answer.q.qname) == name + "."
        return answer

    async def say(self, message: bytes, *, seconds: float = 2.0) -> bytes:
        """Any bytes by UDP, and what comes back."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
            client.connect(("127.0.0.1", self.port))
            client.send(message)
            return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 65535), seconds)

    async def tcp(self, *names: str) -> list[dnslib.DNSRecord]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answers = []
        for name in names:
            message = bytes(dnslib.DNSRecord.question(name).pack())
            writer.write(struct.pack(">H", len(message)) + message)
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            answers.append(dnslib.DNSRecord.parse(await reader.readexactly(length)))
        writer.close()
        return answers


def data(answer: dnslib.DNSRecord) -> list[str]:
    return [str(r.rdata) for r in answer.rr]
