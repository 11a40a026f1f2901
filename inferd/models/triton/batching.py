"""Translate ``max_batch_size``, ``dynamic_batching`` with its queue policies, and ``model_warmup``."""

from collections.abc import Mapping
from typing import Any

from inferd._generated.inference import model_config_pb2 as pb
from inferd.config.settings import QueueSettings
from inferd.models.triton.draft import Draft
from inferd.models.triton.errors import TritonConfigError
from inferd.models.triton.tensors import datatype_name, is_completed

#: Triton's maximum for a model whose configuration says nothing of batches, where the file allows them.
_COMPLETED_BATCH_SIZE = 4

#: The bounds of the settings, which Triton lacks.
_MOST_BATCH_ROWS, _MOST_QUEUE_ROWS = 65_536, 1_000_000
_USUAL_QUEUE_ROWS = QueueSettings().max_rows


def translate_batching(config: pb.ModelConfig, draft: Draft) -> None:
    """Translate the batch axis, batch sizes and the queue. Raises `TritonConfigError`."""
    size, batching = config.max_batch_size, config.dynamic_batching
    if size < 0:
        raise TritonConfigError(f"max_batch_size: expected a number from 0, got {size}")
    if size > _MOST_BATCH_ROWS:
        size = _MOST_BATCH_ROWS
        draft.differences.append(f"max_batch_size: {size} rows at most; larger requests are answered all the same")
    if is_completed(config):
        size = _COMPLETED_BATCH_SIZE
        draft.differences.append(
            f"max_batch_size is missing: up to {size} rows if the model is proven to batch, "
            "not wherever its first dimensions are dynamic"
        )
    else:
        draft.put("first" if size else "none", "batch_axes")
    if size:
        draft.put(size, "batching", "max_batch_size")
    if size > _USUAL_QUEUE_ROWS:
        draft.put(min(4 * size, _MOST_QUEUE_ROWS), "queue", "max_rows")
    if size and (config.HasField("dynamic_batching") or is_completed(config)):
        _translate_combining(batching, size, draft)
    else:
        draft.put(False, "batching", "enabled")
        _ignore_combining(config, draft)
    if config.HasField("dynamic_batching"):
        _translate_queue(batching, size, draft)


def _translate_combining(batching: pb.ModelDynamicBatching, max_batch_size: int, draft: Draft) -> None:
    draft.put(batching.max_queue_delay_microseconds / 1000, "batching", "max_wait_ms")
    preferred = list(batching.preferred_batch_size)
    wrong = [size for size in preferred if not 1 <= size <= max_batch_size]
    if wrong:
        text = f"expected sizes from 1 to max_batch_size, which is {max_batch_size}, got {wrong[0]}"
        raise TritonConfigError(f"dynamic_batching.preferred_batch_size: {text}")
    if preferred:
        draft.put(preferred, "batching", "preferred_sizes")


def _ignore_combining(config: pb.ModelConfig, draft: Draft) -> None:
    """Translate ``dynamic_batching`` without batches: only its queue remains."""
    if not config.HasField("dynamic_batching"):
        return
    # Timeouts of requests may be shorter than the server's wait.
    draft.put(0.0, "batching", "max_wait_ms")
    fields = {field.name for field, _ in config.dynamic_batching.ListFields()}
    combining = sorted(fields & {"preferred_batch_size", "max_queue_delay_microseconds"})
    names = [f"dynamic_batching.{name}" for name in combining] if fields else ["dynamic_batching"]
    draft.ignored.extend(f"{name} (max_batch_size is 0)" for name in names)


def _translate_queue(batching: pb.ModelDynamicBatching, max_batch_size: int, draft: Draft) -> None:
    if batching.preserve_ordering:
        draft.differences.append(
            "dynamic_batching.preserve_ordering: an answer is sent as soon as it is there, also before an earlier one"
        )
    _translate_priorities(batching, max_batch_size, draft)
    if batching.HasField("default_queue_policy"):
        policy = _queue_policy(batching.default_queue_policy, "default_queue_policy", draft)
        if "max_rows" in policy:
            # The settings require room for a batch.
            policy["max_rows"] = max(policy["max_rows"], max_batch_size)
            if max_batch_size > 1:
                draft.differences.append(_counts_rows("default_queue_policy", "rows, at least one batch,"))
        for setting, value in policy.items():
            draft.put(value, "queue", setting)
    _keep_timeouts_above_wait(draft)


