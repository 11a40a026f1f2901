"""The Python client: numpy in, numpy out, synchronous and asyncio. Needs nothing of the server's."""

# Part of the interface. grpcio has no types, so type checkers complain of programs that import these from there.
from grpc import Compression, StatusCode

from inferd.arguments import MetadataLike
from inferd.client.aio import AsyncClient
from inferd.client.channel import ChannelOptions, RetryPolicy
from inferd.client.codec import Inputs
from inferd.client.errors import (
    Cancelled,
    DeadlineExceeded,
    InferdError,
    Internal,
    InvalidInput,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from inferd.client.generation import (
    Delta,
    FinishReason,
    Generated,
    GenerationOptions,
    GenerationUsage,
    Messages,
    Prompt,
    TokenLogprob,
    TokenLogprobs,
)
from inferd.client.generation_streams import AsyncGeneration, Generation
from inferd.client.repository import ModelConfig
from inferd.client.results import (
    BatchingInfo,
    GenerationInfo,
    IndexEntry,
    ModelInfo,
    ModelState,
    PredictedRun,
    Residency,
    Result,
    Routing,
    RunCost,
    Shadow,
    StreamItem,
    TensorInfo,
    Timing,
)
from inferd.client.stream import StreamInput
from inferd.client.sync import Client
from inferd.endpoint import TLS

__all__ = [
    "TLS",
    "AsyncClient",
    "AsyncGeneration",
    "BatchingInfo",
    "Cancelled",
    "ChannelOptions",
    "Client",
    "Compression",
    "DeadlineExceeded",
    "Delta",
    "FinishReason",
    "Generated",
    "Generation",
    "GenerationInfo",
    "GenerationOptions",
    "GenerationUsage",
    "IndexEntry",
    "InferdError",
    "Inputs",
    "Internal",
    "InvalidInput",
    "Messages",
    "MetadataLike",
    "ModelConfig",
    "ModelInfo",
    "ModelState",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "PredictedRun",
    "Prompt",
    "Residency",
    "Result",
    "RetryPolicy",
    "Routing",
    "RunCost",
    "Shadow",
    "StatusCode",
    "StreamInput",
    "StreamItem",
    "TensorInfo",
    "Timing",
    "TokenLogprob",
    "TokenLogprobs",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
]
