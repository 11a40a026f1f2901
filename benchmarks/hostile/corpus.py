"""All kinds of hostile messages."""

from collections.abc import Iterator
from itertools import chain

from benchmarks.hostile import inferd_v1, open_inference, other_methods
from benchmarks.hostile.kind import Kind

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in chain(inferd_v1.kinds(), open_inference.kinds(), other_methods.kinds())
}


def chosen(parts: list[str] | None) -> Iterator[Kind]:
    """Yield the kinds whose names contain one of ``parts``, or all if there are none."""
    for name, kind in KINDS.items():
        if not parts or any(part in name for part in parts):
            yield kind
