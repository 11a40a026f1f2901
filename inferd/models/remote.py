"""Models in remote storage: each has a directory in the local cache, with its file names and the fetched files.

The directory of a model follows from the names and versions of its files, so an unchanged model keeps its paths, and a
changed one gets others: the files of a loaded model never change. Settings files are fetched when the address is
listed, all others when a version is loaded.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from inferd.config.remote import RemoteSettings, split_address
from inferd.models.model_directory import MODEL_YAML, SUFFIX, TRITON_CONFIG, RepositoryError
from inferd.models.model_source import ModelSource
from inferd.models.repository import named, resolve
from inferd.remote.cache import FileCache
from inferd.remote.counts import RemoteCount, RemoteCounts
from inferd.remote.download import DownloadCancelledError, DownloadError, Downloads, WrongContentError
from inferd.remote.in_use import Hold
from inferd.remote.listing import LatestListing
from inferd.remote.storage import FsspecStorage, Listing, RemoteFile, Storage, StorageError, shown
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.model_folder import GENAI_CONFIG
from inferd.runtime.onnx_file import read_model_file
from inferd.runtime.verdict_cache import expanded_folder
from inferd.small_files import MAX_BYTES

_log = logging.getLogger(__name__)

#: Settings files, which are fetched with the listing.
_SETTINGS = (MODEL_YAML, TRITON_CONFIG)
_SETTINGS_FOLDER = "configs"

#: Maximum size of files other than models, their weights, inputs and tokenizers: of labels, for example.
_MOST_BYTES_BESIDE = 16 * 2**20
_TOKENIZER = "tokenizer.json"
_INPUTS_FOLDER = "warmup"
_RECORDED = "examples."

#: Number of models whose settings are fetched in parallel, and of files up to this size.
_PARALLEL_FETCHES = 8
_MOST_BYTES_AT_ONCE = 2**20


class RemoteRepositories:
    """The addresses of a server, with one cache. Any thread but the poll thread."""

    def __init__(
        self, settings: RemoteSettings, config_name: str = "", storage_at: Callable[[str], Storage] | None = None
    ) -> None:
        self._settings = settings
        self._config_name = config_name
        self._storage_at = storage_at or partial(FsspecStorage, timeout_s=settings.timeout_s)
        self._cache = FileCache(expanded_folder(settings.cache), limit_bytes=settings.cache_bytes)
        self._counts = RemoteCounts()
        self._downloads = Downloads(
            self._cache, self._counts, timeout_s=settings.timeout_s, checksums=settings.checksums
        )
        self._repositories: dict[str, _Repository] = {}

    def start(self) -> None:
        """Delete leftovers of earlier processes. Raises `RepositoryError` for a cache that cannot be written."""
        try:
            self._cache.delete_leftovers()
            self._counts.set_cache_size(self._cache.size())
        except OSError as error:
            msg = f"remote.cache: expected a directory that can be written: {error}"
            raise RepositoryError(msg) from error

    def sources(self, address: str, warn: Callable[[str], None] = _log.warning) -> list[ModelSource]:
        """Return the model versions at ``address``, ``URL`` or ``NAME=URL``. Raises `RepositoryError`."""
        name, url = split_address(address)
        if url not in self._repositories:
            storage = self._storage_at(url)
            listing = LatestListing(storage, self._cache, self._counts, timeout_s=self._settings.timeout_s)
            self._repositories[url] = _Repository(storage, listing, self._cache, self._downloads, self._config_name)
        try:
            return named(name, shown(url), self._repositories[url].sources(warn))
        except (StorageError, OSError) as error:
            raise RepositoryError(str(error)) from error

    def read(self) -> RemoteCount:
        """Return the counts for the metrics."""
        return self._counts.read()


class _Repository:
    """The models at one address. Callers may be several threads."""

    def __init__(
        self, storage: Storage, listing: LatestListing, cache: FileCache, downloads: Downloads, config_name: str
    ) -> None:
        self._storage = storage
        self._listing = listing
        self._cache = cache
        self._downloads = downloads
        self._config_name = config_name
        #: The models of the last listing, by the name of their folder.
        self._models: Mapping[str, _Model] = {}
        #: The problems of that listing, so that each is logged once.
        self._problems: frozenset[str] = frozenset()

    def sources(self, warn: Callable[[str], None]) -> list[ModelSource]:
        """Return the model versions that are there now. Raises `StorageError`, `RepositoryError` and `OSError`."""
        listing = self._listing.refreshed()
        known = self._models
        listed = _by_model(listing)
        changed = {
            name: files for name, files in listed.items() if name not in known or not known[name].is_valid(files)
        }
        with ThreadPoolExecutor(_PARALLEL_FETCHES, "model-settings") as pool:
            found = {name: pool.submit(self._model, name, files, listing.only) for name, files in changed.items()}
        models = {name: model for name, model in known.items() if name in listed}
        problems: list[str] = []
        for name, model in found.items():
            try:
                models[name] = model.result()
                for skipped in models[name].skipped:
                    warn(skipped)
            except (StorageError, RepositoryError, DownloadError, OSError) as error:
                cannot = f"{shown(self._storage.url)}: {name} cannot be kept: " if isinstance(error, OSError) else ""
                problems.append(f"{cannot}{error}")
                if isinstance(error, RepositoryError):
                    models.pop(name, None)
        self._report(problems, warn)
        self._models = models
        if known and changed:
            # Files that cannot be deleted now are deleted at the next start.
            with suppress(OSError):
                self._cache.delete_leftovers()
        sources = [source for model in models.values() for source in model.sources]
        if not sources:
            expected = f"expected an {SUFFIX} file, VERSION/model.onnx or NAME/VERSION/model.onnx in it, found none"
            raise RepositoryError("; ".join([f"{shown(self._storage.url)}: {expected}", *problems[:8]]))
        return sources

    def _report(self, problems: Sequence[str], warn: Callable[[str], None]) -> None:
        for problem in problems:
            warn(f"skipped: {problem}")
            # The first ones are reported when the server starts.
            if self._models and problem not in self._problems:
                _log.warning("%s", problem)
        self._problems = frozenset(problems)

    def _model(self, name: str, files: tuple[RemoteFile, ...], only: str) -> "_Model":
        for file in files:
            self._require_noticeable(file)
        described = [file for file in files if self._is_settings(file)]
        folder, hold = self._cache.tree(name, files)
        holds = [self._downloads.fetch(self._storage, file) for file in described]
        remote = RemoteModel(self._storage, self._downloads, folder, files, [hold, *holds])
        # Errors show the address, not the path in the cache.
        address = shown(files[0].address.removesuffix(f"/{files[0].name}"))

        skipped: list[str] = []
        try:
            found = resolve([folder / only], skipped.append, config_name=self._config_name)
        except RepositoryError as error:
            raise RepositoryError(str(error).replace(str(folder), address)) from error
        shown_skips = [text.replace(str(folder), address) for text in skipped]
        return _Model(folder, files, [replace(source, remote=remote) for source in found], shown_skips)

    def _is_settings(self, file: RemoteFile) -> bool:
        """Return True if ``file`` is a settings file. Raises `StorageError` if it is too large for one."""
        path = PurePosixPath(file.name)
        chosen = (_SETTINGS_FOLDER, f"{self._config_name}.pbtxt")
        if path.name not in (*_SETTINGS, GENAI_CONFIG) and (path.parent.name, path.name) != chosen:
            return False
        if file.size > MAX_BYTES:
            raise StorageError(f"{shown(file.address)}: expected at most {MAX_BYTES} bytes, found {file.size}")
        return True

    def _require_noticeable(self, file: RemoteFile) -> None:
        """Raise `StorageError` if a change of ``file`` would not be noticed."""
        if not file.version and not self._downloads.expected(file):
            lacks = f"{shown(file.address)}: the server sends neither ETag nor Last-Modified"
            raise StorageError(f"{lacks}, by which changes are noticed: set its SHA-256 in remote.checksums")


@dataclass(frozen=True, slots=True)
class _Model:
    """A folder of a listing, its versions, and its skipped entries."""

    folder: Path
    files: tuple[RemoteFile, ...]
    sources: Sequence[ModelSource]
    skipped: Sequence[str]

    def is_valid(self, files: tuple[RemoteFile, ...]) -> bool:
        """Return True if the model has these ``files``, and its directory is still in the cache."""
        return self.files == files and self.folder.is_dir()


class RemoteModel:
    """The files of one model below ``folder``, where ``holds`` keep their names. Any thread."""

    def __init__(
        self,
        storage: Storage,
        downloads: Downloads,
        folder: Path,
        files: Sequence[RemoteFile],
        holds: Sequence[Hold],
    ) -> None:
        self._storage = storage
        self._downloads = downloads
        self._folder = folder
        self._files = {file.name: file for file in files}
        self._holds = holds
        #: Failed downloads by the model file that was to be loaded, other than those of wrong content.
        self._failures: Counter[str] = Counter()

    def fetch(self, path: Path, is_cancelled: Callable[[], bool]) -> object:
        """Fetch the model file at ``path`` and the files that it needs; they stay as long as the returned object.

        Raises `ModelLoadError`; returns early if the load ``is_cancelled``.
        """
        name = path.relative_to(self._folder).as_posix()
        holds: list[Hold] = []
        try:
            if name in self._files:
                holds.append(self._downloads.fetch(self._storage, self._files[name], is_cancelled))
                needed = {file.name: file for file in (*self._weights_of(path), *self._beside(name))}
                holds.extend(self._fetched(list(needed.values()), is_cancelled))
        except DownloadCancelledError:
            pass
        except DownloadError as error:
            if not isinstance(error, WrongContentError):
                self._failures[name] += 1
            raise ModelLoadError(str(error)) from error
        return holds

    def _fetched(self, files: Sequence[RemoteFile], is_cancelled: Callable[[], bool]) -> Iterator[Hold]:
        """Fetch large files one after another, each in parallel parts, and several small ones at a time."""
        fetch = partial(self._downloads.fetch, self._storage, is_cancelled=is_cancelled)
        yield from map(fetch, (file for file in files if file.size > _MOST_BYTES_AT_ONCE))
        with ThreadPoolExecutor(_PARALLEL_FETCHES, "model-files") as pool:
            yield from pool.map(fetch, [file for file in files if file.size <= _MOST_BYTES_AT_ONCE])

    def identity(self, path: Path) -> tuple[str, int, int, int]:
        """Return the identity of the content of the file at ``path``, without reading it.

        It also changes with a failed download, so that polling loads the version again.
        """
        name = path.relative_to(self._folder).as_posix()
        file = self._files.get(name)
        if file is None:
            return name, -1, 0, 0
        return file.address, file.size, _number(file.version), self._failures[name]

    def address(self, path: Path) -> str:
        """Return the address of the file at ``path``, without secrets."""
        file = self._files.get(path.relative_to(self._folder).as_posix())
        return str(path) if file is None else shown(file.address)

    def changed_at(self) -> float:
        """Return when one of the files was last changed, in seconds since the epoch."""
        return max((file.modified for file in self._files.values()), default=0.0)

    def _weights_of(self, model: Path) -> list[RemoteFile]:
        """Return the files that hold weights of ``model``; loading it reports those that are missing."""
        folder = model.parent.relative_to(self._folder)
        names = (folder.joinpath(name).as_posix() for name in read_model_file(model).external_files)
        return [self._files[name] for name in names if name in self._files]

    def _beside(self, model: str) -> list[RemoteFile]:
        """Return the files that a load may read beside the ``model``: all small ones except those of other versions."""
        own = _version_folders(model)
        return [
            file
            for name, file in self._files.items()
            if PurePosixPath(name).suffix != SUFFIX
            and _version_folders(name) <= own
            and (file.size <= _MOST_BYTES_BESIDE or _is_needed(name))
        ]


def _by_model(listing: Listing) -> dict[str, tuple[RemoteFile, ...]]:
    """Return the files of each model, by the name of its folder. The listing is of one model or of several."""
    names = [PurePosixPath(file.name) for file in listing.files]
    is_model = any(
        (len(name.parts) == 1 and (name.suffix == SUFFIX or name.name in _SETTINGS))
        or (len(name.parts) > 1 and name.parts[0].isdecimal())
        for name in names
    )
    if is_model:
        return {listing.name or "model": listing.files}
    models: dict[str, list[RemoteFile]] = {}
    for file in listing.files:
        folder, separator, rest = file.name.partition("/")
        if separator:
            models.setdefault(folder, []).append(replace(file, name=rest))
    return {folder: tuple(files) for folder, files in models.items() if any(map(_is_of_model, files))}


def _is_of_model(file: RemoteFile) -> bool:
    path = PurePosixPath(file.name)
    return path.suffix == SUFFIX or path.name in _SETTINGS


def _version_folders(name: str) -> set[str]:
    return {part for part in PurePosixPath(name).parts[:-1] if part.isdecimal()}


def _is_needed(name: str) -> bool:
    """Return True for files that are fetched at any size: inputs, and tokenizers of language models."""
    path = PurePosixPath(name)
    if path.name == _TOKENIZER:
        return True
    return _INPUTS_FOLDER in path.parts[:-1] or path.name.startswith(_RECORDED)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
