"""The corpus of hostile messages that benchmarks and tests share."""

import pytest

from benchmarks.hostile.corpus import KINDS
from inferd._generated.inferd.v1 import inference_pb2
from inferd._generated.inference import grpc_service_pb2

_NBYTES = 100_000


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_messages_are_of_the_size_that_was_asked_for(kind):
    """Figures by size mean what they say."""
    assert len(kind.build(_NBYTES)) == pytest.approx(_NBYTES, rel=0.01)


def test_every_method_is_sent_some():
    """A method that is added to the contract is tried."""
    services = [file.DESCRIPTOR.services_by_name for file in (inference_pb2, grpc_service_pb2)]
    methods = {
        f"/{service.full_name}/{method.name}"
        for found in services
        for service in found.values()
        for method in service.methods
    }
    assert methods <= {kind.method for kind in KINDS.values()}


@pytest.mark.parametrize("method", ["Infer", "StreamInfer", "ModelInfer", "ModelStreamInfer"])
def test_the_methods_that_take_tensors_are_sent_the_most(method):
    """Where most can be brought, most is tried."""
    assert sum(kind.method.endswith(f"/{method}") for kind in KINDS.values()) > 100
