"""Train the demo model on scikit-learn's handwritten digits and write it to ``inferd.demo``.

Needs the extra ``train`` and takes a second; the result is checked in.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skl2onnx import to_onnx  # type: ignore[import-untyped]  # ships no types
from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # ships no types
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]  # ships no types
from sklearn.neural_network import MLPClassifier  # type: ignore[import-untyped]  # ships no types

_ROOT = Path(__file__).resolve().parent.parent
_SEED = 0
_OPSETS = {"": 17, "ai.onnx.ml": 3}


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Images of 8x8 pixels from 0 to 16 as rows of 64, and their digits."""

    train_pixels: NDArray[np.uint8]
    train_digits: NDArray[np.int64]
    test_pixels: NDArray[np.uint8]
    test_digits: NDArray[np.int64]


def load() -> Digits:
    """Return scikit-learn's digits, a quarter of them held out."""
    pixels, digits = load_digits(return_X_y=True)
    train_pixels, test_pixels, train_digits, test_digits = train_test_split(
        pixels.astype(np.uint8), digits.astype(np.int64), test_size=0.25, random_state=_SEED, stratify=digits
    )
    return Digits(
        train_pixels=train_pixels, train_digits=train_digits, test_pixels=test_pixels, test_digits=test_digits
    )


def train(digits: Digits) -> MLPClassifier:
    """Return a small network that recognizes the digits."""
    network = MLPClassifier(hidden_layer_sizes=(64,), max_iter=300, random_state=_SEED)
    return network.fit(digits.train_pixels.astype(np.float32), digits.train_digits)


def convert(network: MLPClassifier) -> bytes:
    """Return ``network`` as an ONNX file: X FP32 [rows,64] to label INT64 [rows] and probabilities FP32 [rows,10]."""
    model = to_onnx(
        network,
        np.zeros((1, 64), np.float32),
        name="digits",
        # Probabilities as a tensor, not as a list of maps, which clients cannot read.
        options={"zipmap": False},
        target_opset=_OPSETS,
    )
    return bytes(model.SerializeToString())


def main(root: Path = _ROOT) -> int:
    """Write the model, a few real inputs for it, and the held-out digits for the tests."""
    digits = load()
    network = train(digits)
    accuracy = network.score(digits.test_pixels.astype(np.float32), digits.test_digits)
    print(f"accuracy on {len(digits.test_digits)} held-out digits: {accuracy:.3f}")
    model = root / "inferd" / "demo" / "digits" / "1" / "model.onnx"
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(convert(network))
    samples = _one_of_each(digits)
    np.savez_compressed(
        root / "inferd" / "demo" / "inputs.npz", X=digits.test_pixels[samples], label=digits.test_digits[samples]
    )
    np.savez_compressed(
        root / "inferd" / "demo" / "digits" / "examples.npz", X=digits.test_pixels[samples].astype(np.float32)
    )
    held_out = root / "tests" / "data" / "digits_test.npz"
    held_out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(held_out, X=digits.test_pixels, y=digits.test_digits)
    return 0


def _one_of_each(digits: Digits) -> list[int]:
    return [int(np.flatnonzero(digits.test_digits == digit)[0]) for digit in range(10)]


if __name__ == "__main__":
    sys.exit(main())