def _translate_priorities(batching: pb.ModelDynamicBatching, max_batch_size: int, draft: Draft) -> None:
    levels = batching.priority_levels
    if levels or batching.default_priority_level:
        translate_levels(batching, draft)
    for level, own in sorted(batching.priority_queue_policy.items()):
        if not 1 <= level <= levels:
            text = f"expected keys from 1 to priority_levels, which is {levels}, got {level}"
            raise TritonConfigError(f"dynamic_batching.priority_queue_policy: {text}")
        name = f"priority_queue_policy {level}"
        policy = _queue_policy(own, name, draft)
        if batching.default_queue_policy.default_timeout_microseconds:
            # It holds for the levels without a policy only.
            policy.setdefault("default_timeout_ms", 0.0)
        if "max_rows" in policy and max_batch_size > 1:
            draft.differences.append(_counts_rows(name, "rows"))
        draft.put(policy, "queue", "by_priority", level)


def translate_levels(batching: pb.ModelDynamicBatching, draft: Draft) -> None:
    """Translate the levels of priority. Raises `TritonConfigError` for a default that is not one of them."""
    levels, default = batching.priority_levels, batching.default_priority_level
    if not 0 < default <= levels:
        text = f"expected a number from 1 to priority_levels, which is {levels}, got {default}"
        raise TritonConfigError(f"dynamic_batching.default_priority_level: {text}")
    draft.put(levels, "queue", "priority_levels")
    draft.put(default, "queue", "default_priority")
    # Triton serves a level only while those before it are empty.
    draft.put(0.0, "queue", "low_priority_share")


def _counts_rows(name: str, rows: str) -> str:
    return f"{name}: max_queue_size counts {rows} and not requests"


def _queue_policy(policy: pb.ModelQueuePolicy, name: str, draft: Draft) -> dict[str, Any]:
    settings: dict[str, Any] = {"allow_timeout_override": policy.allow_timeout_override}
    if policy.default_timeout_microseconds:
        settings["default_timeout_ms"] = policy.default_timeout_microseconds / 1000
        if policy.timeout_action == pb.ModelQueuePolicy.DELAY:
            draft.differences.append(
                f"{name}: DELAY: requests are rejected at their timeout, not served after all others"
            )
    elif policy.timeout_action == pb.ModelQueuePolicy.DELAY:
        draft.ignored.append(f"{name}.timeout_action (there is no timeout)")
    if policy.max_queue_size:
        settings["max_rows"] = min(policy.max_queue_size, _MOST_QUEUE_ROWS)
        if policy.max_queue_size > _MOST_QUEUE_ROWS:
            draft.differences.append(f"{name}: max_queue_size is {_MOST_QUEUE_ROWS} at most")
    return settings


def _keep_timeouts_above_wait(draft: Draft) -> None:
    """Shorten the wait for a fuller batch if requests would expire in it."""
    wait_ms = draft.settings["batching"].get("max_wait_ms", 0)
    queue: Mapping[str, Any] = draft.settings.get("queue", {})
    timeouts = [each.get("default_timeout_ms", 0) for each in (queue, *queue.get("by_priority", {}).values())]
    shortest = min(filter(None, timeouts), default=None)
    if shortest is not None and 0 < shortest <= wait_ms:
        wait_ms = shortest / 2
        draft.put(wait_ms, "batching", "max_wait_ms")
        why = f"as requests expire after {shortest:g} ms"
        draft.differences.append(f"dynamic_batching.max_queue_delay_microseconds: {wait_ms:g} ms, {why}")


def translate_warmup(config: pb.ModelConfig, draft: Draft) -> None:
    """Translate ``model_warmup``. Raises `TritonConfigError` for an input without data."""
    samples = [_warmup_sample(sample) for sample in config.model_warmup]
    if samples:
        draft.put(samples, "warmup")


def _warmup_sample(sample: pb.ModelWarmup) -> dict[str, Any]:
    inputs = {name: _warmup_input(sample.name, name, each) for name, each in sorted(sample.inputs.items())}
    if not inputs:
        raise TritonConfigError(f'model_warmup "{sample.name}": inputs is missing')
    named = {"name": sample.name} if sample.name else {}
    return {**named, "batch_size": max(sample.batch_size, 1), "count": max(sample.count, 1), "inputs": inputs}


def _warmup_input(sample: str, name: str, each: pb.ModelWarmup.Input) -> dict[str, Any]:
    where = f'model_warmup "{sample}", input "{name}"'
    if each.data_type == pb.TYPE_INVALID:
        raise TritonConfigError(f"{where}: data_type is missing")
    source = each.WhichOneof("input_data_type")
    if source == "input_data_file":
        data = {"file": each.input_data_file}
    elif source is not None and getattr(each, source):
        data = {"fill": source.removesuffix("_data")}
    else:
        raise TritonConfigError(f"{where}: expected zero_data: true, random_data: true or input_data_file")
    return {"datatype": datatype_name(each.data_type), "dims": list(each.dims), **data}
