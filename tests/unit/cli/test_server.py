"""What `k1s server` says before anything is touched."""

from __future__ import annotations

import pytest

from k1s.base.config import ConfigError
from k1s.cli import server
from k1s.server.config import ServerConfig


@pytest.mark.parametrize("address", ["", "192.0.2.1", "2001:db8::1"])
def test_addresses_to_advertise(address: str) -> None:
    server._check(ServerConfig(advertise_address=address))


def test_an_address_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"--advertise-address \(or --node-ip\): 'host.example'"):
        server._check(ServerConfig(advertise_address="host.example"))
