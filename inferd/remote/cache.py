"""Files of remote storage on the local disk, by their content.

Layout of the folder, which several processes may share:

- ``blobs/SHA256``: contents, never changed;
- ``files/KEY``, for each version of each remote file: a link to its blob, or an empty file before it is downloaded;
- ``trees/ID``: the names of a model's files, as links to entries of ``files``;
- ``partial/BOOT.KEY``: downloads that go on, each locked by its process, or interrupted;
- ``processes/ID``: what each process has in use (`in_use`);
- ``listings/KEY``: what each address had when it was last listed.

Whatever a killed process leaves behind is deleted by the next one, except downloads, which continue where they
stopped: those of another boot are deleted, as a crash of the machine may have lost parts of them, and so are those that
were not continued for a day, as their files may have changed, or sooner if the disk is full.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from inferd.remote.in_use import Hold, InUse, is_unlocked
from inferd.remote.storage import RemoteFile
from inferd.small_files import replace_text

_FOLDERS = ("blobs", "files", "trees", "partial", "processes", "listings")
#: Time for which an interrupted download is kept.
_LONGEST_PAUSE_S = 24 * 3600.0

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class FileCache:
    """The cache in ``folder``. Any thread; all methods raise `OSError`. ``epoch_s`` is the clock of its files.

    Invariants: a blob has the content that its name says, and is deleted only if no process has it in use; all changes
    of names are made under the lock of the folder, and each with one rename.
    """

    def __init__(self, folder: Path, *, limit_bytes: int | None, epoch_s: Callable[[], float] = time.time) -> None:
        self._epoch_s = epoch_s
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._in_use = InUse(folder / "processes")

    # Trees: the names of a model's files.

    def tree(self, name: str, files: Sequence[RemoteFile]) -> tuple[Path, Hold]:
        """Return a directory ``name`` with links for ``files``, and what keeps it."""
        content = json.dumps([name, [(file.name, key_of(file)) for file in files]])
        tree = self._folder / "trees" / hashlib.sha256(content.encode()).hexdigest()
        with self._locked():
            hold = self._in_use.hold(tree.name)
            if not tree.exists():
                self._build(tree, name, files)
        return tree / name, hold

    def _build(self, tree: Path, name: str, files: Sequence[RemoteFile]) -> None:
        draft = _draft(tree)
        (draft / name).mkdir(parents=True)
        for file in files:
            path = draft / name / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            entry = self._entry(file)
            if not os.path.lexists(entry):
                entry.touch()
            up = [os.pardir] * (len(PurePosixPath(file.name).parts) + 2)
            path.symlink_to(Path(*up, "files", entry.name))
        draft.rename(tree)

    # Contents.

    def content_of(self, file: RemoteFile) -> tuple[str, Hold] | None:
        """Return the hash of the content of ``file`` if it is here, and what keeps it."""
        with self._locked():
            try:
                blob = self._blob(self._entry(file).readlink().name)
                found = blob.stat()
            except OSError:
                return None
            if found.st_size != file.size:
                # Only a damaged disk or another program does that.
                blob.unlink()
                self._forget_missing()
                return None
            _mark_used(blob)
            return blob.name, self._in_use.hold(blob.name)

    def adopt(self, file: RemoteFile, digest: str) -> Hold | None:
        """Let ``file`` have the content with the hash ``digest`` if that is here; return what keeps it."""
        with self._locked():
            try:
                is_here = self._blob(digest).stat().st_size == file.size
            except FileNotFoundError:
                return None
            return self._link(file, digest) if is_here else None

    def store(self, file: RemoteFile, partial: Path, digest: str) -> Hold:
        """Move the complete download ``partial`` to its place as the content of ``file``; return what keeps it."""
        # Caches that go by size and time find the same file again if it is downloaded again, and no other one.
        os.utime(partial, ns=(time.time_ns(), int(digest[:15], 16)))
        with self._locked():
            partial.replace(self._blob(digest))
            # Not before: what a killed process leaves must be open to the next one.
            self._blob(digest).chmod(0o444)
            _sync(self._folder / "blobs")
            return self._link(file, digest)

    def _link(self, file: RemoteFile, digest: str) -> Hold:
        hold = self._in_use.hold(digest)
        _mark_used(self._blob(digest))
        draft = _draft(self._entry(file))
        draft.symlink_to(Path(os.pardir, "blobs", digest))
        draft.replace(self._entry(file))
        return hold

    def partial(self, file: RemoteFile) -> Path:
        """Return where the download of ``file`` is put together."""
        return self._folder / "partial" / f"{_boot()}.{key_of(file)}"

    # Room.

    def make_room(self, needed: int) -> None:
        """Delete what was used least recently until there is room for ``needed`` bytes beside all downloads so far.

        Raises `OSError` with ENOSPC if the disk has too little room even so.
        """
        with self._locked():
            free = self._evict(needed)
        if free < needed:
            raise OSError(errno.ENOSPC, f"{needed} bytes are needed, {free} are free", str(self._folder))

    def _evict(self, needed: int) -> int:
        """Return the free bytes of the disk afterwards."""
        blobs = sorted((found.st_atime_ns, found.st_size, digest) for digest, found in self._entries("blobs"))
        present = sum(size for _, size, _ in blobs) + sum(found.st_size for _, found in self._entries("partial"))
        excess = 0 if self._limit_bytes is None else present + needed - self._limit_bytes
        free = self._free()
        if excess <= 0 and free >= needed:
            return free
        in_use = self._in_use.names()
        for _, size, digest in blobs:
            if excess <= 0 and free >= needed:
                break
            if digest not in in_use:
                self._blob(digest).unlink()
                excess, free = excess - size, self._free()
        self._forget_missing()
        if free < needed:
            self._delete_partials(lambda _: True)
        return self._free()

    def size(self) -> int:
        """Return the size of all contents."""
        with self._locked():
            return sum(found.st_size for _, found in self._entries("blobs"))

    def _free(self) -> int:
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def _entries(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(self._folder / folder) as entries:
            for entry in entries:
                # Downloads may be deleted meanwhile.
                with suppress(FileNotFoundError):
                    yield entry.name, entry.stat()

    def _forget_missing(self) -> None:
        """Make entries whose blobs are deleted those of files that are not downloaded."""
        for entry in (self._folder / "files").iterdir():
            if not entry.exists():
                draft = _draft(entry)
                draft.touch()
                draft.replace(entry)

    def delete_leftovers(self) -> None:
        """Delete what processes left that have ended: their trees, and downloads that are not continued."""
        with self._locked():
            in_use = self._in_use.names()
            for tree in (self._folder / "trees").iterdir():
                if tree.name not in in_use:
                    shutil.rmtree(tree, ignore_errors=True)
            linked = {path.readlink().name for path in (self._folder / "trees").rglob("*") if path.is_symlink()}
            for entry in (self._folder / "files").iterdir():
                is_draft = entry.name.startswith(".")
                if is_draft or (entry.name not in linked and not entry.is_symlink()):
                    entry.unlink()
            self._delete_partials(self._is_useless)

    def _delete_partials(self, is_deleted: Callable[[Path], bool]) -> None:
        """Delete downloads that do not go on."""
        for partial in (self._folder / "partial").iterdir():
            if is_deleted(partial) and is_unlocked(partial):
                partial.unlink(missing_ok=True)

    def _is_useless(self, partial: Path) -> bool:
        """Whether a download is of another boot, or was not continued for long."""
        try:
            age_s = self._epoch_s() - partial.stat().st_mtime
        except FileNotFoundError:
            return False
        return age_s > _LONGEST_PAUSE_S or not partial.name.startswith(f"{_boot()}.")

    # Listings.

    def save_listing(self, address: str, content: object) -> None:
        """Keep what an address has, as JSON. Nobody else can read it: signed addresses are in it."""
        with self._locked():
            replace_text(self._listing(address), json.dumps(content))

    def saved_listing(self, address: str) -> object:
        """Return what an address had when it was last listed; None if that is unknown."""
        try:
            return json.loads(self._listing(address).read_bytes())
        except (OSError, ValueError):
            return None

    def _listing(self, address: str) -> Path:
        return self._folder / "listings" / hashlib.sha256(address.encode()).hexdigest()

    # Names.

    def _blob(self, digest: str) -> Path:
        return self._folder / "blobs" / digest

    def _entry(self, file: RemoteFile) -> Path:
        return self._folder / "files" / key_of(file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Context in which no other thread or process changes names. Never while something is downloaded."""
        for name in _FOLDERS:
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        # Each opening has a lock of its own, for threads too.
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def key_of(file: RemoteFile) -> str:
    """Return the name of one version of a remote file."""
    return hashlib.sha256(f"{file.address}\0{file.version}\0{file.size}".encode()).hexdigest()


def _draft(path: Path) -> Path:
    return path.with_name(f".{uuid.uuid4().hex}")


def _boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def _mark_used(blob: Path) -> None:
    """Note that a blob is used, by its time of access."""
    os.utime(blob, ns=(time.time_ns(), blob.stat().st_mtime_ns))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
