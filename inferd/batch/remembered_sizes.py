"""Keeps the sizes that were measured for a job, so that the same job elsewhere has the same parts and batches.

Sizes follow from times, which differ a little from run to run, and with the batches the last bits of answers may. What
cannot be kept or read is measured again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inferd.batch.blocks import BatchLimits
from inferd.runtime.resources import usable_cores
from inferd.runtime.verdict_cache import CacheFolder, cache_key

#: To be raised when sizes are chosen in another way.
_VERSION = 2


@dataclass(frozen=True, slots=True)
class Sizes:
    """The limits of batches, and the rows of blocks and of parts."""

    limits: BatchLimits
    block_rows: int
    part_rows: int


class RememberedSizes:
    """The sizes in a folder of the cache at ``folder``, none with None. ``facts`` are what a job's answers depend on.

    Neither times nor names of files are among them, so a copy of the same rows is the same job.
    """

    def __init__(self, folder: Path | None, facts: Mapping[str, object]) -> None:
        self._entries = CacheFolder(None if folder is None else folder / "batch")
        self._facts = facts

    def key(self, rows: Sequence[int | None], bounds: Sequence[int]) -> str:
        """Return the key of a job with so many ``rows`` in each file, whose model has these ``bounds``."""
        facts = {"sizes": _VERSION, "rows": rows, "bounds": bounds, "cores": usable_cores(), **self._facts}
        return cache_key((), facts)

    def load(self, key: str) -> Sizes | None:
        """Return the sizes under ``key``; None if there are none."""
        content = self._entries.load(key)
        if not isinstance(content, dict):
            return None
        try:
            rows, nbytes, block_rows, part_rows = map(int, content["sizes"])
        except (KeyError, TypeError, ValueError):
            return None
        if min(rows, nbytes, block_rows, part_rows) < 1:
            return None
        return Sizes(BatchLimits(rows, nbytes), block_rows, part_rows)

    def store(self, key: str, sizes: Sizes) -> None:
        """Keep ``sizes`` under ``key``."""
        limits = sizes.limits
        self._entries.store(key, {"sizes": [limits.rows, limits.nbytes, sizes.block_rows, sizes.part_rows]})
