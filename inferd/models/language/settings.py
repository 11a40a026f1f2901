"""Adapt the settings of a version whose file is a language model."""

import logging

from inferd.config.settings import ModelSettings
from inferd.generation.engine import require_policy

_log = logging.getLogger(__name__)

#: Settings of tensors and batches of rows, which are ignored. `batching.enabled` and the queue settings apply.
_OF_MODEL = ("batch_axes", "inputs", "outputs", "served_outputs", "loose_dimensions", "warmup")
_OF_BATCHING = ("max_batch_size", "preferred_sizes", "max_wait_ms", "instances", "check_share")


def language_settings(settings: ModelSettings, servers: ModelSettings, name: str) -> ModelSettings:
    """Return the ``settings`` of a language model without those that have no meaning for one.

    Logs these, except those of the ``servers`` settings, which are for ordinary models too. Raises `ModelLoadError`
    for a backpressure policy that language models do not have.
    """
    require_policy(settings.queue)
    ignored = [name for name in _OF_MODEL if getattr(settings, name) != getattr(servers, name)]
    own, usual = settings.batching, servers.batching
    ignored += [f"batching.{name}" for name in _OF_BATCHING if getattr(own, name) != getattr(usual, name)]
    if settings.routing.shadow is not None:
        ignored.append("routing.shadow")
    if ignored:
        _log.warning("model %s generates text: settings without a meaning for it: %s", name, ", ".join(ignored))
    defaults = ModelSettings()
    generation = settings.generation
    if not own.enabled:
        generation = generation.model_copy(update={"max_sequences": 1})
    return settings.model_copy(
        update={
            **{field: getattr(defaults, field) for field in _OF_MODEL},
            "generation": generation,
            # The cores are not divided among instances.
            "batching": defaults.batching.model_copy(update={"enabled": own.enabled}),
            "routing": settings.routing.model_copy(update={"shadow": None}),
        }
    )
