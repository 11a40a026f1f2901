"""Open language models: the session, its KV cache, and a trial run that verifies that the cache is used in place."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inferd.config.settings import ModelSettings
from inferd.runtime.decoder import DecoderSizes, OnnxDecoder
from inferd.runtime.decoder_cache import DeviceCache, HostCache, SlotCache
from inferd.runtime.decoder_graph import DecoderForm
from inferd.runtime.decoder_pruning import with_chosen_tokens
from inferd.runtime.decoder_runner import LogitsForm, SlotRunner, logits_of
from inferd.runtime.errors import ModelLoadError, runtime_message
from inferd.runtime.external_weights import ExternalWeights, find_weights
from inferd.runtime.opening import open_runtime_session
from inferd.runtime.providers import on_cuda
from inferd.runtime.resources import GENERATION_NICE, usable_cores
from inferd.runtime.runners import OrtObject
from inferd.runtime.signature import Array
from inferd.runtime.verdict_cache import fingerprints

_log = logging.getLogger("inferd.runtime")

#: The most tokens of the context without generation.max_context_tokens.
_MAX_DEFAULT_CONTEXT = 8192

#: How long idle threads spin. Waking them for each of the hundreds of operators of a step would take up to a third of
#: its time. Longer than between two operators, they would only keep other threads from the core.
_SPIN_DURATION = "session.intra_op.spin_duration_us", "20"

#: Tokens of trial runs.
_TRIAL_TOKENS = 3
#: How far the logits of a prompt in two chunks may be from those in one, as a share of their range: int8 rounds.
_MAX_ROUNDING = 0.1


@dataclass(frozen=True, slots=True)
class _Opened:
    """A session that has run once, and the form of its logits."""

    session: OrtObject
    logits: LogitsForm


def open_decoder(path: Path, settings: ModelSettings, form: DecoderForm, *, is_immutable: bool = False) -> OnnxDecoder:
    """Open the language model in ``path``, whose ``form`` is that of `read_decoder`. Raises `ModelLoadError`.

    ``is_immutable``: the files cannot change while the model is loaded.
    """
    weights = find_weights(path, form.file.external_files, are_immutable=is_immutable)
    before = fingerprints(path, weights.files)
    settings = _one_run_at_a_time(settings)
    context = _context_length(path, settings, form)
    opened = _open_session(path, settings, form, weights)
    if fingerprints(path, weights.files) != before:
        msg = f"{path.name} or a file with its weights was changed while it was loaded"
        raise ModelLoadError(msg)
    slots, cache = _make_cache(opened.session, settings, form, context)
    decoder = OnnxDecoder(
        runner=SlotRunner(opened.session, form, cache, opened.logits, context),
        cache=cache,
        form=form,
        sizes=DecoderSizes(slots=slots, context_length=context, vocabulary_size=opened.logits.vocabulary_size),
        providers=tuple(opened.session.get_providers()),
    )
    _verify_cache(path, decoder)
    return decoder


def _one_run_at_a_time(settings: ModelSettings) -> ModelSettings:
    """Return ``settings`` that give each run all cores, as no two runs are in progress at the same time."""
    runtime = settings.runtime
    # Spinning without a limit is the operator's choice.
    spins = {} if runtime.allow_spinning else dict([_SPIN_DURATION])
    update = {
        "intra_op_threads": runtime.intra_op_threads or usable_cores(),
        "inter_op_threads": runtime.inter_op_threads or 1,
        "allow_spinning": True,
        "session_options": spins | runtime.session_options,
    }
    return settings.model_copy(update={"runtime": runtime.model_copy(update=update)})


def _context_length(path: Path, settings: ModelSettings, form: DecoderForm) -> int:
    wanted = settings.generation.max_context_tokens
    if form.context_length is None and wanted is None:
        msg = f"{path.name} does not say how long its context is; set generation.max_context_tokens"
        raise ModelLoadError(msg)
    return min(wanted or _MAX_DEFAULT_CONTEXT, form.context_length or wanted or _MAX_DEFAULT_CONTEXT)


def _open_session(path: Path, settings: ModelSettings, form: DecoderForm, weights: ExternalWeights) -> _Opened:
    """Open the session, with a graph that computes logits of chosen tokens only if that gives the same logits."""
    if form.projection is not None:
        content = with_chosen_tokens(path.read_bytes(), form.projection, form.config.names.logits)
        try:
            session = open_runtime_session(path, settings, weights, content, GENERATION_NICE)
            every = logits_of(session, form, _TRIAL_TOKENS, list(range(_TRIAL_TOKENS)))
            last = logits_of(session, form, _TRIAL_TOKENS, [-1])
        except Exception as error:  # noqa: BLE001  (whatever the reason, the file as it is may run)
            _log.warning("%s computes the logits of all tokens: %s", path.name, runtime_message(error))
        else:
            if last.shape[1:-1] == (1,) and np.array_equal(every[:, -1:], last):
                return _Opened(session, _logits_form(last))
            _log.warning("%s computes the logits of all tokens, as its last ones alone come out otherwise", path.name)
    elif form.logits_of_all:
        _log.info("%s computes the logits of all tokens: no projection to the vocabulary was recognised", path.name)
    session = open_runtime_session(path, settings, weights, nice=GENERATION_NICE)
    try:
        return _Opened(session, _logits_form(logits_of(session, form, _TRIAL_TOKENS, None)))
    except Exception as error:
        msg = f"{path.name} does not run: {runtime_message(error, path.parent)}"
        raise ModelLoadError(msg) from error


def _logits_form(logits: Array) -> LogitsForm:
    """Return the form of ``logits``, which a run of one sequence of several tokens returned."""
    return LogitsForm(
        vocabulary_size=logits.shape[-1],
        element=logits.dtype,
        is_flat=logits.ndim == 2,  # [sequences,vocabulary]
        of_last_token=logits.ndim == 2 or logits.shape[1] == 1,
    )


def _make_cache(session: OrtObject, settings: ModelSettings, form: DecoderForm, context: int) -> tuple[int, SlotCache]:
    """Return the number of slots and their cache, which is on the device if the model runs on CUDA."""
    slots = settings.generation.max_sequences
    provider = session.get_providers()[0]
    if not on_cuda((provider,)):
        return slots, HostCache(form.caches, form.element, slots, context)
    if settings.generation.cache_bytes is not None:
        # Unlike on the host, all slots are allocated at once.
        slots = max(1, min(slots, settings.generation.cache_bytes // (context * form.cache_bytes_per_token)))
    options = session.get_provider_options()[provider]
    device_id = int(options.get("device_id", 0))
    cache = DeviceCache(
        form.caches,
        form.element,
        slots,
        context,
        device="cuda",
        device_id=device_id,
        provider=("CUDAExecutionProvider", {"device_id": str(device_id)}),
    )
    return slots, cache


def _verify_cache(path: Path, decoder: OnnxDecoder) -> None:
    """Require that a prompt in two chunks, the second of which reads the cache of the first, has the same logits."""
    prompt = np.arange(_TRIAL_TOKENS)
    whole = decoder.prefill(0, prompt, 0).copy()
    decoder.prefill(0, prompt[:-1], 0)
    parts = decoder.decode([int(prompt[-1])], [len(prompt) - 1])[0]
    decoder.release(0, len(prompt))
    if not np.abs(whole - parts).max() <= _MAX_ROUNDING * np.ptp(whole):
        msg = f"{path.name} does not keep its cache in place with {decoder.providers[0]}"
        raise ModelLoadError(msg)
