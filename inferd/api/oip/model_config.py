"""The settings of a model version as Triton's model configuration, in the fields of ``config.pbtxt``."""

from collections.abc import Callable, Iterator, Mapping
from typing import cast

from inferd._generated.inference import model_config_pb2 as pb
from inferd.config.repository import LatestVersions, VersionPolicy
from inferd.config.settings import ModelSettings, PriorityQueueSettings
from inferd.config.tensors import TensorOverride, WarmupSample
from inferd.dtypes import BY_NAME
from inferd.models.triton.parameters import MODE, OPERATORS, PARAMETERS
from inferd.models.version import ModelVersion
from inferd.runtime.signature import ModelSignature, TensorSpec

#: Triton's name for ONNX models, which clients display.
PLATFORM = "onnxruntime_onnx"

_NO_OVERRIDE = TensorOverride()
_GRAPH_LEVELS = {"basic": -1, "extended": 1, "disabled": 2}
_ACCELERATORS = {
    "tensorrt": "gpu_execution_accelerator",
    "cuda": "gpu_execution_accelerator",
    "openvino": "cpu_execution_accelerator",
}
_DEFAULTS = ModelSettings()
#: Options of a provider that are reported elsewhere: as a device of the instances, and as parameters.
_REPORTED_ELSEWHERE = {"device_id", *(parameter.path[-1] for parameter in PARAMETERS.values())}


def model_config(version: ModelVersion, signature: ModelSignature, *, decoupled: bool = False) -> pb.ModelConfig:
    """Return the configuration of ``version``.

    ``max_batch_size`` is 0 unless the batch axis of every tensor is the first: if it is above 0, clients assume that
    axis for each tensor, and ``dims`` leaves it out. ``decoupled``: a request may have several responses.
    """
    settings = version.settings
    batched = signature.batchable and all(spec.batch_axis == 0 for spec in (*signature.inputs, *signature.outputs))
    config = pb.ModelConfig(
        name=version.name,
        platform=PLATFORM,
        backend="onnxruntime",
        default_model_filename=settings.file,
        max_batch_size=settings.batching.max_batch_size if batched else 0,
        input=[_input(spec, settings, batched=batched) for spec in signature.inputs],
        output=[_output(spec, settings, batched=batched) for spec in signature.outputs],
        instance_group=[_instance_group(version)],
        optimization=_optimization(settings),
        parameters={key: pb.ModelParameter(string_value=text) for key, text in _parameters(settings)},
        model_warmup=[_warmup(sample) for sample in settings.warmup],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=decoupled),
    )
    if settings.versions is not None:
        config.version_policy.CopyFrom(_version_policy(settings.versions))
    if settings.batching.enabled and signature.batchable:
        config.dynamic_batching.CopyFrom(_dynamic_batching(settings))
    return config


def _input(spec: TensorSpec, settings: ModelSettings, *, batched: bool) -> pb.ModelInput:
    override = settings.inputs.get(spec.name, _NO_OVERRIDE)
    return pb.ModelInput(
        name=spec.name,
        data_type=_data_type(spec.datatype.name),
        dims=_dims(spec, override, batched=batched),
        reshape=_reshape(override, batched=batched),
        optional=spec.optional,
    )


def _output(spec: TensorSpec, settings: ModelSettings, *, batched: bool) -> pb.ModelOutput:
    override = settings.outputs.get(spec.name)
    return pb.ModelOutput(
        name=spec.name,
        data_type=_data_type(spec.datatype.name),
        dims=_dims(spec, override or _NO_OVERRIDE, batched=batched),
        reshape=_reshape(override or _NO_OVERRIDE, batched=batched),
        label_filename=override.labels if override is not None else "",
    )


def _dims(spec: TensorSpec, override: TensorOverride, *, batched: bool) -> list[int]:
    sizes = override.shape
    if sizes is None:
        sizes = [dimension if isinstance(dimension, int) else -1 for dimension in spec.shape]
    return sizes[1:] if batched else sizes


def _reshape(override: TensorOverride, *, batched: bool) -> pb.ModelTensorReshape | None:
    if override.model_shape is None:
        return None
    return pb.ModelTensorReshape(shape=override.model_shape[1:] if batched else override.model_shape)


def _data_type(name: str) -> "pb.DataType.ValueType":
    return cast("pb.DataType.ValueType", BY_NAME[name].triton_config)


