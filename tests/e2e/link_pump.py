"""Carries Ethernet frames between two interfaces, with delay, reordering and loss: what netem does, for kernels without it.

Run in the network namespace that has both: `python link_pump.py LEFT RIGHT DELAY_MS REORDER_PERCENT LOSS_PERCENT`.
Prints "ready" when it carries frames; runs until it is killed.
"""

from __future__ import annotations

import heapq
import random
import selectors
import socket
import sys
import time

_ALL = 0x0003
_OUTGOING = 4
_FRAME = 65536


def main() -> None:
    names, numbers = sys.argv[1:3], [float(text) for text in sys.argv[3:6]]
    delay, reorder, loss = numbers[0] / 1000, numbers[1] / 100, numbers[2] / 100
    chance = random.Random(1)
    sides = []
    for name in names:
        side = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        side.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
        side.bind((name, 0))
        side.setblocking(False)
        sides.append(side)
    selector = selectors.DefaultSelector()
    for number, side in enumerate(sides):
        selector.register(side, selectors.EVENT_READ, number)
    waiting: list[tuple[float, int, int, bytes]] = []
    count = 0
    print("ready", flush=True)
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for key, _ in selector.select(pause):
            for _ in range(256):
                try:
                    frame, where = key.fileobj.recvfrom(_FRAME)  # type: ignore[union-attr]
                except BlockingIOError:
                    break
                if where[2] == _OUTGOING or chance.random() < loss:
                    continue
                # A reordered frame does not wait: it overtakes those that do, as with netem.
                late = 0.0 if chance.random() < reorder else delay
                count += 1
                heapq.heappush(waiting, (time.monotonic() + late, count, 1 - key.data, frame))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, target, frame = heapq.heappop(waiting)
            try:
                sides[target].send(frame)
            except OSError:
                continue  # down, full or too long: a wire drops what it cannot carry


main()
