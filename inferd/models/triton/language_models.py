"""Translate the config.pbtxt of a language model, as for Triton's vLLM backend: its devices and its queue.

Its tensors are those of the vLLM backend, whatever the configuration lists, and its sequences are combined by the
engine, so that fields about tensors and batches have no meaning.
"""

from inferd._generated.inference import model_config_pb2 as pb
from inferd.models.triton.batching import translate_levels
from inferd.models.triton.draft import Draft
from inferd.models.triton.errors import TritonConfigError
from inferd.models.triton.execution import translate_execution
from inferd.models.triton.fields import FIELDS, Treatment, set_fields
from inferd.models.triton.parameters import translate_parameters

#: Backends whose configurations are accepted: the model was converted to an ONNX file.
_BACKENDS = frozenset({"", "onnxruntime", "vllm", "tensorrtllm"})
_PLATFORMS = frozenset({"", "onnxruntime_onnx"})

#: Fields that are honoured, with all fields below them; of `dynamic_batching`, those of the second list.
_HONOURED = frozenset(
    {
        *("name", "platform", "backend", "version_policy", "instance_group", "optimization", "default_model_filename"),
        *("parameters", "model_operations", "model_transaction_policy"),
    }
)
_OF_QUEUE = ("priority_levels", "default_priority_level", "default_queue_policy")


def translate_language_model(config: pb.ModelConfig, draft: Draft) -> None:
    """Translate the devices and the queue. Raises `TritonConfigError`."""
    _require_backend(config)
    for path in set_fields(config):
        top, *below = path.split(".")
        if top in _HONOURED:
            if FIELDS[path].treatment is Treatment.IGNORED:
                draft.ignored.append(f"{path} ({FIELDS[path].text})")
        elif not (top == "dynamic_batching" and below and below[0] in _OF_QUEUE):
            draft.ignored.append(".".join([top, *below[:1]]) if top == "dynamic_batching" else top)
    translate_execution(_of_vllm(config), draft)
    if draft.settings.pop("batching", {}).get("instances", 1) > 1:
        draft.ignored.append("instance_group.count (one engine generates all sequences)")
    translate_parameters(config, draft)
    _translate_queue(config.dynamic_batching, draft)


def _require_backend(config: pb.ModelConfig) -> None:
    for field, value, known in (("platform", config.platform, _PLATFORMS), ("backend", config.backend, _BACKENDS)):
        if value not in known:
            expected = " or ".join(sorted(known - {""}))
            raise TritonConfigError(f'{field} "{value}": expected {expected} beside a genai_config.json')


def _of_vllm(config: pb.ModelConfig) -> pb.ModelConfig:
    """Return ``config`` with KIND_AUTO for KIND_MODEL: in the vLLM backend, the engine chooses the device then."""
    copied = pb.ModelConfig()
    copied.CopyFrom(config)
    for group in copied.instance_group:
        if group.kind == pb.ModelInstanceGroup.KIND_MODEL:
            group.kind = pb.ModelInstanceGroup.KIND_AUTO
    return copied


def _translate_queue(batching: pb.ModelDynamicBatching, draft: Draft) -> None:
    policy = batching.default_queue_policy
    if batching.priority_levels:
        translate_levels(batching, draft)
    if batching.HasField("default_queue_policy"):
        draft.put(policy.allow_timeout_override, "queue", "allow_timeout_override")
    if policy.default_timeout_microseconds:
        draft.put(policy.default_timeout_microseconds / 1e6, "generation", "default_timeout_s")
    if policy.max_queue_size:
        draft.put(policy.max_queue_size, "generation", "max_waiting_requests")
