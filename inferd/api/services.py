"""All services of the server, put together in one place."""

from collections.abc import Callable

import grpc

from inferd.api import inference_service, open_inference_service
from inferd.api.errors import StatusTable
from inferd.api.inference_service import InferenceService
from inferd.api.open_inference_service import OpenInferenceService
from inferd.api.streaming import OpenStreams
from inferd.api.submission import monotonic
from inferd.models.registry import ModelRegistry
from inferd.rpc import Server

#: The services that answer inference requests.
INFERENCE_SERVICE_NAMES = (inference_service.SERVICE_NAME, open_inference_service.SERVICE_NAME)


class InferenceServices:
    """Both inference services on one registry. ``add_to`` before the server starts, ``drain`` when it is to stop."""

    def __init__(self, registry: ModelRegistry, overload_code: grpc.StatusCode, is_ready: Callable[[], bool]) -> None:
        self._registry = registry
        self._statuses = StatusTable(overload_code)
        self._is_ready = is_ready
        self._streams = OpenStreams()

    def add_to(self, server: Server) -> None:
        """Register the handlers with ``server``."""

        def call_soon(callback: Callable[[], None]) -> None:
            server.call_at(monotonic(), callback)

        own = InferenceService(self._registry, self._statuses, call_soon, self._streams)
        open_inference = OpenInferenceService(
            self._registry, self._statuses, call_soon, self._streams, self._is_ready
        )
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(inference_service.SERVICE_NAME, own.handlers()),
                grpc.method_handlers_generic_handler(open_inference_service.SERVICE_NAME, open_inference.handlers()),
            ]
        )

    def drain(self) -> None:
        """Bring every stream to its end; on the poll thread."""
        self._streams.drain()
