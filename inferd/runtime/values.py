"""Between inferd's arrays and those of ONNX Runtime, which wants aligned memory and strings as ``str``."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


def aligned(array: Array) -> Array:
    """Return ``array``, or a copy if it is a view that ONNX Runtime's kernels may not read: unaligned or with gaps."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned:
        return array
    return np.array(array, order="C")


def to_text(array: Array) -> Array:
    """Make ``str`` of an array of ``bytes``. They are UTF-8: `ModelSignature.check` lets nothing else in."""
    return _map_objects(array, bytes.decode)


def to_bytes(array: Array) -> Array:
    """Make ``bytes`` of an array of ``str``."""
    return _map_objects(array, str.encode)


def _map_objects(array: Array, convert: Callable[[Any], object]) -> Array:
    elements = array.ravel().tolist()
    converted = np.empty(len(elements), object)
    converted[:] = [convert(element) for element in elements]
    return converted.reshape(array.shape)
