"""From a model file to ONNX Runtime's session: providers, threads and what the file declares."""

import logging
from collections.abc import Sequence
from pathlib import Path

import onnxruntime

from inferd.config.settings import ModelSettings, RuntimeSettings
from inferd.runtime import providers
from inferd.runtime.cpus import threads_per_run, usable_cores
from inferd.runtime.errors import ModelLoadError, runtime_message
from inferd.runtime.inspection import tensor_spec
from inferd.runtime.providers import Provider
from inferd.runtime.runners import OrtObject
from inferd.runtime.signature import TensorSpec

_log = logging.getLogger("inferd.runtime")

#: ONNX Runtime's own log goes to stderr past ours and would repeat what its exceptions say.
_FATAL_ONLY = 4


def open_runtime_session(path: Path, settings: ModelSettings) -> OrtObject:
    """Open ``path`` with the first providers that work. Raises `ModelLoadError`."""
    wanted = providers.attempts(settings.runtime, providers.built_in())
    for position, attempt in enumerate(wanted):
        names = [name for name, _ in attempt]
        if providers.on_cuda(names):
            providers.preload_cuda()
        is_last = position == len(wanted) - 1
        try:
            session = _attempt(path, attempt, settings)
        # Reading a damaged file raises many kinds, UnicodeDecodeError among them.
        except Exception as error:
            if is_last:
                msg = f"cannot load {path.name}: {runtime_message(error, path.parent)}"
                raise ModelLoadError(msg) from error
            _log.warning("%s cannot be used, taking the next provider: %s", names[0], runtime_message(error))
            continue
        if session.get_providers()[: len(names)] == names:
            return session
        if is_last:
            msg = f"cannot load {path.name}: expected providers {names}, ONNX Runtime opened {session.get_providers()}"
            raise ModelLoadError(msg)
        _log.warning("%s did not open, taking the next provider", names[0])
    raise AssertionError


def _attempt(path: Path, attempt: Sequence[Provider], settings: ModelSettings) -> OrtObject:
    return onnxruntime.InferenceSession(
        path,
        sess_options=_session_options(
            settings.runtime,
            threads=threads_per_run(
                configured=settings.runtime.intra_op_threads,
                on_accelerator=providers.on_accelerator([name for name, _ in attempt]),
                instances=settings.batching.instances,
                cores=usable_cores(),
            ),
        ),
        providers=list(attempt),
        # Or it would print to stdout and go on with the CPU by itself.
        enable_fallback=0,
    )


def _session_options(settings: RuntimeSettings, *, threads: int) -> OrtObject:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = settings.inter_op_threads
    if settings.inter_op_threads > 1:
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    spin = "1" if settings.allow_spinning else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spin)
    options.add_session_config_entry("session.inter_op.allow_spinning", spin)
    return options


def declared(session: OrtObject) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Return the inputs and outputs that the model declares; raise `ModelLoadError` for what cannot be served."""
    try:
        inputs = [(tensor.name, tensor.type, tensor.shape) for tensor in session.get_inputs()]
        outputs = [(tensor.name, tensor.type, tensor.shape) for tensor in session.get_outputs()]
    except UnicodeDecodeError as error:
        msg = "the names of the model's inputs and outputs are not text: the file is damaged"
        raise ModelLoadError(msg) from error
    return [tensor_spec("input", *tensor) for tensor in inputs], [tensor_spec("output", *tensor) for tensor in outputs]
