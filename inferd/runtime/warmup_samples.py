"""Requests from the settings that a model must answer before it becomes ready."""

import logging
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from inferd.config.settings import ModelSettings
from inferd.config.tensors import WarmupInput, WarmupSample
from inferd.dtypes import BY_NAME, BYTES
from inferd.errors import InvalidInputError
from inferd.runtime.errors import ModelLoadError, RunFailedError, runtime_message
from inferd.runtime.model_folder import model_folder
from inferd.runtime.session import OnnxSession
from inferd.runtime.signature import Array, Tensors, TensorSpec
from inferd.small_files import read_bytes, why_unreadable

_FOLDER = "warmup"
_MAX_FILE_BYTES = 2**30
_LENGTH = struct.Struct("<I")

_log = logging.getLogger("inferd.runtime")


class _SampleError(Exception):
    """A sample does not fit the model; the text says why."""


def run_samples(session: OnnxSession, settings: ModelSettings, path: Path) -> None:
    """Run the samples for the model of which ``path`` is a file. Raises `ModelLoadError` that names the sample."""
    outputs = [spec.name for spec in session.signature.outputs]
    for number, sample in enumerate(settings.warmup):
        name = f'warm-up sample {number} "{sample.name}"' if sample.name else f"warm-up sample {number}"
        try:
            inputs = _Samples(session, settings, model_folder(path) / _FOLDER).inputs(sample)
            session.signature.check(inputs)
            for _ in range(sample.count):
                session.run(inputs, outputs)
        except (InvalidInputError, _SampleError) as error:
            msg = f"{name}: {error}"
            raise ModelLoadError(msg) from error
        # The text may be quoted, because the operator has written the inputs.
        except RunFailedError as error:
            msg = f"{name}: {runtime_message(error.cause)}"
            raise ModelLoadError(msg) from error.cause
        _log.info("%s ran %d times", name, sample.count)


class _Samples:
    """Makes the inputs of samples for one session; files are in ``folder``."""

    def __init__(self, session: OnnxSession, settings: ModelSettings, folder: Path) -> None:
        self._signature = session.signature
        # Values that the model is known to take: a random index is outside of most tables.
        self._bounds = session.synthetic_inputs.bounds if session.synthetic_inputs else {}
        self._axes_are_found = settings.batch_axes == "auto"
        self._folder = folder
        self._random = np.random.default_rng(0)

    def inputs(self, sample: WarmupSample) -> Tensors:
        """Return the inputs of ``sample``. Raises `_SampleError` and `InvalidInputError`."""
        specs = {name: self._signature.input(name) for name in sample.inputs}
        axes = {name: self._rows_axis(specs[name], each) for name, each in sample.inputs.items()}
        if sample.batch_size > 1 and all(axis is None for axis in axes.values()):
            msg = f"expected batch_size 1, because no dimension of the inputs counts rows, got {sample.batch_size}"
            raise _SampleError(msg)
        return {
            name: self._value(specs[name], each, axes[name], sample.batch_size) for name, each in sample.inputs.items()
        }

    def _rows_axis(self, spec: TensorSpec, sample: WarmupInput) -> int | None:
        """Return the dimension that ``dims`` leave out; the first one if the model turned out not to batch."""
        if spec.batch_axis is None and self._axes_are_found and len(sample.dims) + 1 == len(spec.shape):
            return 0
        return spec.batch_axis

    def _value(self, spec: TensorSpec, sample: WarmupInput, axis: int | None, rows: int) -> Array:
        if sample.datatype != spec.datatype.name:
            msg = f'input "{spec.name}": expected datatype {spec.datatype.name}, got {sample.datatype}'
            raise _SampleError(msg)
        shape = list(sample.dims)
        if axis is not None and axis <= len(shape):
            shape.insert(axis, rows)
        try:
            if sample.file:
                row = self._from_file(spec.name, sample)
                return row if axis is None else np.stack([row] * rows, axis=axis)
            return self._zeros(spec, shape) if sample.fill == "zero" else self._drawn(spec, shape)
        except (MemoryError, ValueError) as error:
            msg = f'input "{spec.name}": cannot make a tensor of shape {shape}: {error}'
            raise _SampleError(msg) from error

    def _zeros(self, spec: TensorSpec, shape: list[int]) -> Array:
        return np.full(shape, b"", object) if spec.datatype is BYTES else np.zeros(shape, spec.datatype.numpy)

    def _drawn(self, spec: TensorSpec, shape: list[int]) -> Array:
        kind = spec.datatype.numpy.kind
        if spec.datatype is BYTES:
            return np.full(shape, b"a random text", object)
        if kind in "iub":
            low, high = self._bounds.get(spec.name, (0, 1))
            return self._random.integers(low, high, shape, endpoint=True).astype(spec.datatype.numpy)
        return np.asarray(self._random.normal(size=shape)).astype(spec.datatype.numpy)

    def _from_file(self, name: str, sample: WarmupInput) -> Array:
        """Return one row from a file. Bytes after it are ignored, as in Triton."""
        file = self._folder / sample.file
        try:
            content = read_bytes(file, _MAX_FILE_BYTES)
        except OSError as error:
            msg = f'input "{name}": {_FOLDER}/{sample.file}: {why_unreadable(file, error)}'
            raise _SampleError(msg) from error
        datatype, elements = BY_NAME[sample.datatype], math.prod(sample.dims)
        if datatype is BYTES:
            texts = np.empty(elements, object)
            texts[:] = list(_texts(content, elements))
            return texts.reshape(sample.dims)
        expected = elements * datatype.itemsize_bytes
        if len(content) < expected:
            msg = f"{_FOLDER}/{sample.file}: expected {expected} bytes for {sample.dims} of {datatype.name}, got"
            raise _SampleError(f'input "{name}": {msg} {len(content)}')
        return np.frombuffer(content, datatype.numpy, elements).reshape(sample.dims)


def _texts(content: bytes, count: int) -> Iterator[bytes]:
    """Yield the first ``count`` texts, each of which has its length before it. Raises `_SampleError`."""
    position = 0
    for _ in range(count):
        start = position + _LENGTH.size
        length = _LENGTH.unpack_from(content, position)[0] if start <= len(content) else 0
        position = start + length
        if position > len(content):
            msg = f"the file: expected {count} texts, each with 4 bytes of its length before it, got fewer"
            raise _SampleError(msg)
        yield content[start:position]
