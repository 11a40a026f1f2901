"""Load one model, ordinary or language model, as a server would: for `inferd inspect`."""

import os
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from inferd import recorded_requests
from inferd.cli.failures import UsageError
from inferd.cli.log_warnings import warnings_to
from inferd.config.settings import ModelSettings, Settings
from inferd.models.language.loading import OpenedLanguageModel, Stages, open_language_model
from inferd.models.language.settings import language_settings
from inferd.models.model_directory import RepositoryError
from inferd.models.model_source import ModelSource, model_file, source_of_file
from inferd.models.repository import absolute_path, highest_version, resolve
from inferd.models.settings import read_model_settings
from inferd.recorded_requests import InputForm, RecordedRequestsError
from inferd.runtime.decoder_graph import DecoderForm, read_decoder
from inferd.runtime.errors import RunFailedError, runtime_message
from inferd.runtime.session import OnnxSession, open_session
from inferd.runtime.warmup import largest_batch, warm_up
from inferd.runtime.warmup_samples import run_samples


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """A model as a server would load it.

    ``examples`` is the file with recorded requests, if any. ``warnings`` are those that a server would log.
    """

    source: ModelSource
    settings: ModelSettings
    session: OnnxSession
    examples: Path | None
    warnings: tuple[str, ...]

    @property
    def max_batch_size(self) -> int:
        """Maximum number of rows per batch."""
        return largest_batch(self.settings.batching, batchable=self.session.signature.batchable)

    @property
    def failure(self) -> str:
        """Why the given examples fail; empty if they do not, or if there are none."""
        if self.session.synthetic_inputs is not None:
            return ""
        given = [f"inputs.{name}.example" for name, each in self.settings.inputs.items() if each.example is not None]
        names = [*given, *([self.examples.name] if self.examples else [])]
        if not names:
            return ""
        cause = _failure_of(self.session, self.examples) if self.examples else ""
        return f"the model does not run on the examples in {' and '.join(names)}{f': {cause}' if cause else ''}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedLanguageModel:
    """A language model as a server would load it. ``warnings`` are those that a server would log."""

    source: ModelSource
    opened: OpenedLanguageModel
    form: DecoderForm
    warnings: tuple[str, ...]


def find_model(path: Path) -> ModelSource:
    """Return the model at ``path``, in its highest version. Raises `CommandError`."""
    if os.path.isfile(path):  # noqa: PTH113  (`resolve` reports what is not accessible)
        return source_of_file(absolute_path(path))
    try:
        return highest_version(path, resolve([path]))
    except RepositoryError as error:
        raise UsageError(str(error)) from error


def load_model(source: ModelSource, settings: Settings) -> ServedModel | ServedLanguageModel:
    """Load ``source`` as a server with ``settings`` would. Raises `ModelLoadError`."""
    own = read_model_settings(settings, source)
    path = model_file(source, own.file)
    form = read_decoder(path)
    warnings: list[str] = []
    with warnings_to(warnings.append):
        if form is not None:
            opened = _load_language_model(path, form, own, settings, source.name)
            return ServedLanguageModel(source=source, opened=opened, form=form, warnings=tuple(warnings))
        session = open_session(path, own)
        warm_up(session, own)
        run_samples(session, own, path)
    reason = session.verdict.reason
    return ServedModel(
        source=source,
        settings=own,
        session=session,
        examples=_examples(source.path),
        # The verdict is one of them, and is printed separately.
        warnings=tuple(warning for warning in warnings if not reason or reason not in warning),
    )


def _load_language_model(
    path: Path, form: DecoderForm, own: ModelSettings, settings: Settings, name: str
) -> OpenedLanguageModel:
    """Load the language model in ``path``; raises as `load_model`."""
    return open_language_model(
        path,
        form,
        language_settings(own, settings.for_model({}), name),
        stages=Stages(verifying=lambda: None, warming=lambda: None, turn=nullcontext),
        clock=time.monotonic,
        budget_bytes=settings.repository.memory_budget_bytes,
    )


def _examples(file: Path) -> Path | None:
    """Return the recorded requests of a model: those of its version, or else those of all its versions."""
    folder = file.parent
    found = recorded_requests.find(folder)
    return found or (recorded_requests.find(folder.parent) if folder.name.isdecimal() else None)


def _failure_of(session: OnnxSession, examples: Path) -> str:
    """Return the error of ONNX Runtime for the first of ``examples`` that fails; empty if unknown."""
    signature = session.signature
    forms = [
        InputForm(spec.name, spec.datatype, spec.shape, spec.batch_axis, spec.optional) for spec in signature.inputs
    ]
    outputs = [spec.name for spec in signature.outputs]
    try:
        for request in recorded_requests.read(examples, forms, loose_dimensions=signature.loose_dimensions):
            session.run(request, outputs)
    except RunFailedError as error:
        return runtime_message(error.cause)
    except RecordedRequestsError:
        # An example may be a row without the batch dimension, which is unknown here.
        return ""
    return ""
