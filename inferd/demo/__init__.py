"""The small real model that inferd serves by default: handwritten digits, 8x8 pixels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["DIGIT", "Samples", "repository", "samples"]

_FOLDER = Path(__file__).resolve().parent

#: An image of a three as a JSON list of 64 numbers, for the command line.
DIGIT = _FOLDER / "digit.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Real inputs that the model has not seen in training, one of each digit.

    ``inputs`` is float32 [10,64]: the rows of the image concatenated, each pixel from 0, white, to 16, black.
    ``labels`` is int64 [10], the digits.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]


def repository() -> Path:
    """Return the model's directory, a path that the server can be given."""
    return _FOLDER / "digits"


def samples() -> Samples:
    """Return real inputs for the model."""
    with np.load(_FOLDER / "inputs.npz") as arrays:
        return Samples(inputs=arrays["X"].astype(np.float32), labels=arrays["label"])
