"""What a protocol must say of its messages so that unary calls and streams can be the same for all protocols."""

from typing import Protocol, TypeVar

from google.protobuf.message import Message

from inferd.api.submission import DecodedRequest
from inferd.batching.request import InferenceResult
from inferd.models.version import ModelVersion
from inferd.runtime.signature import ModelSignature

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message, contravariant=True)  # noqa: PLC0105  (one name for both variances)


class Codec(Protocol[Request, Response]):
    """The messages of one protocol. Methods that take a request raise `InvalidInputError` for what is wrong with it."""

    def parse(self, message: bytes) -> Request:
        """Parse the message of a unary call."""
        ...

    def target(self, request: Request) -> tuple[str, str]:
        """Return the name and version of the model that is asked."""
        ...

    def request_id(self, request: Request) -> str:
        """Return the caller's own id of the request, or an empty string."""
        ...

    def decode(self, request: Request, signature: ModelSignature) -> DecodedRequest:
        """Turn ``request`` into arrays of the types and ranks that ``signature`` declares."""
        ...

    def encode(self, request: Request, model: ModelVersion, result: InferenceResult) -> bytes:
        """Return the message that answers a unary call."""
        ...

    def encode_into(self, response: Response, request: Request, model: ModelVersion, result: InferenceResult) -> None:
        """Write the answer to ``request`` into ``response``, which is empty."""
        ...