def _version_policy(policy: VersionPolicy) -> pb.ModelVersionPolicy:
    if isinstance(policy, LatestVersions):
        return pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=policy.latest))
    if policy == "all":
        return pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All())
    return pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=policy))


def _dynamic_batching(settings: ModelSettings) -> pb.ModelDynamicBatching:
    batching, queue = settings.batching, settings.queue
    whole = PriorityQueueSettings(max_rows=queue.max_rows)
    return pb.ModelDynamicBatching(
        preferred_batch_size=batching.preferred_sizes,
        max_queue_delay_microseconds=round(batching.max_wait_ms * 1000),
        priority_levels=queue.priority_levels,
        default_priority_level=queue.default_priority,
        default_queue_policy=_queue_policy(settings, whole),
        priority_queue_policy={level: _queue_policy(settings, own) for level, own in queue.by_priority.items()},
    )


def _queue_policy(settings: ModelSettings, own: PriorityQueueSettings) -> pb.ModelQueuePolicy:
    """Return the policy of a priority; what is not its own is that of the queue."""
    queue = settings.queue
    timeout_ms = queue.default_timeout_ms if own.default_timeout_ms is None else own.default_timeout_ms
    may_override = own.allow_timeout_override
    return pb.ModelQueuePolicy(
        timeout_action=pb.ModelQueuePolicy.REJECT,
        default_timeout_microseconds=round(timeout_ms * 1000),
        allow_timeout_override=queue.allow_timeout_override if may_override is None else may_override,
        max_queue_size=own.max_rows or 0,
    )


def _instance_group(version: ModelVersion) -> pb.ModelInstanceGroup:
    on_gpu = any(name.startswith(("CUDA", "Tensorrt", "NvTensorRtRtx", "ROCM")) for name in version.providers)
    return pb.ModelInstanceGroup(
        name=version.name,
        count=version.settings.batching.max_instances,
        kind=pb.ModelInstanceGroup.KIND_GPU if on_gpu else pb.ModelInstanceGroup.KIND_CPU,
        gpus=_devices(version.settings) if on_gpu else [],
    )


def _devices(settings: ModelSettings) -> list[int]:
    options = settings.runtime.provider_options
    found = (options[name]["device_id"] for name in options if "device_id" in options[name])
    return [int(device) for device in found if device.isdecimal()][:1] or [0]


def _optimization(settings: ModelSettings) -> pb.ModelOptimizationPolicy | None:
    runtime = settings.runtime
    policy = pb.ModelOptimizationPolicy()
    if (level := _GRAPH_LEVELS.get(runtime.graph_optimization)) is not None:
        policy.graph.level = level
    for name, field in _ACCELERATORS.items():
        given = runtime.provider_options.get(name, {})
        options = {key: value for key, value in given.items() if key not in _REPORTED_ELSEWHERE}
        # CUDA is the default on a GPU, so only its options make it one.
        if options or (name != "cuda" and name in runtime.providers):
            getattr(policy.execution_accelerators, field).add(name=name, parameters=options)
    return policy if policy.ListFields() else None


def _parameters(settings: ModelSettings) -> Iterator[tuple[str, str]]:
    """Yield the parameters of Triton's backend that say what the settings say, where these are not the default."""
    if settings.runtime.inter_op_threads != 1:
        yield MODE, "1"
        yield OPERATORS, str(settings.runtime.inter_op_threads)
    values, defaults = settings.model_dump(), _DEFAULTS.model_dump()
    for key, parameter in PARAMETERS.items():
        value = _at(values, parameter.path)
        if value is not None and value != _at(defaults, parameter.path):
            # The text that Triton would read as this value: a number, or the number of one of several words.
            texts = [str(int(value)) if isinstance(value, int) else str(value), "0", "1", "2"]
            yield key, next((text for text in texts if _reads_as(parameter.convert, text, value)), texts[0])


def _reads_as(convert: Callable[[str], object], text: str, value: object) -> bool:
    try:
        return convert(text) == value
    except ValueError:
        return False


def _at(values: object, path: tuple[str, ...]) -> object:
    for name in path:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _warmup(sample: WarmupSample) -> pb.ModelWarmup:
    inputs = {}
    for name, each in sample.inputs.items():
        data = {"input_data_file": each.file} if each.file else {f"{each.fill}_data": True}
        inputs[name] = pb.ModelWarmup.Input(data_type=_data_type(each.datatype), dims=each.dims, **data)
    return pb.ModelWarmup(name=sample.name, batch_size=sample.batch_size, count=sample.count, inputs=inputs)
