"""The built-in model recognizes digits."""

from pathlib import Path

import numpy as np
import pytest

from inferd import demo
from inferd.config.settings import ModelSettings
from inferd.models.repository import resolve
from inferd.runtime.session import OnnxSession, open_session

HELD_OUT = Path(__file__).parents[2] / "data" / "digits_test.npz"


@pytest.fixture(scope="module")
def session() -> OnnxSession:
    """The model opened as in the server."""
    (source,) = resolve([demo.repository()])
    assert (source.name, source.version) == ("digits", "1")
    return open_session(source.path, ModelSettings())


def test_held_out_digits(session):
    """At least 95 of 100 are correct."""
    with np.load(HELD_OUT) as arrays:
        pixels, digits = arrays["X"].astype(np.float32), arrays["y"]
    assert len(digits) == 450
    label, probabilities = session.run({"X": pixels}, ["label", "probabilities"])
    assert (label == digits).mean() > 0.95
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_samples_are_one_of_each_digit_and_correct(session):
    """The first call of a new user has the answer of the README."""
    samples = demo.samples()
    session.signature.check({"X": samples.inputs})
    assert samples.labels.tolist() == list(range(10))
    assert session.run({"X": samples.inputs}, ["label"])[0].tolist() == list(range(10))


def test_is_batched(session):
    """Its answers are tensors, and rows are independent."""
    assert session.signature.batchable
    assert [spec.datatype.name for spec in session.signature.outputs] == ["INT64", "FP32"]
