"""Keep which models have been proven to batch, so that a restart need not prove it again.

A verdict is kept under a hash of everything that it follows from: the model's file and those with its weights, what the
operator says of it, the recorded requests beside it, and the versions of ONNX Runtime and of the proof. What cannot be
read, or has another form than expected, is as good as nothing: the proof then runs.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd.runtime.batch_axes.verdict import Standing, Verdict
from inferd.small_files import open_file, replace_text

#: To be raised when the proof changes, so that what an older one found is not believed any longer.
PROOF_VERSION = 4

_CHUNK_BYTES = 2**20

_log = logging.getLogger("inferd.runtime")


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedProof:
    """A verdict with what is needed to serve by it.

    ``axes`` are the batch axes by input and output, None for a tensor without one. ``ranks`` are those of outputs that
    declare none. ``shapes``, ``bounds`` and ``numeric_texts`` are those of `SyntheticInputs`; without ``shapes``
    no inputs were found that the model runs on.
    """

    verdict: Verdict
    axes: Mapping[str, Mapping[str, int | None]]
    ranks: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    bounds: Mapping[str, tuple[int, int]]
    numeric_texts: bool


class CacheFolder:
    """A folder with a file of JSON for each key. Raises nothing: what cannot be kept or read is determined again."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = None if folder is None else expanded_folder(folder)

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._folder is not None

    def load(self, key: str) -> object:
        """Return what is kept under ``key``; None if nothing is."""
        if self._folder is None:
            return None
        try:
            return json.loads((self._folder / f"{key}.json").read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            _log.debug("a cached verdict cannot be read: %s", error)
            return None

    def store(self, key: str, content: object) -> None:
        """Keep ``content`` under ``key``."""
        if self._folder is None:
            return
        try:
            # Servers that start side by side read and write the same files.
            replace_text(self._folder / f"{key}.json", json.dumps(content))
        except OSError as error:
            _log.debug("the verdict is not kept: %s", error)


class VerdictCache:
    """The verdicts in a `CacheFolder`. Raises nothing: the worst that can happen is a proof more."""

    def __init__(self, folder: Path | None) -> None:
        self._entries = CacheFolder(folder)

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._entries.is_on

    def load(self, key: str) -> CachedProof | None:
        """Return what is kept under ``key``."""
        content = self._entries.load(key)
        try:
            return _decoded(content) if isinstance(content, dict) else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.debug("a cached verdict cannot be used: %s", error)
            return None

    def store(self, key: str, proof: CachedProof) -> None:
        """Keep ``proof`` under ``key``."""
        self._entries.store(key, _encoded(proof))


def cache_key(files: Iterable[Path], facts: Mapping[str, object]) -> str:
    """Return the hash of the contents of ``files`` and of ``facts``. Raises `OSError`."""
    digest = hashlib.sha256(json.dumps([PROOF_VERSION, facts], sort_keys=True, default=str).encode())
    for path in files:
        digest.update(b"\0file\0")
        with open_file(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def fingerprint(path: Path) -> str:
    """Return size and time of a file that is too large to be read for a hash; empty if there is none."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def fingerprints(model: Path, weights: Mapping[str, Path]) -> dict[str, str]:
    """Return the fingerprints of a model file, under "", and of its external ``weights``, under their names."""
    return {name: fingerprint(file) for name, file in {"": model, **weights}.items()}


def expanded_folder(folder: Path) -> Path:
    """Return the directory of a cache, of which ``~/.cache`` is elsewhere if the environment says so."""
    cache = os.environ.get("XDG_CACHE_HOME")
    if cache and folder.parts[:2] == ("~", ".cache"):
        return Path(cache, *folder.parts[2:])
    try:
        return folder.expanduser()
    except RuntimeError:  # a user without a home, as containers have
        return folder


def _encoded(proof: CachedProof) -> dict[str, Any]:
    verdict = proof.verdict
    return {
        "standing": verdict.standing.value,
        "reason": verdict.reason,
        "misfit": verdict.shape_mismatch,
        "given": verdict.configured,
        "axes": proof.axes,
        "ranks": proof.ranks,
        "shapes": proof.shapes,
        "bounds": proof.bounds,
        "numeric_texts": proof.numeric_texts,
    }


def _decoded(content: Mapping[str, Any]) -> CachedProof:
    return CachedProof(
        verdict=Verdict(
            standing=Standing(content["standing"]),
            reason=str(content["reason"]),
            shape_mismatch=bool(content["misfit"]),
            configured=bool(content["given"]),
        ),
        axes={kind: {name: _axis(axis) for name, axis in axes.items()} for kind, axes in content["axes"].items()},
        ranks={name: int(rank) for name, rank in content["ranks"].items()},
        shapes={name: tuple(map(int, shape)) for name, shape in content["shapes"].items()},
        bounds={name: (int(low), int(high)) for name, (low, high) in content["bounds"].items()},
        numeric_texts=bool(content["numeric_texts"]),
    )


def _axis(axis: object) -> int | None:
    return int(axis) if isinstance(axis, int) else None
