"""Memory that a burst left in the allocator goes back to the system."""

from __future__ import annotations

import subprocess
import sys

_BURST = """
import os
from k1s.base.process import release_free_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

# Too large for Python's own allocator; every hundredth stays, so that the heap cannot simply shrink at its end.
burst = [bytes(2000) for _ in range(40_000)]
kept = burst[::100]
full = resident()
del burst
before = resident()
release_free_memory()
print(full, before, resident())
"""


def test_released_memory_leaves_the_process() -> None:
    result = subprocess.run([sys.executable, "-c", _BURST], capture_output=True, text=True, check=True)
    full, before, after = map(int, result.stdout.split())
    assert full > 80 and before > 80, "the burst stays resident by itself: else this test proves nothing"
    assert after < before - 50
