"""Notices that files have changed."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inferd.security.periodic import PeriodicThread

_log = logging.getLogger(__name__)

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


class FileWatcher:
    """Calls back within about two times ``period_s`` seconds of a change to watched files.

    It does so once they are as they were a look before: a certificate and its key are often written one after the
    other, and not at one blow.

    It looks at the files rather than at events of the kernel: those do not come for all file systems, nor for what lies
    behind the symbolic links that Kubernetes swaps. A callback that raises `BadFileError` or `OSError` has refused the
    new content: that is logged and counted, and comes again only when the files have changed again. So whoever is
    called back must keep what it had.

    Threads: ``watch`` any, before or after ``start``; callbacks run in the watcher's own thread, one after the other.
    """

    def __init__(self, *, period_s: float = 0.25) -> None:
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
            if is_settled and now != each.seen:
                each.seen = now
                self._reload(each)

    def _reload(self, watched: _Watched) -> None:
        try:
            watched.reload()
        except (BadFileError, OSError) as error:
            with self._lock:
                self._failures[watched.name] += 1
            _log.error("changed files are refused; what was read before stays in force", extra=_facts(watched, error))
        else:
            _log.info("changed files are in force", extra=_facts(watched))


def _facts(watched: _Watched, error: Exception | None = None) -> dict[str, object]:
    facts: dict[str, object] = {"file_use": watched.name, "files": [str(path) for path in watched.paths]}
    return facts if error is None else {**facts, "reason": str(error)}


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
