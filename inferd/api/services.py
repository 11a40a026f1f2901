"""The inference services of a server, assembled on one model registry."""

from collections.abc import Callable

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from inferd._generated.inferd.v1 import generation_pb2, inference_pb2
from inferd._generated.inference import grpc_service_pb2
from inferd.api.generation.generations import Generations
from inferd.api.handler_resources import DRAINING, HandlerResources
from inferd.api.large_messages import LargeMessages
from inferd.api.model_waits import ModelWaits
from inferd.api.oip.queries import OpenInferenceQueries
from inferd.api.oip.service import OpenInferenceService
from inferd.api.open_streams import OpenStreams
from inferd.api.openai import routes as openai_routes
from inferd.api.openai.service import OpenAiService
from inferd.api.openapi import openapi_operation
from inferd.api.repository import RepositoryControl
from inferd.api.rest.routes import PATHS
from inferd.api.rest.service import MAX_QUERY_BYTES, RestService
from inferd.api.status import StatusTable
from inferd.api.v1.generation import GenerationService
from inferd.api.v1.service import InferenceService
from inferd.api.wire_scanner import MessageLimits
from inferd.errors import ModelUnavailableError
from inferd.http.messages import Operation
from inferd.models.manager import ModelManager
from inferd.models.on_demand import OnDemandLoads
from inferd.models.registry import ModelRegistry
from inferd.models.router import Router
from inferd.rpc import Server

_INFERENCE: ServiceDescriptor = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
_GENERATION: ServiceDescriptor = generation_pb2.DESCRIPTOR.services_by_name["GenerationService"]
_OPEN_INFERENCE: ServiceDescriptor = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]

#: Names of the services that answer inference requests.
INFERENCE_SERVICE_NAMES = (_INFERENCE.full_name, _GENERATION.full_name, _OPEN_INFERENCE.full_name)


def method_names() -> frozenset[str]:
    """Return the full name of each method, as calls carry it: ``/package.Service/Method``, or a verb and a path."""
    return frozenset(
        f"/{service.full_name}/{method.name}"
        for service in (_INFERENCE, _GENERATION, _OPEN_INFERENCE)
        for method in service.methods
    ).union(PATHS, openai_routes.PATHS)


class InferenceServices:
    """The inference services, the REST form of the Open Inference Protocol, and OpenAI's API, on one registry.

    Call `add_to` before the server starts, `drain` when it begins to stop, and `stop` when it has stopped.
    """

    def __init__(
        self,
        *,
        registry: ModelRegistry,
        manager: ModelManager,
        router: Router,
        loads: OnDemandLoads,
        statuses: StatusTable,
        limits: MessageLimits,
        is_ready: Callable[[], bool],
    ) -> None:
        self._registry = registry
        self._manager = manager
        self._router = router
        self._waits = ModelWaits(loads, registry)
        self._cold_requests = loads.cold_requests
        self._statuses = statuses
        self._limits = limits
        self._is_ready = is_ready
        self._streams = OpenStreams()
        self._large_messages: LargeMessages | None = None
        self._control: RepositoryControl | None = None
        self._rest: RestService | None = None
        self._openai: OpenAiService | None = None

    def add_to(self, server: Server) -> None:
        """Register the handlers with ``server``."""
        self._large_messages = LargeMessages(server.poll_loop.call_soon)
        resources = HandlerResources(
            registry=self._registry,
            statuses=self._statuses,
            call_soon=server.poll_loop.call_soon,
            streams=self._streams,
            large_messages=self._large_messages,
            limits=self._limits,
            waits=self._waits,
        )
        self._control = RepositoryControl(self._manager, self._registry, self._statuses, self._large_messages)
        own = InferenceService(resources, self._control, self._router)
        answers = OpenInferenceQueries(self._is_ready, self._manager.counts, self._cold_requests)
        open_inference = OpenInferenceService(resources, self._control, answers)
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(_INFERENCE.full_name, own.handlers()),
                grpc.method_handlers_generic_handler(_GENERATION.full_name, GenerationService(resources).handlers()),
                grpc.method_handlers_generic_handler(_OPEN_INFERENCE.full_name, open_inference.handlers()),
            ]
        )
        generations = Generations(resources)
        self._rest = RestService(resources, self._control, answers, generations)
        self._openai = OpenAiService(resources, generations)

    def operations(self, max_body_bytes: int) -> list[tuple[str, Operation]]:
        """Return those of HTTP, with the templates of their paths; after `add_to`. Larger bodies are refused."""
        assert self._rest is not None, "the services have been added to a server"
        assert self._openai is not None, "the services have been added to a server"
        return [
            *self._rest.operations(max_body_bytes),
            *self._openai.operations(max_body_bytes),
            openapi_operation(min(MAX_QUERY_BYTES, max_body_bytes)),
        ]

    def settle(self, settled: Callable[[], None]) -> None:
        """Call ``settled`` on the poll thread once every request whose model has been looked up is in its queue.

        Requests are looked up and submitted in one step of the poll thread, or looked up by the thread for large
        messages and submitted by the poll thread afterwards; both take their work in order.
        """
        large_messages = self._large_messages
        assert large_messages is not None, "models are loaded by a server that has been started"
        large_messages.do(lambda: large_messages.call_soon(settled))

    def drain(self) -> None:
        """Drain every stream, and end what waits for loads; on the poll thread."""
        self._streams.drain()
        self._waits.drain(ModelUnavailableError(DRAINING))
        if self._control is not None:
            self._control.drain()

    def stop(self, timeout_s: float) -> bool:
        """End the threads. Return False if one is still busy after the timeout."""
        ended = [each.stop(timeout_s) for each in (self._large_messages, self._control) if each is not None]
        return all(ended)
