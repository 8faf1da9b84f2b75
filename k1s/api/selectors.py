"""Label and field selectors. (seam only: see docs/ARCHITECTURE.md)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class LabelSelector(Protocol):
    def matches(self, labels: Mapping[str, str]) -> bool: ...
