"""Open language models: session, cache, and a trial run that verifies that the session uses the cache correctly."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inferd.config.settings import ModelSettings
from inferd.runtime.decoder import DecoderSizes, OnnxDecoder
from inferd.runtime.decoder_cache import DeviceCache, HostCache, SlotCache
from inferd.runtime.decoder_graph import DecoderForm
from inferd.runtime.decoder_rows import with_chosen_tokens
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

#: The context without generation.max_context_tokens: longer ones have to be asked for.
_MOST_DEFAULT_TOKENS = 8192

#: How long idle threads spin, so that they need not be woken for each of the hundreds of operators of a step, which
#: would take up to a third of it. When nothing runs, they do not spin.
_SPIN_DURATION = "session.intra_op.spin_duration_us", "200"

#: Tokens of trial runs.
_TRIAL_TOKENS = 3
#: How far the logits of a prompt in two parts may be from those in one, as a share of their range: int8 rounds.
_CLOSE = 0.1


@dataclass(frozen=True, slots=True)
class _Opened:
    """A session that was tried out."""

    session: OrtObject
    logits: LogitsForm


def open_decoder(path: Path, settings: ModelSettings, form: DecoderForm, *, is_immutable: bool = False) -> OnnxDecoder:
    """Open the language model in ``path``, which `read_decoder` has found to be of ``form``. Raises `ModelLoadError`.

    ``is_immutable``: nobody changes its files while it is loaded.
    """
    weights = find_weights(path, form.file.external_files, are_immutable=is_immutable)
    before = fingerprints(path, weights.files)
    settings = _for_one_run(settings)
    context = _context_length(path, settings, form)
    opened = _opened(path, settings, form, weights)
    if fingerprints(path, weights.files) != before:
        msg = f"{path.name} or a file with its weights was changed while it was loaded"
        raise ModelLoadError(msg)
    slots, cache = _cache(opened.session, settings, form, context)
    decoder = OnnxDecoder(
        runner=SlotRunner(opened.session, form, cache, opened.logits, context),
        cache=cache,
        form=form,
        sizes=DecoderSizes(slots=slots, context_length=context, vocabulary_size=opened.logits.vocabulary_size),
        providers=tuple(opened.session.get_providers()),
    )
    _try_cache(path, decoder)
    return decoder


def _for_one_run(settings: ModelSettings) -> ModelSettings:
    """Return ``settings`` for a session that has all cores, as its runs follow one another."""
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
    return min(wanted or _MOST_DEFAULT_TOKENS, form.context_length or wanted or _MOST_DEFAULT_TOKENS)


def _opened(path: Path, settings: ModelSettings, form: DecoderForm, weights: ExternalWeights) -> _Opened:
    """Open the session so that it computes the logits of last tokens only, if that is possible."""
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
    """Return the form of the logits of one sequence of several tokens."""
    return LogitsForm(
        vocabulary_size=logits.shape[-1],
        element=logits.dtype,
        is_flat=logits.ndim == 2,  # [sequences,vocabulary]
        of_last_token=logits.ndim == 2 or logits.shape[1] == 1,
    )


def _cache(session: OrtObject, settings: ModelSettings, form: DecoderForm, context: int) -> tuple[int, SlotCache]:
    """Return the number of slots and their memory: on the device that the model runs on, if that is CUDA."""
    slots = settings.generation.max_sequences
    provider = session.get_providers()[0]
    if not on_cuda((provider,)):
        return slots, HostCache(form.caches, form.element, slots, context)
    if settings.generation.cache_bytes is not None:
        # All of it is taken from the start, unlike on the host.
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


def _try_cache(path: Path, decoder: OnnxDecoder) -> None:
    """Require that a prompt in two parts, of which the second needs the cache of the first, is as good as in one."""
    prompt = np.arange(_TRIAL_TOKENS)
    whole = decoder.prefill(0, prompt, 0).copy()
    decoder.prefill(0, prompt[:-1], 0)
    parts = decoder.decode([int(prompt[-1])], [len(prompt) - 1])[0]
    decoder.release(0, len(prompt))
    if not np.abs(whole - parts).max() <= _CLOSE * np.ptp(whole):
        msg = f"{path.name} does not keep its cache in place with {decoder.providers[0]}"
        raise ModelLoadError(msg)
