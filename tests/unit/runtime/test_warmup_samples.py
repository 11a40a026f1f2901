"""Warm-up samples of the settings, with real models."""

import logging
from pathlib import Path

import numpy as np
import pytest

from inferd.config.settings import ModelSettings
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.session import OnnxSession, open_session
from inferd.runtime.warmup_samples import run_samples
from tests import onnx_models


class Loaded:
    """A model whose runs are recorded."""

    def __init__(self, model, folder: Path, **settings: object) -> None:
        (folder / "1").mkdir(exist_ok=True)
        self.path = onnx_models.save(model, folder / "1" / "model.onnx")
        values = {"runtime": {"verdict_cache": None}, **settings}
        self.settings = ModelSettings.model_validate(values)
        self.session: OnnxSession = open_session(self.path, self.settings)
        self.ran: list[dict[str, np.ndarray]] = []
        run = self.session.run
        self.session.run = lambda inputs, outputs: self.ran.append(dict(inputs)) or run(inputs, outputs)

    def warm_up(self, *samples: dict) -> None:
        values = {**self.settings.model_dump(exclude_unset=True), "warmup": samples}
        run_samples(self.session, ModelSettings.model_validate(values), self.path)


def _sample(datatype="FP32", dims=(3,), name="x", batch_size=1, count=1, **data) -> dict:
    inputs = {name: {"datatype": datatype, "dims": list(dims), **data}}
    return {"name": "first", "batch_size": batch_size, "count": count, "inputs": inputs}


def test_zeros_and_random_values(tmp_path, caplog):
    """The batch dimension is added to the dims."""
    caplog.set_level(logging.INFO)
    model = Loaded(onnx_models.linear(), tmp_path)
    model.warm_up(_sample(fill="zero", batch_size=4, count=2), _sample(fill="random", batch_size=2))
    assert [each["x"].shape for each in model.ran] == [(4, 3), (4, 3), (2, 3)]
    assert not model.ran[0]["x"].any()
    assert len(np.unique(model.ran[2]["x"])) == 6
    assert 'warm-up sample 0 "first" ran 2 times' in caplog.text


def test_random_integers_are_ones_that_the_model_takes(tmp_path):
    """An index that is not in the table would fail."""
    model = Loaded(onnx_models.lookup(4), tmp_path)
    model.warm_up(_sample("INT64", (), "index", batch_size=64, fill="random"))
    assert set(model.ran[0]["index"].ravel().tolist()) <= {-4, -3, -2, -1, 0, 1, 2, 3}


def test_values_from_a_file(tmp_path):
    """One row, repeated; more bytes than needed are ignored."""
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "row").write_bytes(np.array([1, 2, 3, 4], np.float32).tobytes())
    model = Loaded(onnx_models.linear(), tmp_path)
    model.warm_up(_sample(file="row", batch_size=2))
    assert model.ran[0]["x"].tolist() == [[1, 2, 3], [1, 2, 3]]


def test_texts(tmp_path):
    """Empty for zero; in files each has its length before it."""
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "texts").write_bytes(b"\x02\0\0\0\xc3\xa9\0\0\0\0")
    model = Loaded(onnx_models.strings(), tmp_path)
    model.warm_up(*(_sample("BYTES", (2,), "text", **data) for data in ({"fill": "zero"}, {"file": "texts"})))
    assert [each["text"].tolist() for each in model.ran] == [[[b"", b""]], [["é".encode(), b""]]]


def test_without_batch_axes(tmp_path):
    """The dims are the whole shape if the settings say so; a model that turned out not to batch has one row."""
    model = Loaded(onnx_models.centred(), tmp_path, batch_axes="none")
    model.warm_up(_sample(dims=(5, 3), fill="zero"))
    assert model.ran[0]["x"].shape == (5, 3)
    model = Loaded(onnx_models.centred(), tmp_path)
    model.warm_up(_sample(fill="zero", batch_size=2))
    assert model.ran[0]["x"].shape == (2, 3)


@pytest.mark.parametrize(
    ("sample", "why"),
    [
        (_sample("INT64", fill="zero"), 'input "x": expected datatype FP32, got INT64'),
        (_sample(dims=(4,), fill="zero"), 'input "x": expected shape [batch,3], got [1,4]'),
        (_sample(dims=(), fill="zero"), 'input "x": expected shape [batch,3], got [1]'),
        (_sample(name="y", fill="zero"), 'input "y": expected one of "x", got an unknown name'),
        (_sample(file="row"), 'input "x": warmup/row: there is no such file or directory'),
        (_sample(file="short"), 'input "x": warmup/short: expected 12 bytes for [3] of FP32, got 5'),
    ],
)
def test_samples_that_do_not_fit(sample, why, tmp_path):
    """Fail the load with the name of the sample."""
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "short").write_bytes(b"short")
    with pytest.raises(ModelLoadError) as caught:
        Loaded(onnx_models.linear(), tmp_path).warm_up(_sample(fill="zero"), sample)
    assert str(caught.value) == f'warm-up sample 1 "first": {why}'


def test_rows_of_a_model_without_rows(tmp_path):
    """There is no dimension for them."""
    model = Loaded(onnx_models.linear(), tmp_path, batch_axes="none")
    with pytest.raises(ModelLoadError, match="expected batch_size 1, because no dimension of the inputs counts rows"):
        model.warm_up(_sample(dims=(1, 3), fill="zero", batch_size=2))


def test_sample_that_the_model_cannot_run(tmp_path):
    """With ONNX Runtime's reason."""
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "index").write_bytes(np.array(99, np.int64).tobytes())
    model = Loaded(onnx_models.lookup(4), tmp_path)
    with pytest.raises(ModelLoadError, match=r'warm-up sample 0 "first": .*out of data bounds'):
        model.warm_up(_sample("INT64", (), "index", file="index"))


def test_texts_that_are_too_few(tmp_path):
    """The file ends before the last one."""
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "texts").write_bytes(b"\x02\0\0\0ab\x01\0")
    model = Loaded(onnx_models.strings(), tmp_path)
    with pytest.raises(ModelLoadError, match="expected 2 texts, each with 4 bytes of its length before it, got fewer"):
        model.warm_up(_sample("BYTES", (2,), "text", file="texts"))
