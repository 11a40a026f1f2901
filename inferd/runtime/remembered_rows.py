"""Keep on disk how many rows of a model there was memory for, so that a restart need not measure it again."""

import time
from collections.abc import Callable

from inferd.runtime.resources import usable_bytes
from inferd.runtime.verdict_cache import CacheFolder

#: After this time it is determined again: what else runs on the machine changes, too.
_VALID_S = 7 * 24 * 3600.0


class RememberedRows:
    """The most rows of a run that there was memory for, where more had been too many; None if nothing is known.

    It is forgotten when the limit of the process has become higher, and after a week. ``key`` is that of the model's
    verdict, beside which the number is kept; empty keeps nothing. Raises nothing.
    """

    def __init__(
        self,
        folder: CacheFolder,
        key: str,
        *,
        usable: Callable[[], int] = usable_bytes,
        epoch_s: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._key = f"rows-{key}" if key else ""
        self._usable = usable
        self._epoch_s = epoch_s
        self.rows = self._load()

    def remember(self, rows: int) -> None:
        """Keep ``rows``."""
        self.rows = rows
        if self._key:
            self._folder.store(self._key, {"rows": rows, "usable_bytes": self._usable(), "at": self._epoch_s()})

    def _load(self) -> int | None:
        match self._folder.load(self._key) if self._key else None:
            case {"rows": int(rows), "usable_bytes": int(usable), "at": float(at)} if rows > 0:
                is_valid = self._usable() <= usable and self._epoch_s() - at < _VALID_S
                return rows if is_valid else None
        return None
