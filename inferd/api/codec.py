"""What a protocol must say of its messages so that unary calls and streams can be the same for all protocols."""

from dataclasses import dataclass
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from inferd.api.request_scan import Frame
from inferd.api.submission import DecodedRequest
from inferd.batching.request import InferenceResult
from inferd.errors import Part, Place
from inferd.models.version import ModelVersion
from inferd.runtime.signature import ModelSignature

Request = TypeVar("Request", bound=Message)


@dataclass(slots=True)
class Answer:
    """The answer to one request, not to be changed.

    ``as_lists`` if its outputs are to be typed lists, where the protocol has them.
    """

    model: ModelVersion
    request_id: str
    as_lists: bool
    result: InferenceResult


class Codec(Protocol[Request]):
    """The messages of one protocol. Methods that take a request raise `InvalidInputError` for what is wrong with it."""

    def scan(self, message: bytes) -> Frame | None:
        """Refuse a message that would be much work to parse; return its frame, None if it has none."""
        ...

    def parse(self, message: bytes) -> Request:
        """Parse a request that was scanned."""
        ...

    def target(self, request: Request) -> tuple[str, str]:
        """Return the name and version of the model that is asked."""
        ...

    def request_id(self, request: Request) -> str:
        """Return the caller's own id of the request, or an empty string."""
        ...

    def wants_lists(self, request: Request) -> bool:
        """Whether the answer is to have typed lists."""
        ...

    def decode(self, request: Request, signature: ModelSignature) -> DecodedRequest:
        """Turn ``request`` into arrays of the types and ranks that ``signature`` declares."""
        ...

    def field_of(self, request: Request, at: Place | Part) -> str:
        """Return the path to the field of ``request`` that an error is about, in the protocol's terms."""
        ...

    def encode(self, answer: Answer) -> bytes:
        """Return the message that answers a unary call."""
        ...
