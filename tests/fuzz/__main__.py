"""`python -m tests.fuzz [--seconds 60] [--seed N]`: storms with new seeds; what breaks is written to tests/fuzz/corpus."""

from __future__ import annotations

import argparse
import asyncio
import time

import orjson

from k1s.base import pki
from tests.fuzz.storm import Storm, api_server
from tests.fuzz.test_storm import CORPUS


async def main(seconds: float, seed: int, shots: int) -> None:
    key, end, codes, problems = pki.new_key(), time.monotonic() + seconds, {}, {}
    while time.monotonic() < end:
        async with api_server(key) as server:
            storm = Storm(server, seed)
            await storm.run(shots)
        for code, count in storm.codes.items():
            codes[code] = codes.get(code, 0) + count
        for shot, problem in storm.broken:
            if problem not in problems:
                problems[problem] = shot
                print(f"seed {seed}: {problem}\n   {shot.method} {shot.target}\n   {shot.body[:500]!r}", flush=True)
                (CORPUS / f"found-{len(problems)}-{seed}.json").write_bytes(
                    orjson.dumps([shot.dump()], option=orjson.OPT_INDENT_2)
                )
        seed += 1
    print(dict(sorted(codes.items())))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--shots", type=int, default=400)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.seconds, arguments.seed, arguments.shots))
