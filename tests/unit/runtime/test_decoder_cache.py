"""The KV cache on the host and on a device: slots, moves, released memory."""

import ctypes
import mmap
from collections.abc import Iterator

import numpy as np
import pytest

from inferd.runtime import decoder_cache
from inferd.runtime.decoder_cache import DeviceCache, HostCache, SlotCache
from inferd.runtime.decoder_graph import CacheTensor
from inferd.runtime.errors import ModelLoadError

SLOTS, CONTEXT = 4, 100
TENSORS = [
    CacheTensor(past="past.k", present="present.k", heads=2, size=16),
    CacheTensor(past="past.v", present="present.v", heads=3, size=8),
]


class Binding:
    """Records the bound memory by the names of inputs and outputs."""

    def __init__(self) -> None:
        self.bound: dict[str, np.ndarray] = {}

    def bind_input(self, name, device, device_id, element, shape, address) -> None:
        assert (device, device_id) == ("cpu", 0)
        nbytes = int(np.prod(shape)) * np.dtype(element).itemsize
        memory = (ctypes.c_char * nbytes).from_address(address)
        self.bound[name] = np.frombuffer(memory, element).reshape(shape)

    bind_output = bind_input


@pytest.fixture(params=["host", "device"])
def cache(request: pytest.FixtureRequest) -> Iterator[SlotCache]:
    """Both kinds of cache; the CPU stands in for a device, so that the test can read its memory."""
    element = np.dtype(np.float32)
    if request.param == "host":
        yield HostCache(TENSORS, element, SLOTS, CONTEXT)
    else:
        provider = ("CPUExecutionProvider", {})
        yield DeviceCache(TENSORS, element, SLOTS, CONTEXT, device="cpu", device_id=0, provider=provider)


def views(cache: SlotCache, slot: int = 0, rows: int = SLOTS) -> dict[str, np.ndarray]:
    binding = Binding()
    cache.bind(binding, slot, rows)
    return binding.bound


def test_inputs_and_outputs_are_the_same_memory(cache):
    """Each slot has its own memory, and consecutive slots are adjacent."""
    every = views(cache)
    for slot in range(SLOTS):
        for name, array in views(cache, slot, 1).items():
            array[:] = slot
            assert array.shape[0] == 1
            assert (every[name][slot] == slot).all()
    assert every["past.k"].shape[:2] == (SLOTS, 2)
    assert every["past.v"].shape[:2] == (SLOTS, 3)
    every["past.k"][:] = 7.0
    assert (every["present.k"] == 7.0).all()
    assert not (every["past.v"] == 7.0).any()
    assert all(array.shape[2] >= CONTEXT for array in every.values())
    assert cache.nbytes == sum(every[tensor.past].nbytes for tensor in TENSORS)


def test_moves_slot(cache):
    """The target has the tokens of the source, and other slots keep theirs."""
    every = views(cache)
    for slot in range(SLOTS):
        for tensor in TENSORS:
            every[tensor.past][slot] = slot + np.arange(every[tensor.past].shape[2])[None, :, None]
    before = {tensor.past: every[tensor.past].copy() for tensor in TENSORS}
    cache.move(3, 1, 20)
    for name, array in before.items():
        np.testing.assert_array_equal(every[name][1, :, :20], array[3, :, :20])
        np.testing.assert_array_equal(every[name][[0, 2, 3]], array[[0, 2, 3]])


def test_release_returns_pages_to_the_system():
    """They are zero when they are used again, and other slots keep their tokens."""
    cache = HostCache(TENSORS, np.dtype(np.float32), SLOTS, CONTEXT)
    every = views(cache)
    for array in every.values():
        array[:] = 5.0
    cache.release(2, CONTEXT)
    for array in every.values():
        assert not array[2].any()
        assert (array[[0, 1, 3]] == 5.0).all()


def test_release_keeps_the_first_tokens():
    """Of each head, the whole pages between the kept and the last tokens are returned."""
    tensor = CacheTensor(past="past.k", present="present.k", heads=2, size=16)
    page = mmap.PAGESIZE // (16 * 4)
    cache = HostCache([tensor], np.dtype(np.float32), 3, 4 * page)
    array = views(cache, rows=3)["past.k"]
    array[:] = 5.0
    cache.release(1, 2 * page + 1, page - 1)
    cache.release(0, page, page - 1)
    assert (array[1, :, :page] == 5.0).all()
    assert not array[1, :, page : 3 * page].any()
    assert (array[1, :, 3 * page :] == 5.0).all()
    assert (array[[0, 2]] == 5.0).all()


def test_pages_belong_to_one_head_of_one_slot():
    """Also if the size of a head does not divide a page."""
    tensors = [CacheTensor(past="k", present="p", heads=3, size=size) for size in (1, 80, 96, 128)]
    for tensor in tensors:
        for element in (np.float16, np.float32):
            cache = HostCache([tensor], np.dtype(element), 2, CONTEXT)
            assert cache.nbytes % (2 * 3 * mmap.PAGESIZE) == 0


def test_cache_larger_than_the_address_space():
    """The load error names the settings to lower."""
    tensor = CacheTensor(past="k", present="p", heads=1024, size=1024)
    with pytest.raises(ModelLoadError, match=r"no addresses for a cache .*generation\.max_context_tokens"):
        HostCache([tensor], np.dtype(np.float32), 1024, 16_777_216)


def test_cache_larger_than_the_memory_of_the_device(monkeypatch):
    """The load error names the settings to lower."""

    class NoMemory:
        @staticmethod
        def ortvalue_from_shape_and_type(*_: object) -> None:
            raise RuntimeError

    monkeypatch.setattr(decoder_cache.onnxruntime, "OrtValue", NoMemory)
    provider = ("CPUExecutionProvider", {})
    with pytest.raises(ModelLoadError, match=r"no memory for a cache .*lower generation\.max_sequences"):
        DeviceCache(TENSORS, np.dtype(np.float32), 1, 8, device="cpu", device_id=0, provider=provider)
