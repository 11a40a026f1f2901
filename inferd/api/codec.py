"""The interface of codecs, which each protocol implements: messages to requests, results to messages."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from google.protobuf.message import Message

from inferd.api.admission import DecodedRequest
from inferd.api.wire_scanner import WireScanner, parse
from inferd.batching.request import InferenceResult
from inferd.errors import InvalidInputError, Part, Place
from inferd.models.version import ModelVersion
from inferd.runtime.signature import ModelSignature

#: A request of any protocol, and one that is a protobuf message.
Request = TypeVar("Request")
WireRequest = TypeVar("WireRequest", bound=Message)
_Request_contra = TypeVar("_Request_contra", contravariant=True)

#: Queries hold a few names. Protobuf's parser takes some milliseconds for the worst message of this size.
_MAX_QUERY_BYTES = 64 * 1024


class Header(NamedTuple):
    """The model's name and version, and the request id, as in the request. Empty if not given."""

    model: str
    version: str
    request_id: str


class AdmissionTerms(NamedTuple):
    """The fields that decide the admission of a request; see `DecodedRequest`. ``rows`` is None if it is not clear."""

    priority: int
    timeout_s: float | None
    rows: int | None


@dataclass(frozen=True, slots=True)
class ResponseForm:
    """How a request wants its outputs.

    ``as_lists`` as typed lists, except those that ``raw`` names; ``classes`` as the largest elements, by output.
    """

    as_lists: bool = False
    classes: Mapping[str, int] = field(default_factory=dict)
    raw: frozenset[str] = frozenset()


#: The usual form: raw bytes. It is compared by identity, because every response is looked at.
RAW = ResponseForm()


@dataclass(slots=True)
class Response:
    """The response to one request, not to be changed."""

    model: ModelVersion
    request_id: str
    form: ResponseForm
    result: InferenceResult


class ShapedTensor(Protocol):
    """An input in a request of any protocol."""

    @property
    def name(self) -> str:
        """The input's name."""
        ...

    @property
    def shape(self) -> Sequence[int]:
        """The shape, empty if it was left out."""
        ...


class Codec(Protocol[_Request_contra]):
    """The messages of one protocol. `decode` raises `InvalidInputError` for an invalid request."""

    def header(self, request: _Request_contra) -> Header:
        """Return which model ``request`` asks for, and its id."""
        ...

    def form(self, request: _Request_contra) -> ResponseForm:
        """Return how ``request`` is to be answered, if it is valid; `RAW` itself in the usual case."""
        ...

    def timeout_s(self, request: _Request_contra) -> float | None:
        """Return the timeout that ``request`` names; None for none."""
        ...

    def admission_terms(self, outline: _Request_contra, signature: ModelSignature) -> AdmissionTerms:
        """Return what decides the admission of a request, given its ``outline``: parsed without contents of tensors."""
        ...

    def decode(self, request: _Request_contra, signature: ModelSignature) -> DecodedRequest:
        """Convert ``request`` to arrays of the dtypes and ranks that ``signature`` declares."""
        ...

    def field_of(self, request: _Request_contra, at: Place | Part) -> str:
        """Return the path to the field of ``request`` that an error is about."""
        ...

    def encode(self, response: Response) -> bytes:
        """Return the response message of a unary call."""
        ...


class WireCodec(Codec[WireRequest], Protocol[WireRequest]):
    """A protocol whose requests are protobuf messages."""

    @property
    def scanner(self) -> WireScanner:
        """Scans requests before they are parsed."""
        ...

    @property
    def request_type(self) -> type[WireRequest]:
        """The message class of requests."""
        ...


def rows_of(tensors: Iterable[ShapedTensor], signature: ModelSignature) -> int | None:
    """Return how many rows ``tensors`` have by their shapes; None if that is not clear, or not valid."""
    for tensor in tensors:
        spec = signature.input(tensor.name)
        if spec.batch_axis is not None:
            shape = tensor.shape
            return shape[spec.batch_axis] if len(shape) == len(spec.shape) and shape[spec.batch_axis] > 0 else None
    return 1


def parse_query(kind: type[WireRequest], message: bytes) -> WireRequest:
    """Parse a query. Raises `InvalidInputError` if it is malformed or far too large for one."""
    if len(message) > _MAX_QUERY_BYTES:
        msg = f"{kind.DESCRIPTOR.full_name}: expected at most {_MAX_QUERY_BYTES} bytes, got {len(message)}"
        raise InvalidInputError(msg)
    return parse(kind, message)
