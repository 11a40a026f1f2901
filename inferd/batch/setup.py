"""Open the files and the model of a job, and bind columns to inputs."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib.metadata import version
from typing import Any, get_args

import pyarrow as pa

from inferd.batch.binding import Binding, bind
from inferd.batch.errors import UsageError
from inferd.batch.identity import Identity
from inferd.batch.inputs import Inputs, open_inputs
from inferd.batch.options import JobOptions, OutputFormat, RunOptions
from inferd.batch.ports import BatchRunner, ModelRunner
from inferd.batch.preparation.blocks import BlockPreparation
from inferd.batch.preparation.choice import preparation_for
from inferd.batch.preparation.pool import PreparationPool
from inferd.batch.reading import Sources
from inferd.batch.storage import shown
from inferd.batch.writing import check_schema
from inferd.config.settings import Settings
from inferd.endpoint import Endpoint

#: Suffixes of data files in formats that are not written. Other names with a dot are directories.
_OTHER_SUFFIXES = ("feather", "gz", "ipc", "json", "ndjson", "orc", "pq", "tar", "tsv", "txt", "xlsx", "zip", "zst")


@dataclass(frozen=True, kw_only=True)
class JobSetup:
    """The open files and model of a job.

    ``pool`` prepares texts and pictures, also for `Planner` and previews, as a row may crash the process that prepares
    it. ``output_format`` is the format of the parts, or of the one file if ``is_file``. ``open_isolated`` opens a
    runner in a worker process; None on a server.
    """

    options: JobOptions
    inputs: Inputs
    runner: ModelRunner
    open_isolated: Callable[[], BatchRunner] | None
    binding: Binding
    pool: PreparationPool | None
    output_format: OutputFormat
    is_file: bool

    @property
    def sources(self) -> Sources:
        """The files, and the filter of their rows."""
        return self.inputs.sources

    def block_preparation(self) -> BlockPreparation:
        """Return a new preparation of blocks."""
        return BlockPreparation(
            self.binding,
            self.runner.signature,
            self.sources.names,
            self.pool,
            path_column=self.inputs.path_column,
        )

    @cached_property
    def identity(self) -> Identity:
        """All that the answers depend on."""
        options = asdict(self.options)
        # The model is identified by its files, and the place of the output changes no answer.
        for name in ("model", "inputs", "output"):
            del options[name]
        if self.options.tokenize is not None:
            # The tokenizer is identified by its content.
            del options["tokenize"]["file"]
        prepared = {} if self.binding.preparation is None else self.binding.preparation.identity
        return Identity(
            model=self.runner.identity,
            options=options | {"output_format": self.output_format},
            inputs={shown(file.address): f"{file.size} {file.version}" for file in self.sources.files},
            versions={"inferd": version("inferd"), "pyarrow": pa.__version__, **prepared},
        )


def open_setup(
    options: JobOptions, run_options: RunOptions, settings: Settings, endpoint: Endpoint | None, stack: ExitStack
) -> JobSetup:
    """Open the files and the model, which ``stack`` closes. Raises `UsageError` and `BatchError`.

    Cheap checks come first, loading the model last.
    """
    output_format, is_file = output_format_of(options)
    _check_errors_file(run_options.errors)
    inputs = open_inputs(options)
    runner, open_isolated = _open_runner(options, run_options, settings, endpoint)
    stack.callback(runner.close)
    preparation = preparation_for(options, runner.signature, inputs.columns.schema)
    binding = bind(runner.signature, inputs.columns, options, preparation)
    check_schema(output_format, binding.output_schema)
    pool = None if preparation is None else stack.enter_context(PreparationPool(preparation, run_options.workers))
    return JobSetup(
        options=options,
        inputs=inputs,
        runner=runner,
        open_isolated=open_isolated,
        binding=binding,
        pool=pool,
        output_format=output_format,
        is_file=is_file,
    )


def output_format_of(options: JobOptions) -> tuple[OutputFormat, bool]:
    """Return the format of the output, and True if it is one file. Raises `UsageError`."""
    suffix = options.output.rsplit("/", 1)[-1].rpartition(".")[2]
    of_file: OutputFormat | None = next((each for each in get_args(OutputFormat) if each == suffix), None)
    if of_file is None:
        if suffix in _OTHER_SUFFIXES:
            known = " ".join(f".{each}" for each in get_args(OutputFormat))
            raise UsageError(
                f"OUTPUT {shown(options.output)}: expected a file of {known}; or a directory, with a / at its end"
            )
        return options.output_format or "parquet", False
    if options.output_format not in (None, of_file):
        raise UsageError(f"--output-format {options.output_format}: {shown(options.output)} is a file of {of_file}")
    return of_file, True


def _check_errors_file(errors: str | None) -> None:
    if errors is not None and not errors.endswith(".jsonl"):
        raise UsageError(f"--errors {shown(errors)}: expected a name that ends in .jsonl, which is its format")


def _open_runner(
    options: JobOptions, run_options: RunOptions, settings: Settings, endpoint: Endpoint | None
) -> tuple[ModelRunner, Callable[[], BatchRunner] | None]:
    """Return a runner of the model, and a function that opens one in a worker process; None on a server."""
    # ruff: noqa: PLC0415  (a job on a server needs no ONNX Runtime)
    if endpoint is not None:
        from inferd.batch.server import open_server

        return open_server(endpoint, options.model, options.version, in_flight=run_options.in_flight), None
    from inferd.batch.isolated import IsolatedRunner
    from inferd.batch.local import open_local

    open_runner = partial(open_local, options.model, settings, in_flight=run_options.in_flight)
    runner = open_runner()
    return runner, partial(IsolatedRunner, runner.signature, open_runner)


def describe_inputs(setup: JobSetup) -> dict[str, Any]:
    """Return the columns, or the preparation, of each input of the model, as text."""
    found = {name: ", ".join(columns) for name, columns in setup.binding.inputs.items()}
    preparation = setup.binding.preparation
    if preparation is not None:
        how = "--tokenize" if setup.options.tokenize is not None else "--image"
        found |= dict.fromkeys(preparation.inputs, f"{preparation.column} ({how})")
    return {spec.name: found[spec.name] for spec in setup.runner.signature.inputs if spec.name in found}
