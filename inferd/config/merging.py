"""Putting one tree of plain values over another."""

from collections.abc import Mapping
from typing import Any


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the values of ``over`` in their places.

    Mappings are merged key by key; everything else, lists too, is replaced. A null where ``base`` has a mapping is a
    section whose lines are all commented out, and leaves it as it is.
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and value is None:
            continue
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
