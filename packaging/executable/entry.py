"""Where the one executable starts: the same as the console script `k1s`."""

from __future__ import annotations

import os
import sys

from k1s.cli.main import main

if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        os._exit(0)
