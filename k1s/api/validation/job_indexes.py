"""Indexes of an Indexed job as text: "1,3-5,7".

count_indexes(text, completions) -> how many. Called by: jobs.py, job_status.py. Never does: hold them (the controller does).
Source: upstream validateIndexesFormat.
"""

from __future__ import annotations

import json
import re


class IndexesWrong(ValueError):
    """The text is not a rising list of indexes below the number of completions."""


def _index(text: str, completions: int) -> int:
    if not re.fullmatch(r"[-+]?[0-9]+", text):
        raise IndexesWrong(f"cannot convert string to integer for index: {json.dumps(text)}")
    if int(text) >= completions:
        raise IndexesWrong(f"too large index: {json.dumps(text)}")
    return int(text)


def count_indexes(text: str, completions: int) -> int:
    """The number of indexes. Raises IndexesWrong."""
    if not text:
        return 0
    last, total = None, 0
    for interval in text.split(","):
        parts = interval.split("-")
        if len(parts) > 2:
            rule = "violates the requirement that an index interval can have at most two parts separated by '-'"
            raise IndexesWrong(f"the fragment {json.dumps(interval)} {rule}")
        first = _index(parts[0], completions)
        if last is not None and last >= first:
            raise IndexesWrong(f"non-increasing order, previous: {last}, current: {first}")
        last = first
        total += 1
        if len(parts) == 2:
            last = _index(parts[1], completions)
            if first >= last:
                raise IndexesWrong(f"non-increasing order, previous: {first}, current: {last}")
            total += last - first
    return total
