"""Open a model file in ONNX Runtime: providers, threads and declared tensors."""

import errno
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import onnxruntime

from inferd.config.settings import ModelSettings
from inferd.runtime import providers
from inferd.runtime.declared_tensors import Declaration, served_declarations
from inferd.runtime.errors import ModelLoadError, runtime_message
from inferd.runtime.external_weights import NO_WEIGHTS, ExternalWeights, detach
from inferd.runtime.providers import Provider, libraries, register
from inferd.runtime.resources import RUNS_NICE, low_priority_thread, threads_per_run, usable_cores
from inferd.runtime.runners import OrtObject
from inferd.runtime.signature import TensorSpec

_log = logging.getLogger("inferd.runtime")

#: ONNX Runtime's log bypasses ours on stderr and would repeat its exceptions.
_FATAL_ONLY = 4

#: Where external weights are if the model is not opened by its path.
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"

#: Some sandboxes lack the system call, or forbid it.
_NOT_POSSIBLE = {errno.ENOSYS, errno.EPERM}

_LEVELS: Mapping[str, OrtObject] = {
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}

#: External weights from which copying them is worth a warning.
_LARGE_BYTES = 256 * 1024 * 1024


def open_runtime_session(
    path: Path,
    settings: ModelSettings,
    weights: ExternalWeights = NO_WEIGHTS,
    content: bytes | None = None,
    nice: int = RUNS_NICE,
) -> OrtObject:
    """Open ``path`` with the first providers that work. Raises `ModelLoadError`.

    ``nice`` is by how much its threads give way. ``content`` is opened in place of what is in the file, as if it were
    there. Later changes of its files have no effect on the session, unless they are taken for immutable.
    """
    session = _opened(path, settings, weights, content, nice)
    if not weights.are_immutable:
        copied = sum(_keep(file) for file in weights.files.values())
        if copied >= _LARGE_BYTES:
            _log.warning(
                "%s has %d MiB of external weights that were copied into memory, as their files may change in place; "
                "from a remote repository they would be mapped, and shared by all versions and servers that have them",
                path.name,
                copied // 2**20,
            )
    return session


def _keep(file: Path) -> int:
    """Replace what is mapped of ``file`` by copies; return their size, 0 if it has to stay mapped."""
    try:
        return detach(file)
    except OSError as error:
        if error.errno not in _NOT_POSSIBLE:
            msg = f"cannot keep what is in {file.name}, which was changed or does not fit into memory: {error.strerror}"
            raise ModelLoadError(msg) from error
        _log.warning("%s stays mapped into memory, so it must not be changed: %s", file.name, error.strerror)
        return 0


def _opened(
    path: Path, settings: ModelSettings, weights: ExternalWeights, content: bytes | None, nice: int
) -> OrtObject:
    custom_ops = libraries(settings.runtime.custom_ops)
    wanted = providers.attempts(settings.runtime, providers.built_in())
    for position, attempt in enumerate(wanted):
        names = [name for name, _ in attempt]
        if providers.on_cuda(names):
            providers.preload_cuda()
        is_last = position == len(wanted) - 1
        options = _session_options(settings, on_accelerator=providers.on_accelerator(names))
        if content is not None:
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(path.parent))
        register(custom_ops, options)
        try:
            with weights.given_to(options):
                session = _attempt(path if content is None else content, attempt, options, nice)
        # Damaged files raise many kinds of errors, such as UnicodeDecodeError.
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


def _attempt(model: Path | bytes, attempt: Sequence[Provider], options: OrtObject, nice: int) -> OrtObject:
    # Without fallback, which would print to stdout and continue with the CPU.
    opened = partial(
        onnxruntime.InferenceSession, model, sess_options=options, providers=list(attempt), enable_fallback=0
    )
    # In a thread of its own, so that only those that it starts are of lower priority.
    with low_priority_thread("model-opener", nice) as opener:
        return opener.submit(opened).result()


def _session_options(settings: ModelSettings, *, on_accelerator: bool) -> OrtObject:
    runtime = settings.runtime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads_per_run(
        configured=runtime.intra_op_threads,
        on_accelerator=on_accelerator,
        instances=settings.batching.min_instances,
        cores=usable_cores(),
    )
    options.inter_op_num_threads = runtime.inter_op_threads or usable_cores()
    if options.inter_op_num_threads > 1:
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.graph_optimization_level = _LEVELS[runtime.graph_optimization]
    options.enable_cpu_mem_arena = runtime.memory_arena
    options.enable_mem_pattern = runtime.memory_pattern
    spin = "1" if runtime.allow_spinning else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spin)
    options.add_session_config_entry("session.inter_op.allow_spinning", spin)
    for name, value in runtime.session_options.items():
        options.add_session_config_entry(name, value)
    return options


def declared(session: OrtObject) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Return the inputs and outputs of `served_declarations`; a warning is logged about outputs that are left out.

    Raises `ModelLoadError`.
    """
    try:
        inputs = _declarations(session.get_inputs())
        optional = _declarations(session.get_overridable_initializers())
        outputs = _declarations(session.get_outputs())
    except UnicodeDecodeError as error:
        msg = "the names of the model's inputs and outputs are not text: the file is damaged"
        raise ModelLoadError(msg) from error
    found = served_declarations(inputs, optional, outputs)
    if found.left_out:
        _log.warning("%s", found.left_out)
    return list(found.inputs), list(found.outputs)


def _declarations(tensors: Iterable[OrtObject]) -> list[Declaration]:
    return [(tensor.name, tensor.type, tensor.shape) for tensor in tensors]
