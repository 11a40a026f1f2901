"""Health checks need no credential, and tell nothing about models without one."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.integration.security.calls import TIMEOUT_S, status_of
from tests.integration.security.conftest import Secured

_STATUS = health_pb2.HealthCheckResponse


def test_models_are_unknown_without_a_credential(secured: Secured) -> None:
    """Also with the valid token of a caller who may see the model: these calls are not authenticated."""
    question = health_pb2.HealthCheckRequest(service="digits")
    with secured.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for metadata in ((), secured.bearer("inferd_operator")):
            code, details = status_of(lambda: stub.Check(question, metadata=metadata, timeout=TIMEOUT_S))  # noqa: B023
            assert code is grpc.StatusCode.NOT_FOUND
            assert "readiness" in details
            watch = stub.Watch(question, metadata=metadata, timeout=TIMEOUT_S)
            assert next(watch).status == _STATUS.SERVICE_UNKNOWN
            watch.cancel()
        ready = stub.Check(health_pb2.HealthCheckRequest(service="readiness"), timeout=TIMEOUT_S)
    assert ready.status == _STATUS.SERVING
