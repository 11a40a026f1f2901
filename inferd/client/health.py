"""The question for readiness, as the standard health service takes it.

Its messages are so small that they are written here instead of making the client depend on their stubs.
"""

from inferd.client.errors import DeadlineExceeded, NotFound, Unavailable

METHOD = "/grpc.health.v1.Health/Check"

#: An empty message asks for the server as a whole.
REQUEST = b""

#: Errors that mean "not ready" and not that something is wrong with the question.
NOT_READY = (Unavailable, NotFound, DeadlineExceeded)

# Field 1, the status, as a varint: 1 is SERVING.
_SERVING = b"\x08\x01"


def is_serving(response: bytes) -> bool:
    """Whether the answer says SERVING."""
    return response == _SERVING
