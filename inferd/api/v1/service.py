"""``inferd.v1.InferenceService``: inference, descriptions of the models, and their loading and unloading."""

from typing import Any

import grpc

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.api.admission import ModelView
from inferd.api.handler_resources import HandlerResources
from inferd.api.repository import RepositoryControl
from inferd.api.request_decoder import RequestDecoder
from inferd.api.unary import UnaryInference, query_handler
from inferd.api.v1.codec import InferenceCodec, duration_of
from inferd.api.v1.repository import repository_handlers
from inferd.api.v1.routing import RoutingMethods
from inferd.api.v1.stream import InferenceStream
from inferd.config.generation import GenerationSettings
from inferd.models.loaded import LanguageModel
from inferd.models.router import Router
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.observability.metrics.run_cost import RunCost
from inferd.rpc import StreamCall, callback_stream, callback_unary
from inferd.runtime.signature import TensorSpec


class InferenceService:
    """Handlers of the service's methods."""

    def __init__(self, resources: HandlerResources, control: RepositoryControl, router: Router) -> None:
        self._resources = resources
        self._control = control
        self._routing = RoutingMethods(router)
        self._decoder = RequestDecoder(InferenceCodec(resources.limits))

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """Return the handler of each method, by name."""
        registry, statuses, waits = self._resources.registry, self._resources.statuses, self._resources.waits
        return {
            "Infer": callback_unary(
                UnaryInference(self._decoder, registry, statuses, self._resources.large_messages, waits)
            ),
            "StreamInfer": callback_stream(self._open_stream),
            "ListModels": query_handler(pb.ListModelsRequest, _list_models, registry, statuses),
            "GetModel": query_handler(pb.GetModelRequest, _get_model, registry, statuses, waits=waits),
            "GetRouting": query_handler(pb.GetRoutingRequest, self._routing.get, registry, statuses),
            "SetRouting": query_handler(pb.SetRoutingRequest, self._routing.set, registry, statuses),
            **repository_handlers(self._control, registry, describe_model),
        }

    def _open_stream(self, call: StreamCall) -> InferenceStream:
        return InferenceStream(call, self._decoder, self._resources).open()


def _list_models(_: pb.ListModelsRequest, models: ModelView) -> pb.ListModelsResponse:
    return pb.ListModelsResponse(models=[describe_model(version) for version in models.all()])


def _get_model(query: pb.GetModelRequest, models: ModelView) -> pb.GetModelResponse:
    version = models.find(query.model, query.version)
    if query.load and version.on_demand and version.state is not ModelState.READY:
        raise version.unavailable()
    return pb.GetModelResponse(model=describe_model(version))


def describe_model(version: ModelVersion) -> pb.Model:
    """Describe ``version`` in any state, with what is known of it."""
    description = pb.Model(
        name=version.name,
        version=version.version,
        state=pb.Model.State.Value(f"STATE_{version.state.name}"),
        reason=version.reason,
        batching=_batching(version),
        providers=version.providers,
        residency=_residency(version),
    )
    if version.signature is not None:
        description.inputs.extend(_tensor_info(spec) for spec in version.signature.inputs)
        description.outputs.extend(_tensor_info(spec) for spec in version.signature.outputs)
    runs = version.batcher or version.generator
    cost = None if runs is None else runs.run_cost()
    if cost is not None:
        description.run_cost.CopyFrom(_run_cost(cost))
    if version.language is not None:
        description.generation.CopyFrom(_generation(version.language, version.settings.generation))
    return description


def _generation(model: LanguageModel, settings: GenerationSettings) -> pb.Generation:
    return pb.Generation(
        context_length=model.limits.context_length,
        vocabulary_size=model.limits.vocabulary_size,
        max_sequences=model.decoder.slots,
        cache_bytes_per_token=model.decoder.cache_bytes_per_token,
        cache_bytes=model.generator.cache_bytes,
        cache_bytes_in_use=model.generator.cache_bytes_in_use,
        has_tokenizer=model.has_tokenizer,
        has_chat_template=model.has_chat_template,
        default_max_tokens=min(settings.default_max_tokens, model.limits.context_length),
    )


def _residency(version: ModelVersion) -> pb.Residency:
    residency = pb.Residency(
        on_demand=version.on_demand,
        memory_bytes=version.memory_bytes,
        device_memory_bytes=version.device_memory_bytes,
    )
    if version.is_loaded:
        residency.load_duration.CopyFrom(duration_of(version.load_s))
    return residency


def _batching(version: ModelVersion) -> pb.Batching:
    batching, queue = version.settings.batching, version.settings.queue
    message = pb.Batching(
        enabled=version.max_batch_size > 1,
        max_batch_size=version.max_batch_size,
        max_wait=duration_of(batching.max_wait_ms / 1000),
        instances=batching.max_instances,
        min_instances=batching.min_instances,
        max_queue_rows=queue.max_rows if version.language is None else version.settings.generation.max_waiting_tokens,
        backpressure=queue.policy,
        priority_levels=queue.priority_levels,
    )
    verdict = version.verdict
    if verdict is not None:
        message.verdict = pb.Batching.Verdict.Value(f"VERDICT_{verdict.standing.name}")
        message.verdict_reason = verdict.reason
    if version.batcher is not None:
        message.present_instances = version.batcher.instances.count
        counted = version.batcher.statistics()
        message.checks, message.mismatches = counted.checks, counted.mismatches
    return message


def _run_cost(cost: RunCost) -> pb.RunCost:
    sizes = [
        pb.PredictedRun(rows=run.rows, duration=duration_of(run.seconds), duration_p95=duration_of(run.p95_s))
        for run in cost.sizes
    ]
    return pb.RunCost(sizes=sizes, error=cost.error, runs=cost.runs)


def _tensor_info(spec: TensorSpec) -> pb.TensorInfo:
    return pb.TensorInfo(
        name=spec.name,
        datatype=spec.datatype.proto,  # type: ignore[arg-type]  # enums are ints on the wire
        shape=[dimension if isinstance(dimension, int) else -1 for dimension in spec.shape],
        dimension_names=[dimension if isinstance(dimension, str) else "" for dimension in spec.shape],
        batch_axis=spec.batch_axis,
        optional=spec.optional,
    )
