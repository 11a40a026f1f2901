"""Loads one model as a server would, for a command that looks at it."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inferd import recorded_requests
from inferd.cli.assignments import parse_assignments
from inferd.cli.failures import CommandError, ExitCode
from inferd.config import ModelSettings, Settings, SettingsError, load_settings
from inferd.models.model_yaml import read_model_settings
from inferd.models.repository import ModelSource, RepositoryError, as_given, config_beside, resolve
from inferd.recorded_requests import InputForm, RecordedRequestsError
from inferd.runtime.errors import RunFailedError, runtime_message
from inferd.runtime.session import OnnxSession, open_session
from inferd.runtime.warmup import largest_batch, warm_up


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """A model with what a server would make of it.

    ``examples`` is the file with recorded requests, if there is one. ``warnings`` are what a server would log.
    """

    source: ModelSource
    settings: ModelSettings
    session: OnnxSession
    examples: Path | None
    warnings: tuple[str, ...]

    @property
    def max_batch_size(self) -> int:
        """Rows that would run together, at most."""
        return largest_batch(self.settings.batching, batchable=self.session.signature.batchable)

    @property
    def failure(self) -> str:
        """Why requests would fail, as far as that is known from the examples that were given; empty if they do not."""
        if self.session.synthetic_inputs is not None:
            return ""
        given = [f"inputs.{name}.example" for name, each in self.settings.inputs.items() if each.example is not None]
        names = [*given, *([self.examples.name] if self.examples else [])]
        if not names:
            return ""
        cause = _failure_of(self.session, self.examples) if self.examples else ""
        return f"the model does not run on the examples in {' and '.join(names)}{f': {cause}' if cause else ''}"


def find_model(path: Path) -> ModelSource:
    """Return the model at ``path``, of several versions the highest. Raises `CommandError`."""
    if os.path.isfile(path):  # noqa: PTH113  (what cannot be looked at is for `resolve` to tell)
        file = as_given(path)
        return ModelSource(name=file.stem, version="1", path=file, config=config_beside(file))
    try:
        sources = resolve([path])
    except RepositoryError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    names = sorted({source.name for source in sources})
    if len(names) > 1:
        raise CommandError(f"{path}: expected one model, found {', '.join(names)}", ExitCode.USAGE)
    return max(sources, key=lambda source: int(source.version))


def server_settings(config: Path | None, assignments: Sequence[str]) -> Settings:
    """Return the settings that a server with the same options would have. Raises `CommandError`."""
    try:
        return load_settings(config_file=config, flags=parse_assignments(assignments))
    except SettingsError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error


def load_model(source: ModelSource, settings: Settings) -> ServedModel:
    """Load ``source`` as a server with ``settings`` would. Raises `ModelLoadError`."""
    own = read_model_settings(settings, source.config)
    with _warnings() as warnings:
        session = open_session(source.path, own)
        warm_up(session, own)
    reason = session.verdict.reason
    return ServedModel(
        source=source,
        settings=own,
        session=session,
        examples=_examples(source.path),
        # The verdict is among them, and is told anyway.
        warnings=tuple(warning for warning in warnings if not reason or reason not in warning),
    )


class _Collector(logging.Handler):
    """Keeps the messages of what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Keep what is logged from standard error, where it would be without a server's log, and collect warnings."""
    logger, collector = logging.getLogger("inferd"), _Collector()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield collector.messages
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate


def _examples(file: Path) -> Path | None:
    """Return the recorded requests of a model: those of its version, or else of all of its versions."""
    folder = file.parent
    found = recorded_requests.find(folder)
    return found or (recorded_requests.find(folder.parent) if folder.name.isdecimal() else None)


def _failure_of(session: OnnxSession, examples: Path) -> str:
    """Return what ONNX Runtime says of the first of ``examples`` that fails, empty if that cannot be told."""
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
        # An example may be of one row without its batch dimension, which is not known any longer.
        return ""
    return ""
