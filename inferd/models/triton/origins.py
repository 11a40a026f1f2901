"""Find the field of a config.pbtxt from which a setting comes, for errors about invalid values."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from inferd.models.triton.hints import line_at, without_comments_and_texts
from inferd.models.triton.parameters import OPERATORS, PARAMETERS

_BATCHING = "dynamic_batching"

#: Fields by setting. Names of tensors and levels of priority are not in the path: they occur several times.
FIELD_OF: Mapping[tuple[str, ...], str] = MappingProxyType(
    {
        ("file",): "default_model_filename",
        ("versions",): "version_policy",
        ("inputs",): "input",
        ("outputs",): "output",
        ("warmup",): "model_warmup",
        ("batching", "instances"): "instance_group.count",
        ("batching", "max_batch_size"): "max_batch_size",
        ("batching", "preferred_sizes"): f"{_BATCHING}.preferred_batch_size",
        ("batching", "max_wait_ms"): f"{_BATCHING}.max_queue_delay_microseconds",
        ("queue", "priority_levels"): f"{_BATCHING}.priority_levels",
        ("queue", "default_priority"): f"{_BATCHING}.default_priority_level",
        ("queue", "by_priority"): f"{_BATCHING}.priority_queue_policy",
        ("queue", "max_rows"): f"{_BATCHING}.default_queue_policy.max_queue_size",
        ("queue", "default_timeout_ms"): f"{_BATCHING}.default_queue_policy.default_timeout_microseconds",
        ("generation", "max_waiting_requests"): f"{_BATCHING}.default_queue_policy.max_queue_size",
        ("generation", "default_timeout_s"): f"{_BATCHING}.default_queue_policy.default_timeout_microseconds",
        ("runtime", "custom_ops"): "model_operations.op_library_filename",
        ("runtime", "providers"): "optimization.execution_accelerators",
        ("runtime", "provider_options"): "optimization.execution_accelerators",
        ("runtime", "inter_op_threads"): f"parameters.{OPERATORS}",
        **{parameter.path: f"parameters.{key}" for key, parameter in PARAMETERS.items()},
    }
)


def places_in(text: str) -> Mapping[tuple[str, ...], str]:
    """Return the place of each setting in the configuration ``text``: its field, and its line if it is unique."""
    names = without_comments_and_texts(text)
    places = {}
    for setting, field in FIELD_OF.items():
        path, _, name = field.rpartition(".")
        # The key of a parameter is a text.
        is_key = path == "parameters"
        pattern = rf"[\"']{re.escape(name)}[\"']" if is_key else rf"\b{name}\s*[:{{\[]"
        lines = [line_at(text, found.start()) for found in re.finditer(pattern, text if is_key else names)]
        if lines:
            places[setting] = f"line {lines[0]}, {field}" if len(lines) == 1 else f"field {field}"
    return places
