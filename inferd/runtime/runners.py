"""Run ONNX Runtime sessions, with numpy arrays or with values bound to device memory; and stop single runs.

Both ways are thread-safe. ONNX Runtime needs aligned contiguous arrays, and strings as ``str``; the rest of inferd uses
``bytes``.
"""

import ctypes
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import onnxruntime

from inferd.dtypes import BY_NAME, BYTES
from inferd.runtime.signature import Array, Tensors, TensorSpec

#: A session, binding or value of ONNX Runtime, which has no type stubs.
OrtObject = Any

_BF16 = BY_NAME["BF16"]


class RunStop:
    """Stops one run from any thread; not reusable.

    ONNX Runtime checks for it between two operators, also inside loops; an operator in progress finishes first. The run
    then fails.
    """

    __slots__ = ("options",)

    def __init__(self) -> None:
        self.options: OrtObject = onnxruntime.RunOptions()

    def stop(self) -> None:
        """Ask the run to stop; no effect after its end."""
        self.options.terminate = True

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return bool(self.options.terminate)


class Runner(Protocol):
    """Runs a session."""

    def run(self, inputs: Tensors, outputs: Sequence[str], options: OrtObject = None) -> list[Array]:
        """Run once and return ``outputs`` in that order; ``options`` are ONNX Runtime's run options."""
        ...

    def shrink(self, inputs: Tensors, outputs: Sequence[str]) -> None:
        """Run once and free the memory of ONNX Runtime's arenas that this run did not need."""
        ...


class DirectRunner:
    """Passes numpy arrays without copying inputs or outputs."""

    def __init__(self, session: OrtObject, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self._session = session
        self._text_inputs = frozenset(spec.name for spec in inputs if spec.datatype is BYTES)
        self._text_outputs = frozenset(spec.name for spec in outputs if spec.datatype is BYTES)

    def run(self, inputs: Tensors, outputs: Sequence[str], options: OrtObject = None) -> list[Array]:
        """Run once and return ``outputs`` in that order."""
        feed = {name: to_str(array) if name in self._text_inputs else aligned(array) for name, array in inputs.items()}
        results = self._session.run(outputs, feed, options)
        return [
            to_bytes(np.asarray(result)) if name in self._text_outputs else np.asarray(result)
            for name, result in zip(outputs, results, strict=True)
        ]

    def shrink(self, inputs: Tensors, outputs: Sequence[str]) -> None:
        """Run once and free the memory of ONNX Runtime's arenas that this run did not need."""
        self.run(inputs, outputs, _shrinking(self._session))


def _shrinking(session: OrtObject, *more_devices: str) -> OrtObject:
    """Return the options of a run that shrinks the arenas of ``session``, those on ``more_devices`` too."""
    # Without an arena there, the run would fail.
    on_cpu = ["cpu:0"] if session.get_session_options().enable_cpu_mem_arena else []
    devices = [*on_cpu, *more_devices]
    options = onnxruntime.RunOptions()
    if devices:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", ";".join(devices))
    return options


class BoundRunner:
    """Runs with values bound to device memory, in reusable buffers.

    It is also the only way to pass BF16, on any device, because ONNX Runtime has no numpy type for it. Strings cannot
    be bound. Each run in progress uses its own binding; idle ones are pooled, so their number is that of the most
    concurrent runs.
    """

    def __init__(self, session: OrtObject, inputs: Sequence[TensorSpec], *, device: str, device_id: int) -> None:
        self._session = session
        self._bf16_inputs = frozenset(spec.name for spec in inputs if spec.datatype is _BF16)
        self._device = device
        self._device_id = device_id
        self._idle: deque[_Binding] = deque()

    def run(self, inputs: Tensors, outputs: Sequence[str], options: OrtObject = None) -> list[Array]:
        """Run once and return ``outputs`` in that order."""
        try:
            binding = self._idle.pop()
        except IndexError:
            binding = _Binding(self._session, self._bf16_inputs, self._device, self._device_id)
        results = binding.run(inputs, outputs, options)
        # Not after a failure, which leaves the state of the binding unknown.
        self._idle.append(binding)
        return results

    def shrink(self, inputs: Tensors, outputs: Sequence[str]) -> None:
        """Run once and free all buffers, and the memory of ONNX Runtime's arenas that this run did not need."""
        self._idle.clear()
        on_gpu = [] if self._device == "cpu" else [f"gpu:{self._device_id}"]
        self.run(inputs, outputs, _shrinking(self._session, *on_gpu))


class _Binding:
    """One ONNX Runtime binding with its input buffers; used by one thread at a time.

    A buffer is reused while inputs keep its shape, as full batches do. Outputs are allocated in every run, because
    the returned arrays may be views of that memory.
    """

    def __init__(self, session: OrtObject, bf16_inputs: frozenset[str], device: str, device_id: int) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._bf16_inputs = bf16_inputs
        self._device = device
        self._device_id = device_id
        self._buffers: dict[str, OrtObject] = {}
        self._bound_inputs: frozenset[str] = frozenset()
        self._bf16_outputs = {output.name for output in session.get_outputs() if output.type == _BF16.onnx}

    def run(self, inputs: Tensors, outputs: Sequence[str], options: OrtObject = None) -> list[Array]:
        # OrtValues over numpy memory do not keep it alive.
        held = {name: aligned(array) for name, array in inputs.items()}
        if self._bound_inputs != held.keys():
            # An omitted optional input must have its default, not the value of an earlier run.
            self._binding.clear_binding_inputs()
            self._bound_inputs = frozenset(held)
        for name, array in held.items():
            value = _bf16_value(array) if name in self._bf16_inputs else self._filled_buffer(name, array)
            self._binding.bind_ortvalue_input(name, value)
        for name in outputs:
            if name in self._bf16_outputs:
                self._binding.bind_output(name, "cpu", 0)
            else:
                self._binding.bind_output(name, self._device, self._device_id)
        self._session.run_with_iobinding(self._binding, options)
        values = self._binding.get_outputs()
        self._binding.clear_binding_outputs()
        return [_array(value) for value in values]

    def _filled_buffer(self, name: str, array: Array) -> OrtObject:
        buffer = self._buffers.get(name)
        if buffer is None or tuple(buffer.shape()) != array.shape:
            buffer = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                array.shape, array.dtype.type, self._device, self._device_id
            )
            self._buffers[name] = buffer
        buffer.update_inplace(array)
        return buffer


def _bf16_value(array: Array) -> OrtObject:
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), _BF16.onnx_element_type)


def _array(value: OrtObject) -> Array:
    if value.data_type() != _BF16.onnx:
        return np.asarray(value.numpy())
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes()) if value.tensor_size_in_bytes() else b""
    return np.frombuffer(data, ml_dtypes.bfloat16).reshape(value.shape())


def aligned(array: Array) -> Array:
    """Return ``array``, or a copy if it is unaligned or not contiguous, which ONNX Runtime's kernels cannot read."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned:
        return array
    return np.array(array, order="C")


def to_str(array: Array) -> Array:
    """Convert an array of ``bytes`` to ``str``. `ModelSignature.check` has validated the UTF-8."""
    return _map_objects(array, bytes.decode)


def to_bytes(array: Array) -> Array:
    """Convert an array of ``str`` to ``bytes``."""
    return _map_objects(array, str.encode)


def _map_objects(array: Array, convert: Callable[[Any], object]) -> Array:
    elements = array.ravel().tolist()
    converted = np.empty(len(elements), object)
    converted[:] = [convert(element) for element in elements]
    return converted.reshape(array.shape)
