"""Triton's model configuration."""

from types import SimpleNamespace

import pytest

from inferd._generated.inference import model_config_pb2 as pb
from inferd.api.oip.triton import model_config
from inferd.config.settings import ModelSettings
from inferd.runtime.signature import ModelSignature
from tests.unit.runtime.specs import signature, spec


def config(of: ModelSignature) -> pb.ModelConfig:
    version = SimpleNamespace(
        name="m", max_batch_size=64, settings=ModelSettings(), providers=("CPUExecutionProvider",), signature=of
    )
    return model_config(version, of)


@pytest.mark.parametrize(
    ("axis", "max_batch_size", "dims"), [(0, 64, [[3], [5]]), (None, 0, [[-1, 3], [-1, 5]])], ids=["rows", "shared"]
)
def test_marks_optional_inputs(axis, max_batch_size, dims):
    """An input that a batch shares has no batch dimension to leave out."""
    inputs = [spec("x", ("batch", 3), 0), spec("state", ("batch", 5), axis, optional=True)]
    told = config(signature(inputs, [spec("y", ("batch",), 0)]))
    assert [(each.name, each.optional) for each in told.input] == [("x", False), ("state", True)]
    assert told.max_batch_size == max_batch_size
    assert [list(each.dims) for each in told.input] == dims
