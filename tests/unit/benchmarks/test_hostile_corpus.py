"""The corpus of hostile messages that benchmarks and tests share."""

import pytest

from benchmarks.hostile.corpus import KINDS
from inferd._generated.inferd.v1 import inference_pb2
from inferd._generated.inference import grpc_service_pb2

_NBYTES = 100_000


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_messages_have_requested_size(kind):
    """So that figures by size are comparable."""
    assert len(kind.build(_NBYTES)) == pytest.approx(_NBYTES, rel=0.01)


def test_every_method_has_messages():
    """New methods of the contract are included."""
    services = [file.DESCRIPTOR.services_by_name for file in (inference_pb2, grpc_service_pb2)]
    methods = {
        f"/{service.full_name}/{method.name}"
        for found in services
        for service in found.values()
        for method in service.methods
    }
    assert methods <= {kind.method for kind in KINDS.values()}


@pytest.mark.parametrize("method", ["Infer", "StreamInfer", "ModelInfer", "ModelStreamInfer"])
def test_inference_methods_have_most_messages(method):
    """Their messages have the most fields."""
    assert sum(kind.method.endswith(f"/{method}") for kind in KINDS.values()) > 100
