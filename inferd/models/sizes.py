"""Remember the memory and load time of model versions, or estimate them from the size of their files.

Only measurements without another load or unload at the same time count. Requests in that time may add to them, so the
median of the last measurements is taken. They are stored beside the verdicts on batching, by a hash of what they depend
on: path, size and time of the files, and the settings of runtime, batching and generation. The files are not read.
"""

import hashlib
import json
import os
import statistics
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from inferd.config.settings import ModelSettings
from inferd.models.fingerprint import fingerprint_of
from inferd.models.load_meter import Measured
from inferd.models.model_source import ModelSource
from inferd.models.residency import NO_MEMORY, Memory
from inferd.runtime.device_memory import device_bytes
from inferd.runtime.genai_config import is_described
from inferd.runtime.providers import VERSION
from inferd.runtime.verdict_cache import CacheFolder

#: Number of measurements that are kept.
_KEPT = 5

#: Estimated peak of a model that was not measured: a multiple of the size of its files, plus a constant.
_ESTIMATED_FACTOR = 2.0
_ESTIMATED_EXTRA_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSize:
    """Expected memory and time of a load.

    ``is_known``: measured, not estimated. ``least_peak`` is the minimum of several measured peaks, without the memory
    that requests may have added; nothing as long as there is only one.
    """

    steady: Memory
    peak: Memory
    least_peak: Memory
    load_s: float
    is_known: bool


UNKNOWN_SIZE = ModelSize(steady=NO_MEMORY, peak=NO_MEMORY, least_peak=NO_MEMORY, load_s=0.0, is_known=False)


@dataclass(slots=True)
class _Record:
    """The last measurements of one version with its present files and settings, oldest first."""

    steady: deque[Memory] = field(default_factory=lambda: deque(maxlen=_KEPT))
    peak: deque[Memory] = field(default_factory=lambda: deque(maxlen=_KEPT))
    load_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def content(self) -> dict[str, Any]:
        return {
            "steady": [[each.host, each.device] for each in self.steady],
            "peak": [[each.host, each.device] for each in self.peak],
            "load_s": list(self.load_s),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeKey:
    """The ``name`` of the record of a version in ``cache``, and the numbers for an estimate.

    ``reserved_bytes`` is the configured size of a language model's cache.
    """

    name: str
    cache: CacheFolder
    file_bytes: int
    reserved_bytes: int = 0


def size_key(source: ModelSource, settings: ModelSettings) -> SizeKey:
    """Return the key of a version with its present files and ``settings``."""
    files = fingerprint_of(source)
    facts = {
        "purpose": "size",
        "onnxruntime": VERSION,
        # Without the time of the last change of properties: creating a link to a file changes it too.
        "files": sorted((os.path.realpath(path), size, changed) for path, size, changed, _ in files),
        "runtime": settings.runtime.model_dump(mode="json"),
        "batching": settings.batching.model_dump(mode="json"),
        "generation": settings.generation.model_dump(mode="json"),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    file_bytes = sum(max(size, 0) for _, size, _, _ in files)
    return SizeKey(
        name=digest,
        cache=CacheFolder(settings.runtime.verdict_cache),
        file_bytes=file_bytes,
        reserved_bytes=(settings.generation.cache_bytes or 0) if is_described(source.path) else 0,
    )


class ModelSizes:
    """The sizes of versions. Any thread; the first call for a version reads a small file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, _Record] = {}

    def expected(self, key: SizeKey) -> ModelSize:
        """Return the expected size of a version."""
        with self._lock:
            record = self._record(key)
            load_s = statistics.median(record.load_s) if record.load_s else 0.0
            if not record.peak:
                return _estimated(key, load_s)
            several = len(record.peak) > 1
            return ModelSize(
                steady=_each(statistics.median_high, record.steady),
                peak=_each(statistics.median_high, record.peak),
                least_peak=_each(min, record.peak) if several else NO_MEMORY,
                load_s=load_s,
                is_known=True,
            )

    def record(self, key: SizeKey, measured: Measured) -> None:
        """Record the measurements of a successful load."""
        with self._lock:
            record = self._record(key)
            record.load_s.append(measured.load_s)
            if measured.is_alone:
                record.steady.append(measured.steady)
                record.peak.append(measured.peak)
            content = record.content()
        key.cache.store(key.name, content)

    def _record(self, key: SizeKey) -> _Record:
        if key.name not in self._records:
            self._records[key.name] = _read(key.cache.load(key.name))
        return self._records[key.name]


def _estimated(key: SizeKey, load_s: float) -> ModelSize:
    peak = int(_ESTIMATED_FACTOR * key.file_bytes) + _ESTIMATED_EXTRA_BYTES
    has_device = device_bytes() > 0
    return ModelSize(
        steady=Memory(key.file_bytes + key.reserved_bytes, key.file_bytes if has_device else 0),
        peak=Memory(peak + key.reserved_bytes, peak if has_device else 0),
        least_peak=NO_MEMORY,
        load_s=load_s,
        is_known=False,
    )


def _each(choose: Callable[[Collection[int]], int], samples: Collection[Memory]) -> Memory:
    return Memory(choose([each.host for each in samples]), choose([each.device for each in samples]))


def _read(content: object) -> _Record:
    """Parse the ``content`` of a cache file; returns an empty record if it is invalid."""
    record = _Record()
    if not isinstance(content, Mapping):
        return record
    try:
        record.steady.extend(Memory(int(host), int(device)) for host, device in content["steady"])
        record.peak.extend(Memory(int(host), int(device)) for host, device in content["peak"])
        record.load_s.extend(float(each) for each in content["load_s"])
    except (KeyError, TypeError, ValueError):
        return _Record()
    return record if len(record.steady) == len(record.peak) else _Record()
