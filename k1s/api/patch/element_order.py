"""In which order a merged list comes out.

The elements of the patch keep the patch's order, the others keep the server's; where both meet, the server's order decides.
Owns: element_key, partition, merge_orders. Called by: strategic. Never does: merge elements.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import orjson


def element_key(item: Any, merge_key: str) -> Hashable:
    """What makes two elements the same one: the merge key's value, or a primitive itself. None: nothing like it."""
    if isinstance(item, dict):
        if merge_key not in item:
            return None
        item = item[merge_key]
    # Bytes: Python's 1 == True == 1.0 must not make elements equal.
    return orjson.dumps(item)


def _positions(order: list[Any], merge_key: str) -> dict[Hashable, int]:
    out: dict[Hashable, int] = {}
    for at, item in enumerate(order):
        key = element_key(item, merge_key)
        if key is not None:
            out.setdefault(key, at)
    return out


def partition(items: list[Any], order: list[Any], merge_key: str) -> tuple[list[Any], list[Any]]:
    """(those that stand in `order`, the others)."""
    known = _positions(order, merge_key)
    listed: list[Any] = []
    others: list[Any] = []
    for item in items:
        (listed if element_key(item, merge_key) in known else others).append(item)
    return listed, others


def merge_orders(
    listed: list[Any], others: list[Any], patch_order: list[Any], server_order: list[Any], merge_key: str
) -> list[Any]:
    """One list out of the elements that the patch names and those only the server has."""
    in_patch, in_server = _positions(patch_order, merge_key), _positions(server_order, merge_key)

    def at(known: dict[Hashable, int], item: Any) -> int:
        return known.get(element_key(item, merge_key), -1)

    right = sorted(listed, key=lambda item: at(in_patch, item))
    left = sorted(others, key=lambda item: at(in_server, item))
    out: list[Any] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if 0 <= at(in_server, left[i]) < at(in_server, right[j]):
            out.append(left[i])
            i += 1
        else:
            out.append(right[j])
            j += 1
    return out + left[i:] + right[j:]
