"""Random requests, the same in every run; `python -m tests.fuzz` goes on with new ones and writes what it finds to corpus/."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from k1s.base import pki
from tests.fuzz.storm import Shot, Storm, api_server, send, wrong

CORPUS = Path(__file__).parent / "corpus"


@pytest.fixture(scope="module")
def key() -> bytes:
    return pki.new_key()


@pytest.mark.parametrize("seed", range(6))
async def test_a_storm_breaks_nothing(seed: int, key: bytes) -> None:
    async with api_server(key) as server:
        storm = Storm(server, seed)
        await storm.run(400)
    assert not storm.broken, [(shot.method, shot.target, shot.body[:300], problem) for shot, problem in storm.broken[:5]]
    assert storm.codes.get(201, 0) > 5, f"a storm that creates nothing tests nothing: {storm.codes}"


@pytest.mark.parametrize("file", sorted(CORPUS.glob("*.json")), ids=lambda file: file.stem)
async def test_what_once_broke(file: Path, key: bytes) -> None:
    """Each file: the requests that led to a broken answer, in order."""
    async with api_server(key) as server:
        for raw in orjson.loads(file.read_bytes()):
            shot = Shot.load(raw)
            code, body, _ = await send(server, shot)
            assert not wrong(shot, code, body)
