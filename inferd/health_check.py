"""The messages of the standard health service, `grpc.health.v1.Health`.

They are small, and encoded here for programs that must not need the stubs or wait for their import; the stubs of older
releases also lack `List`.
"""

from collections.abc import Mapping
from enum import IntEnum

from inferd import wire

METHOD = "/grpc.health.v1.Health/Check"

_SERVICE = wire.length_tag(1)
_STATUS = wire.integer_tag(1)
_STATUSES = wire.length_tag(1)
_NAME, _RESPONSE = wire.length_tag(1), wire.length_tag(2)


class HealthStatus(IntEnum):
    """The statuses of a response."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


_ANSWERS = {wire.integer(_STATUS, status): status for status in HealthStatus if status} | {b"": HealthStatus.UNKNOWN}


def encode_check(service: str = "") -> bytes:
    """Encode the request; an empty name is the server as a whole."""
    return wire.field(_SERVICE, service.encode()) if service else b""


def decode_status(answer: bytes) -> HealthStatus:
    """Decode the response; any other content is UNKNOWN."""
    return _ANSWERS.get(answer, HealthStatus.UNKNOWN)


def encode_list(statuses: Mapping[str, HealthStatus]) -> bytes:
    """Encode the response to `List`: the status of each service by name."""
    return b"".join(
        wire.field(
            _STATUSES,
            wire.field(_NAME, name.encode()) + wire.field(_RESPONSE, wire.integer(_STATUS, status)),
        )
        for name, status in statuses.items()
    )
