"""Service account tokens of pods: renewed in time, whatever this machine's clock says."""

from __future__ import annotations

from typing import Any

import pytest

from k1s.agent.volumes.tokens import TokenFault, TokenManager
from k1s.api.errors import ApiError
from k1s.base.clock import VirtualClock, rfc3339

POD = {"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": {}}
DAY = 86400.0


class Server:
    """Issues tokens by its own clock, which differs from the agent's by `ahead` seconds."""

    def __init__(self, clock: VirtualClock, ahead: float) -> None:
        self.clock, self.ahead, self.issued, self.away = clock, ahead, 0, False

    async def create(self, resource: Any, obj: Any, namespace: str, *, subresource: str, name: str) -> Any:
        if self.away:
            raise ApiError(503, "ServiceUnavailable", "away")
        self.issued += 1
        now = self.clock.now() + self.ahead
        expires = rfc3339(now + obj["spec"]["expirationSeconds"])
        status = {"token": f"t{self.issued}", "expirationTimestamp": expires}
        return {"metadata": {"creationTimestamp": rfc3339(now)}, "status": status}


@pytest.mark.parametrize("ahead", [0.0, DAY, -DAY, 400 * DAY])
async def test_a_token_is_renewed_after_four_fifths_of_its_life(ahead: float) -> None:
    clock = VirtualClock()
    server: Any = Server(clock, ahead)
    manager = TokenManager(server, clock)
    for _ in range(3):
        assert await manager.get(POD, {}) == "t1"
    assert manager.next_refresh("u") == clock.now() + 2880
    await clock.advance(2879)
    assert await manager.get(POD, {}) == "t1"
    await clock.advance(2)
    assert await manager.get(POD, {}) == "t2"


async def test_an_old_token_serves_while_the_server_is_away_and_no_longer() -> None:
    clock = VirtualClock()
    server: Any = Server(clock, DAY)
    manager = TokenManager(server, clock)
    await manager.get(POD, {})
    server.away = True
    await clock.advance(3500)
    assert await manager.get(POD, {}) == "t1"
    await clock.advance(101)
    with pytest.raises(TokenFault):
        await manager.get(POD, {})
