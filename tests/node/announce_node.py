"""One node of the announcing tests, as a process of its own: python announce_node.py NAME NODES ADDRESSES [KEY]

Says on stdout what it takes; a line on stdin replaces what it may hold.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from k1s.base.clock import REAL_CLOCK
from k1s.net.announce.announcer import Announcer


def words(text: str) -> list[str]:
    return [part for part in text.strip().split(",") if part]


async def main(name: str, nodes: str, addresses: str, key: str = "0123456789abcdef") -> None:
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    announcer = Announcer(
        name,
        REAL_CLOCK,
        lambda address, link: print(f"taken {address} {link}", flush=True),
        lambda address: print(f"homeless {address}", flush=True),
    )
    announcer.set_key(key.encode())
    every = set(words(addresses))
    announcer.offer(words(addresses), every, words(nodes))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)
    running = asyncio.create_task(announcer.run())
    reading = asyncio.create_task(reader.readline())
    while True:
        await asyncio.wait({running, reading}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        line = reading.result().decode()
        if not line:
            return
        every |= set(words(line))
        announcer.offer(words(line), every, words(nodes))
        reading = asyncio.create_task(reader.readline())


asyncio.run(main(*sys.argv[1:]))
