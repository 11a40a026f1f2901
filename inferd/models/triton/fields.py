"""The table of all fields of a model configuration: honoured, ignored or refused.

`refuse_and_ignore` acts on it, docs/from-triton.md shows it, and a test compares it with the proto: a field that is
added to the contract must be added here.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from inferd._generated.inference import model_config_pb2 as pb
from inferd.models.triton.draft import Draft
from inferd.models.triton.errors import TritonConfigError


class Treatment(StrEnum):
    """How a field is treated."""

    HONOURED = "honoured"
    IGNORED = "ignored"
    REFUSED = "refused"


class Field(NamedTuple):
    """The treatment of one field, or of a message with all its fields.

    ``text`` is the setting for it, the reason why it is ignored, or what to do instead.
    """

    treatment: Treatment
    text: str


_HONOURED, _IGNORED, _REFUSED = Treatment

_QUEUE_POLICY = {
    "timeout_action": Field(_HONOURED, "`REJECT`; `DELAY` is a difference: such requests are rejected too"),
    "default_timeout_microseconds": Field(_HONOURED, "`default_timeout_ms`"),
    "allow_timeout_override": Field(_HONOURED, "`allow_timeout_override`"),
    "max_queue_size": Field(_HONOURED, "`max_rows`, which counts rows and not requests"),
}

_FIELDS = {
    "name": Field(_HONOURED, "must be the directory's name, or empty, except with `--model NAME=PATH`"),
    "platform": Field(_HONOURED, "must be `onnxruntime_onnx`, or empty"),
    "backend": Field(_HONOURED, "must be `onnxruntime`, or empty"),
    "runtime": Field(_IGNORED, "there is one runtime"),
    "version_policy": Field(_HONOURED, "`versions`; without it, the latest one"),
    "max_batch_size": Field(
        _HONOURED, "0: `batch_axes: none`; above 0: `batch_axes: first` and `batching.max_batch_size`"
    ),
    "input.name": Field(_HONOURED, "`inputs.NAME`"),
    "input.data_type": Field(_HONOURED, "`inputs.NAME.datatype`"),
    "input.format": Field(_IGNORED, "tensors are never converted"),
    "input.dims": Field(_HONOURED, "`inputs.NAME.shape`, with the batch dimension"),
    "input.reshape": Field(_HONOURED, "`inputs.NAME.model_shape`"),
    "input.is_shape_tensor": Field(_REFUSED, "remove it: ONNX models have no shape tensors"),
    "input.allow_ragged_batch": Field(
        _REFUSED, "remove it and pad the inputs in the client: requests with other shapes do not share a batch"
    ),
    "input.optional": Field(_HONOURED, "`inputs.NAME.optional`"),
    "input.is_non_linear_format_io": Field(_REFUSED, "remove it: it is for TensorRT plans"),
    "output.name": Field(_HONOURED, "`outputs.NAME`; others are not served (`served_outputs: listed`)"),
    "output.data_type": Field(_HONOURED, "`outputs.NAME.datatype`"),
    "output.dims": Field(_HONOURED, "`outputs.NAME.shape`, with the batch dimension"),
    "output.reshape": Field(_HONOURED, "`outputs.NAME.model_shape`"),
    "output.label_filename": Field(_HONOURED, "`outputs.NAME.labels`"),
    "output.is_shape_tensor": Field(_REFUSED, "remove it: ONNX models have no shape tensors"),
    "output.is_non_linear_format_io": Field(_REFUSED, "remove it: it is for TensorRT plans"),
    "batch_input": Field(_REFUSED, "compute it in the model or in the client: inferd adds no inputs to a batch"),
    "batch_output": Field(_REFUSED, "let the model return one row for each row: inferd splits outputs by rows only"),
    "optimization.graph.level": Field(_HONOURED, "`runtime.graph_optimization`"),
    "optimization.priority": Field(_IGNORED, "for TensorRT plans"),
    "optimization.cuda": Field(_IGNORED, "for TensorRT plans"),
    "optimization.execution_accelerators": Field(_HONOURED, "`runtime.providers` and `runtime.provider_options`"),
    "optimization.input_pinned_memory": Field(_IGNORED, "buffers are managed by inferd"),
    "optimization.output_pinned_memory": Field(_IGNORED, "buffers are managed by inferd"),
    "optimization.gather_kernel_buffer_threshold": Field(_IGNORED, "buffers are managed by inferd"),
    "optimization.eager_batching": Field(_IGNORED, "batches are prepared by inferd"),
    "dynamic_batching.preferred_batch_size": Field(_HONOURED, "`batching.preferred_sizes`"),
    "dynamic_batching.max_queue_delay_microseconds": Field(_HONOURED, "`batching.max_wait_ms`"),
    "dynamic_batching.preserve_ordering": Field(_HONOURED, "a difference: an answer is sent as soon as it is there"),
    "dynamic_batching.priority_levels": Field(_HONOURED, "`queue.priority_levels`, strictly in order"),
    "dynamic_batching.default_priority_level": Field(_HONOURED, "`queue.default_priority`"),
    **{f"dynamic_batching.default_queue_policy.{name}": field for name, field in _QUEUE_POLICY.items()},
    **{f"dynamic_batching.priority_queue_policy.value.{name}": field for name, field in _QUEUE_POLICY.items()},
    "dynamic_batching.priority_queue_policy.key": Field(_HONOURED, "`queue.by_priority`"),
    "sequence_batching": Field(
        _REFUSED,
        "inferd keeps no state between requests: let the client send the state as an input and take it from an output",
    ),
    "ensemble_scheduling": Field(
        _REFUSED, "call the models one after another, or merge their ONNX files into one (onnx.compose)"
    ),
    "instance_group.name": Field(_IGNORED, "instances have no names"),
    "instance_group.count": Field(_HONOURED, "`batching.instances`, the sum of all groups"),
    "instance_group.kind": Field(_HONOURED, "`runtime.providers`"),
    "instance_group.gpus": Field(_HONOURED, "`runtime.provider_options`: the first one"),
    "instance_group.profile": Field(_IGNORED, "for TensorRT plans"),
    "instance_group.rate_limiter": Field(_IGNORED, "instances run as soon as there is work"),
    "instance_group.passive": Field(_HONOURED, "the group does not count"),
    "instance_group.secondary_devices": Field(_IGNORED, "for TensorRT plans"),
    "instance_group.host_policy": Field(_IGNORED, "threads are placed by the system"),
    "default_model_filename": Field(_HONOURED, "`file`"),
    "cc_model_filenames": Field(_REFUSED, "serve one file on all GPUs, or a model for each kind"),
    "metric_tags": Field(_IGNORED, "metrics have the labels of inferd"),
    "parameters": Field(_HONOURED, "by key, see below"),
    "model_warmup": Field(_HONOURED, "`warmup`"),
    "model_operations.op_library_filename": Field(
        _HONOURED, "`runtime.custom_ops`, if the server's own settings list the library as well"
    ),
    "model_transaction_policy.decoupled": Field(
        _REFUSED, "every request has exactly one response, except those to language models, which stream anyway"
    ),
    "model_repository_agents": Field(_REFUSED, "run what the agents do before the files are in the repository"),
    "response_cache": Field(_IGNORED, "answers are not cached"),
    "model_metrics": Field(_IGNORED, "the buckets are those of inferd"),
}

#: The fields by dotted path. An entry for a message holds for all its fields.
FIELDS: Mapping[str, Field] = MappingProxyType(_FIELDS)


def refuse_and_ignore(config: pb.ModelConfig, draft: Draft) -> None:
    """Raise `TritonConfigError` for set fields that are refused, and collect those that are ignored."""
    refused = []
    for path in set_fields(config):
        treatment, text = FIELDS[path]
        if treatment is Treatment.REFUSED:
            refused.append(f"{path}: {text}")
        elif treatment is Treatment.IGNORED:
            draft.ignored.append(f"{path} ({text})")
    if refused:
        raise TritonConfigError("; ".join(dict.fromkeys(refused)))


def set_fields(message: Message, prefix: str = "") -> Iterator[str]:
    """Yield the path of each set field that is in `FIELDS`, as often as it occurs."""
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        if path in FIELDS:
            yield path
        elif _is_map(field):
            # Keys are fields as well; a message below has its own.
            for key in value:
                yield f"{path}.key"
                yield from set_fields(value[key], f"{path}.value.")
        else:
            for each in value if field.is_repeated else (value,):
                yield from set_fields(each, f"{path}.")


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry
