"""grpc.health.v1.Health/Check.

Owns: the one call, its two messages encoded by hand. Called by: agent/containers/probes. Never does: keep a channel.
It lives here because gRPC stays in k1s.cri.
"""

from __future__ import annotations

from k1s.cri.channel import Channel

_STATUS = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


async def check(host: str, port: int, service: str, timeout: float) -> str:
    """The status as a word; "SERVING" is health. Raises RuntimeFailure when the server cannot be asked."""
    name = service.encode()
    # message HealthCheckRequest { string service = 1; }
    request = b"\x0a" + _varint(len(name)) + name if name else b""
    channel = Channel(host=host, port=port)
    try:
        answer: bytes = await channel.call("/grpc.health.v1.Health/Check", request, bytes, timeout=timeout)
    finally:
        channel.close()
    # message HealthCheckResponse { ServingStatus status = 1; }
    number = answer[1] if len(answer) >= 2 and answer[0] == 0x08 else 0
    return _STATUS.get(number, "UNKNOWN")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
