"""Why another server could not be reached, in the words of Go's net and crypto/tls packages, which clients and people look for.

Owns: reason. Called by: forward, outgoing. Never does: decide what follows from it.
"""

from __future__ import annotations

import asyncio
import ssl

_X509 = {
    "self-signed certificate": "certificate signed by unknown authority",
    "self-signed certificate in certificate chain": "certificate signed by unknown authority",
    "unable to get local issuer certificate": "certificate signed by unknown authority",
    "certificate has expired": "certificate has expired or is not yet valid",
    "certificate is not yet valid": "certificate has expired or is not yet valid",
}


def reason(address: str, error: OSError | asyncio.IncompleteReadError) -> str:
    """`address`: host:port, as it was dialled."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message
        return f"tls: failed to verify certificate: x509: {_X509.get(why, why)}"
    if isinstance(error, ssl.SSLError):
        return f"remote error: tls: {error.reason or error}"
    if isinstance(error, ConnectionRefusedError):
        return f"dial tcp {address}: connect: connection refused"
    if isinstance(error, ConnectionResetError | asyncio.IncompleteReadError):
        return "EOF"
    if isinstance(error, TimeoutError):
        return f"dial tcp {address}: i/o timeout"
    return f"dial tcp {address}: {(error.strerror or str(error)).lower()}"
