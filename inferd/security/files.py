"""Notices that files have changed."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inferd.security.periodic import PeriodicThread

_log = logging.getLogger(__name__)

#: How long after files were refused they are tried again.
_RETRY_S = 5.0

#: What tells one content of a file from another: where it really is, inode, times of change (ns), size.
_Fingerprint = tuple[str, int, int, int, int] | None


class BadFileError(Exception):
    """A file that cannot be used; the text names the file, what was expected and what came, and holds no secrets."""


@dataclass(slots=True)
class _Watched:
    name: str
    paths: tuple[Path, ...]
    reload: Callable[[], None]
    seen: tuple[_Fingerprint, ...]
    """As they were when they were read."""
    last: tuple[_Fingerprint, ...]
    """As they were at the last look."""
    refused: str | None = None
    """Why they could not be used the last time, if so."""
    tried_at: float = 0.0


class FileWatcher:
    """Calls back within about two times ``period_s`` seconds of a change to watched files.

    It does so once they are as they were a look before: a certificate and its key are often written one after the
    other, and not at one blow.

    It looks at the files rather than at events of the kernel: those do not come for all file systems, nor for what lies
    behind the symbolic links that Kubernetes swaps. A callback that raises `BadFileError` or `OSError` has refused the
    new content, and must keep what it had. That is logged and counted once, and tried again every few seconds: what
    stood in the way may be gone without a change of the files, such as too many connections for one more file to be
    opened, and must not have kept a token from being revoked.

    Threads: ``watch`` any, before or after ``start``; callbacks run in the watcher's own thread, one after the other.
    """

    def __init__(self, *, period_s: float = 0.25, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._watched: list[_Watched] = []
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}
        self._thread = PeriodicThread("inferd-files", period_s=period_s, action=self.poll)

    def watch(self, name: str, paths: Sequence[Path], reload: Callable[[], None]) -> None:
        """Call ``reload`` whenever one of ``paths`` has changed since now, or since the last call.

        Call this first and read the files after that: a change in between is then told, rather than missed.
        ``name`` says what the files are for, in the log and in metrics.
        """
        now = _fingerprints(paths)
        watched = _Watched(name, tuple(paths), reload, seen=now, last=now)
        with self._lock:
            self._watched.append(watched)
            self._failures.setdefault(name, 0)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a callback that runs is waited for."""
        self._thread.stop()

    @property
    def failures(self) -> Mapping[str, int]:
        """How often changed files were refused, by what they are for."""
        with self._lock:
            return dict(self._failures)

    def poll(self) -> None:
        """Look once, and call back for what has changed and is the same as at the last look."""
        with self._lock:
            watched = list(self._watched)
        for each in watched:
            now = _fingerprints(each.paths)
            is_settled, each.last = now == each.last, now
            has_changed = now != each.seen
            is_due = each.refused is not None and self._clock() - each.tried_at >= _RETRY_S
            if is_settled and (has_changed or is_due):
                each.seen = now
                self._reload(each, has_changed=has_changed)

    def _reload(self, watched: _Watched, *, has_changed: bool) -> None:
        watched.tried_at = self._clock()
        facts = {"file_use": watched.name, "files": [str(path) for path in watched.paths]}
        try:
            watched.reload()
        except Exception as error:  # noqa: BLE001  whatever it is, it is counted, and other files are looked at
            reason = str(error) if isinstance(error, BadFileError | OSError) else f"unexpected {type(error).__name__}"
            if has_changed or reason != watched.refused:
                with self._lock:
                    self._failures[watched.name] += 1
                text = "changed files are refused; what was read before stays in force"
                _log.error(text, extra={**facts, "reason": reason})
            watched.refused = reason
        else:
            watched.refused = None
            _log.info("changed files are in force", extra=facts)


def _fingerprints(paths: Sequence[Path]) -> tuple[_Fingerprint, ...]:
    return tuple(_fingerprint(path) for path in paths)


def _fingerprint(path: Path) -> _Fingerprint:
    """Return what identifies the content of ``path``, or None if there is no such file now."""
    try:
        real = path.resolve()
        facts = real.stat()
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return None
    return (str(real), facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size)
