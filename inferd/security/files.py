"""Files of credentials, policies and certificates: reads them without quoting them in errors, and watches them."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inferd import small_files
from inferd.config.validation import SettingPath
from inferd.config.yaml_text import RepeatedKeyError, YamlError, lines_of, longest_match, read_yaml
from inferd.periodic_thread import PeriodicThread

_log = logging.getLogger(__name__)

#: When to retry files that were rejected.
_RETRY_S = 5.0

#: Identifies a version of a file: its real path, inode, times of change in ns, size; None if there is no file.
_Fingerprint = tuple[str, int, int, int, int] | None


class BadFileError(Exception):
    """A file that cannot be used; the text names the file, what was expected and what came, and holds no secrets."""


@contextmanager
def chosen_by(setting: str) -> Iterator[None]:
    """Put ``setting``, which has chosen the file, before its error."""
    try:
        yield
    except BadFileError as error:
        raise BadFileError(f"{setting}: {error}") from None


def read_text(path: Path) -> str:
    """Return the text of ``path``. Raises `BadFileError`."""
    try:
        return small_files.read_text(path)
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadFileError(f"{path}: expected UTF-8 text") from None


@dataclass(frozen=True, slots=True)
class ParsedYaml:
    """The ``content`` of the file at ``path``, and the line of each part of it."""

    path: Path
    content: object
    lines: Mapping[SettingPath, int]

    def origin_of(self, part: SettingPath) -> str:
        """Return the file and the line of a part, given by the keys and places in lists that lead to it."""
        line = longest_match(self.lines, part)
        return f"{self.path} line {line}" if line else str(self.path)


def parse_yaml(text: str, path: Path, keys: Collection[str] = ()) -> ParsedYaml:
    """Parse ``text``, the content of ``path``. Raises `BadFileError`.

    The error names a repeated key only if it is one of ``keys``: another may be a secret in the wrong place.
    """
    try:
        node, content = read_yaml(text)
    except YamlError as error:
        where = f"{path} line {error.line}" if error.line else str(path)
        if not isinstance(error, RepeatedKeyError):
            raise BadFileError(f"{where}: expected YAML") from None
        key = error.key if error.key in keys else "a key"
        raise BadFileError(f"{where}: expected {key} once, got it on line {error.first_line} already") from None
    return ParsedYaml(path, content, lines_of(node))


@dataclass(slots=True)
class _Watched:
    name: str
    paths: tuple[Path, ...]
    reload: Callable[[], None]
    loaded: tuple[_Fingerprint, ...]
    """When they were last reloaded."""
    polled: tuple[_Fingerprint, ...]
    """At the last poll."""
    error: str | None = None
    """Why the last reload was rejected, if it was."""
    tried_at: float = 0.0


class FileWatcher:
    """Reloads files within about twice ``period_s`` seconds of a change.

    A change is acted on when two polls in a row see the same files: a certificate and its key are often written one
    after the other. Files are polled because kernel events do not come for all file systems, nor through the symbolic
    links that Kubernetes swaps.

    A callback that raises has rejected the new content and must keep what it had. This is logged and counted once per
    reason, and retried every few seconds: the cause, such as too many open files, may disappear without another change,
    and must not keep a token from being revoked.

    Threads: ``watch`` any, before or after ``start``; callbacks and checks run one after the other in the watcher's own
    thread.
    """

    def __init__(self, *, period_s: float = 0.25, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._watched: list[_Watched] = []
        self._checks: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}
        self._thread = PeriodicThread("inferd-files", period_s=period_s, action=self.poll)

    def watch(self, name: str, paths: Sequence[Path], reload: Callable[[], None]) -> None:
        """Call ``reload`` after each change of ``paths`` from now on.

        Call this before reading the files, so that no change in between is missed. ``name`` says in the log and in
        metrics what the files are for.
        """
        now = _fingerprints(paths)
        watched = _Watched(name, tuple(paths), reload, loaded=now, polled=now)
        with self._lock:
            self._watched.append(watched)
            self._failures.setdefault(name, 0)

    def add_check(self, check: Callable[[], None]) -> None:
        """Call ``check``, which must not raise, after each look at the files. Before ``start``."""
        self._checks.append(check)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; wait for a callback that is running."""
        self._thread.stop()

    @property
    def failures(self) -> Mapping[str, int]:
        """Rejected reloads, by name."""
        with self._lock:
            return dict(self._failures)

    def poll(self) -> None:
        """Compare all files once, and reload those that have changed and are the same as at the last poll."""
        with self._lock:
            watched = list(self._watched)
        for each in watched:
            now = _fingerprints(each.paths)
            is_settled, each.polled = now == each.polled, now
            has_changed = now != each.loaded
            is_retry_due = each.error is not None and self._clock() - each.tried_at >= _RETRY_S
            if is_settled and (has_changed or is_retry_due):
                each.loaded = now
                self._reload(each, has_changed=has_changed)
        for check in self._checks:
            check()

    def _reload(self, watched: _Watched, *, has_changed: bool) -> None:
        watched.tried_at = self._clock()
        fields = {"file_use": watched.name, "files": [str(path) for path in watched.paths]}
        try:
            watched.reload()
        except Exception as error:  # noqa: BLE001  any error is a rejection, and must not stop the watcher
            reason = str(error) if isinstance(error, BadFileError | OSError) else f"unexpected {type(error).__name__}"
            if has_changed or reason != watched.error:
                with self._lock:
                    self._failures[watched.name] += 1
                _log.error("file reload rejected; keeping the previous content", extra={**fields, "reason": reason})
            watched.error = reason
        else:
            watched.error = None
            _log.info("files reloaded", extra=fields)


def _fingerprints(paths: Sequence[Path]) -> tuple[_Fingerprint, ...]:
    return tuple(_fingerprint(path) for path in paths)


def _fingerprint(path: Path) -> _Fingerprint:
    try:
        real = path.resolve()
        status = real.stat()
    except (OSError, RuntimeError):  # RuntimeError: a cycle of links
        return None
    return (str(real), status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
