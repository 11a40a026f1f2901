"""The KV cache of a language model: memory for the keys and values of its sequences, a slot for each.

Each cache tensor of a layer is one region [slots, heads, capacity, size]. A run gets the part with its slots as input
and as output, so that GroupQueryAttention writes in place. On the host, the region is only reserved: a page takes
memory when a token is written to it, and returns it when the sequence ends.
"""

import math
import mmap
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np
import onnxruntime

from inferd import wire
from inferd.runtime.decoder_graph import CacheTensor
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.onnx_wire import message
from inferd.runtime.runners import OrtObject

#: A flag of Linux's mmap, which Python names from 3.13 on: without it, the kernel may count a reservation as memory.
_MAP_NORESERVE = 0x4000
_ELEMENT_NUMBERS = {np.dtype(np.float32): 1, np.dtype(np.float16): 10}


class SlotCache(Protocol):
    """Keys and values of sequences, each in a slot. Used by one thread."""

    @property
    def nbytes(self) -> int:
        """Bytes of all slots."""
        ...

    def bind(self, binding: OrtObject, slot: int, rows: int) -> None:
        """Bind the slots ``slot`` to ``slot + rows - 1`` as past inputs and present outputs."""
        ...

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy the first ``tokens`` of slot ``source`` over slot ``target``."""
        ...

    def release(self, slot: int, tokens: int, kept: int = 0) -> None:
        """Return the memory of all but the first ``kept`` of the ``tokens`` in ``slot``, where that is possible."""
        ...


class HostCache:
    """A `SlotCache` in the memory of this process.

    Each head of a slot begins with a new page, so that slots share no pages.
    """

    def __init__(self, tensors: Sequence[CacheTensor], element: np.dtype[np.generic], slots: int, context: int) -> None:
        self._tensors = tensors
        shapes = [(slots, t.heads, _capacity(context, t.size * element.itemsize), t.size) for t in tensors]
        self._starts = [0]
        for shape in shapes:
            self._starts.append(self._starts[-1] + math.prod(shape) * element.itemsize)
        self._memory = _reserved(self._starts[-1])
        self._arrays = [
            np.ndarray(shape, element, self._memory, start) for shape, start in zip(shapes, self._starts, strict=False)
        ]

    @property
    def nbytes(self) -> int:
        """See `SlotCache.nbytes`; only pages in use take memory."""
        return self._starts[-1]

    def bind(self, binding: OrtObject, slot: int, rows: int) -> None:
        """See `SlotCache.bind`."""
        for tensor, array in zip(self._tensors, self._arrays, strict=True):
            part = array[slot : slot + rows]
            where = ("cpu", 0, part.dtype.type, part.shape, part.ctypes.data)
            binding.bind_input(tensor.past, *where)
            binding.bind_output(tensor.present, *where)

    def move(self, source: int, target: int, tokens: int) -> None:
        """See `SlotCache.move`."""
        for array in self._arrays:
            array[target, :, :tokens] = array[source, :, :tokens]

    def release(self, slot: int, tokens: int, kept: int = 0) -> None:
        """See `SlotCache.release`; memory is returned in whole pages."""
        for array, start in zip(self._arrays, self._starts, strict=False):
            _, heads, capacity, size = array.shape
            token_bytes = size * array.itemsize
            used, first = tokens * token_bytes, _whole_pages(kept * token_bytes)
            if first >= used:
                continue
            at = start + array[:slot].nbytes
            if not first:
                self._memory.madvise(mmap.MADV_DONTNEED, at, array[slot].nbytes)
                continue
            for head in range(heads):
                begin = at + head * capacity * token_bytes + first
                self._memory.madvise(mmap.MADV_DONTNEED, begin, _whole_pages(used) - first)


class DeviceCache:
    """A `SlotCache` in the memory of a device, which is allocated at once."""

    def __init__(
        self,
        tensors: Sequence[CacheTensor],
        element: np.dtype[np.generic],
        slots: int,
        context: int,
        *,
        device: str,
        device_id: int,
        provider: tuple[str, dict[str, str]],
    ) -> None:
        self._tensors = tensors
        self._element = element
        self._shapes = [(slots, tensor.heads, context, tensor.size) for tensor in tensors]
        self._device = device
        self._device_id = device_id
        try:
            self._values = [
                onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, element.type, device, device_id)
                for shape in self._shapes
            ]
        except Exception as error:
            mib = self.nbytes // 2**20
            msg = f"the device has no memory for a cache of {mib} MiB; lower generation.max_sequences or cache_bytes"
            raise ModelLoadError(msg) from error
        # ONNX Runtime has no call that copies parts of a device's memory; a model that copies does.
        self._copier = onnxruntime.InferenceSession(_copying_model(element), providers=[provider])

    @property
    def nbytes(self) -> int:
        """See `SlotCache.nbytes`."""
        return sum(math.prod(shape) for shape in self._shapes) * self._element.itemsize

    def bind(self, binding: OrtObject, slot: int, rows: int) -> None:
        """See `SlotCache.bind`."""
        for index, tensor in enumerate(self._tensors):
            where = self._where(index, slot, rows)
            binding.bind_input(tensor.past, *where)
            binding.bind_output(tensor.present, *where)

    def move(self, source: int, target: int, tokens: int) -> None:
        """See `SlotCache.move`; copies the whole slot."""
        del tokens  # The first tokens of each head are not contiguous: they would take a copy for each head.
        for index in range(len(self._tensors)):
            binding = self._copier.io_binding()
            binding.bind_input("x", *self._where(index, source, 1))
            binding.bind_output("y", *self._where(index, target, 1))
            self._copier.run_with_iobinding(binding)

    def release(self, slot: int, tokens: int, kept: int = 0) -> None:
        """Do nothing: the memory cannot be returned in parts."""

    def _where(self, index: int, slot: int, rows: int) -> tuple[str, int, type[np.generic], Sequence[int], int]:
        shape = self._shapes[index][1:]
        address = self._values[index].data_ptr() + slot * math.prod(shape) * self._element.itemsize
        return self._device, self._device_id, self._element.type, (rows, *shape), address


def _capacity(context: int, token_bytes: int) -> int:
    """Return ``context``, rounded up to whole pages of ``token_bytes`` for each token of a head."""
    step = mmap.PAGESIZE // math.gcd(mmap.PAGESIZE, token_bytes)
    return -(-context // step) * step


def _whole_pages(nbytes: int) -> int:
    """Return ``nbytes``, rounded up to whole pages."""
    return -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE


def _reserved(nbytes: int) -> mmap.mmap:
    """Return private memory that takes pages when they are written."""
    try:
        memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    except (OSError, MemoryError) as error:
        msg = (
            f"there are no addresses for a cache of {nbytes // 2**20} MiB; lower generation.max_sequences or "
            f"generation.max_context_tokens"
        )
        raise ModelLoadError(msg) from error
    # The first token of a head would take a whole huge page. Some systems have none, and fail here.
    with suppress(OSError):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def _copying_model(element: np.dtype[np.generic]) -> bytes:
    """Return an ONNX model that copies x to y. The field numbers are those of onnx.proto."""

    def number(field: int, value: int) -> bytes:
        return wire.integer(wire.integer_tag(field), value)

    declared = message(2, message(1, number(1, _ELEMENT_NUMBERS[element])))
    graph = (
        message(1, message(1, b"x"), message(2, b"y"), message(4, b"Identity")),
        message(2, b"copy"),
        message(11, message(1, b"x"), declared),
        message(12, message(1, b"y"), declared),
    )
    return number(1, 8) + message(7, *graph) + message(8, number(2, 13))
