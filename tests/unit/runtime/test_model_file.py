"""Reading the versions in a model file without loading it."""

import pytest

from inferd.runtime.errors import ModelLoadError
from inferd.runtime.model_file import ModelHeader, read_header
from tests import onnx_models


def test_the_header_of_a_model(tmp_path):
    """Versions and producer, with the graph stepped over."""
    path = onnx_models.save(onnx_models.slow(steps=1), tmp_path / "model.onnx")
    assert read_header(path) == ModelHeader(
        ir_version=onnx_models.IR_VERSION,
        producer_name="inferd.tests",
        producer_version="",
        opsets={"ai.onnx": onnx_models.OPSET, "ai.onnx.ml": 3},
    )


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        onnx_models.slow(steps=1).SerializeToString()[:-1000],
        b"\x08" + b"\xff" * 11,
        b"\x42\x02\x08\x01",
        b"\x12\x01\xff",
    ],
    ids=["text", "truncated", "endless number", "operator set of wrong types", "name that is not text"],
)
def test_what_is_no_model_is_refused(content, tmp_path):
    """With the file's name."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"model\.onnx is not an ONNX file"):
        read_header(path)


def test_a_missing_file_is_refused(tmp_path):
    """With the system's reason."""
    with pytest.raises(ModelLoadError, match="No such file"):
        read_header(tmp_path / "model.onnx")
