"""What a job has before its first row: its files, the model, and how their columns meet."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib.metadata import version
from typing import Any, get_args

import pyarrow as pa

from inferd.batch.binding import Binding, bind
from inferd.batch.errors import UsageError
from inferd.batch.expressions import parse
from inferd.batch.identity import Identity
from inferd.batch.names import check_known
from inferd.batch.options import JobOptions, OutputFormat, RunOptions
from inferd.batch.ports import BatchRunner, ModelRunner, Preparation, SourceFile
from inferd.batch.preparation.choice import preparation_for
from inferd.batch.preparation.pool import PreparationPool
from inferd.batch.preparing import BlockPreparation
from inferd.batch.reading import Sources
from inferd.batch.selection import RowFilter
from inferd.batch.sources.finding import find_sources
from inferd.batch.sources.formats import reader_for
from inferd.batch.sources.pictures import PATH
from inferd.batch.sources.schemas import schema_of
from inferd.batch.storage import is_remote, shown
from inferd.batch.writing import checked_schema
from inferd.config import Settings
from inferd.endpoint import Endpoint

#: Suffixes of files of data that are not written. A directory may have a dot in its name.
_OTHER_SUFFIXES = ("feather", "gz", "ipc", "json", "ndjson", "orc", "pq", "tar", "tsv", "txt", "xlsx", "zip", "zst")

#: Formats whose rows are files, which errors name.
_PICTURE_FORMATS = ("images", "tar")

#: Formats whose columns have no types of their own.
_TEXT_FORMATS = ("csv", "jsonl")


@dataclass(frozen=True, kw_only=True)
class JobSetup:
    """The files of a job, the model, and how their columns meet.

    ``pool`` runs the ``preparation``, also for rows that are only looked at: some may end the process that prepares
    them. ``output_format`` is that of parts or the one file. ``open_apart`` opens what runs batches in a process of its
    own; None on a server.
    """

    options: JobOptions
    sources: Sources
    runner: ModelRunner
    open_apart: Callable[[], BatchRunner] | None
    binding: Binding
    preparation: Preparation | None
    pool: PreparationPool | None
    output_format: OutputFormat
    is_file: bool

    def block_preparation(self) -> BlockPreparation:
        """Return what makes the tensors of blocks."""
        path = PATH if self.sources.files[0].format in _PICTURE_FORMATS else None
        return BlockPreparation(self.binding, self.runner.signature, self.sources.names, self.pool, path_column=path)

    @cached_property
    def identity(self) -> Identity:
        """What the answers depend on."""
        options = asdict(self.options)
        # The model is known by its files, and where the answers are changes nothing.
        for name in ("model", "inputs", "output"):
            del options[name]
        if self.options.tokenize is not None:
            # Its content counts.
            del options["tokenize"]["file"]
        prepared = {} if self.preparation is None else self.preparation.identity
        return Identity(
            model=self.runner.identity,
            options=options | {"output_format": self.output_format},
            inputs={shown(file.address): f"{file.size} {file.version}" for file in self.sources.files},
            versions={"inferd": version("inferd"), "pyarrow": pa.__version__, **prepared},
        )


def open_setup(
    options: JobOptions, run_options: RunOptions, settings: Settings, endpoint: Endpoint | None, stack: ExitStack
) -> JobSetup:
    """Look at the files, and open the model, which ``stack`` closes. Raises `UsageError` and `BatchError`.

    What is cheap to find wrong is found first.
    """
    output_format, is_file = output_format_of(options)
    _check_errors_file(run_options.errors)
    files = find_sources(options.inputs, options.input_format)
    _check_apart(options, files)
    reader = reader_for(files[0].format)
    is_text = files[0].format in _TEXT_FORMATS
    schema = _typed(schema_of(reader, files), options, is_text=is_text)
    condition = None if options.where is None else parse(options.where)
    if condition is not None:
        condition.check(schema)
    runner, open_apart = _open_runner(options, run_options, settings, endpoint)
    stack.callback(runner.close)
    preparation = preparation_for(options, runner.signature, schema)
    binding = bind(
        runner.signature,
        schema,
        options,
        preparation,
        is_text=is_text,
        extra=[
            *(() if condition is None else condition.columns),
            *([PATH] if files[0].format in _PICTURE_FORMATS else []),
        ],
    )
    checked_schema(output_format, binding.output_schema)
    row_filter = RowFilter(condition=condition, sample=options.sample, seed=options.seed)
    return JobSetup(
        options=options,
        sources=Sources(files, reader, row_filter),
        runner=runner,
        open_apart=open_apart,
        binding=binding,
        preparation=preparation,
        pool=None if preparation is None else stack.enter_context(PreparationPool(preparation, run_options.workers)),
        output_format=output_format,
        is_file=is_file,
    )


def output_format_of(options: JobOptions) -> tuple[OutputFormat, bool]:
    """Return the format of the output, and whether it is one file. Raises `UsageError`."""
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


def _check_apart(options: JobOptions, files: Sequence[SourceFile]) -> None:
    """Raise `UsageError` if answers would be among the inputs, or replace them."""
    output = _comparable(options.output)
    for address in (*options.inputs, *(file.address for file in files)):
        given = _comparable(address)
        if given == output or given.startswith(f"{output}/") or output.startswith(f"{given}/"):
            raise UsageError(
                f"OUTPUT {shown(options.output)}: expected a place apart from the inputs, such as {shown(address)}"
            )


def _comparable(address: str) -> str:
    return address.rstrip("/") if is_remote(address) else os.path.realpath(address)


def _check_errors_file(errors: str | None) -> None:
    if errors is not None and not errors.endswith(".jsonl"):
        raise UsageError(f"--errors {shown(errors)}: expected a name that ends in .jsonl, which is its format")


def _typed(schema: pa.Schema, options: JobOptions, *, is_text: bool) -> pa.Schema:
    """Return ``schema`` with the types that the options give."""
    if options.types and not is_text:
        raise UsageError("--type: expected files of CSV or JSON lines; columns of others have types of their own")
    for name, alias in options.types.items():
        check_known("--type", name, schema.names)
        try:
            kind = pa.type_for_alias(alias)
        except ValueError:
            raise UsageError(f"--type {name}={alias}: expected a type such as string, int64 or float32") from None
        schema = schema.set(schema.get_field_index(name), pa.field(name, kind))
    if is_text:
        # Whatever comes later is a text.
        kinds = [pa.string() if pa.types.is_null(kind) else kind for kind in schema.types]
        schema = pa.schema(list(zip(schema.names, kinds, strict=True)))
    return schema


def _open_runner(
    options: JobOptions, run_options: RunOptions, settings: Settings, endpoint: Endpoint | None
) -> tuple[ModelRunner, Callable[[], BatchRunner] | None]:
    """Return what runs the model, and what opens it in a process of its own, unless it is on a server."""
    # ruff: noqa: PLC0415  (a job on a server needs no ONNX Runtime)
    if endpoint is not None:
        from inferd.batch.server import open_server

        return open_server(endpoint, options.model, options.version, in_flight=run_options.in_flight), None
    from inferd.batch.apart import ApartRunner
    from inferd.batch.local import open_local

    open_runner = partial(open_local, options.model, settings, in_flight=run_options.in_flight)
    runner = open_runner()
    return runner, partial(ApartRunner, runner.signature, open_runner)


def described_inputs(setup: JobSetup) -> dict[str, Any]:
    """Return for each input of the model what fills it, as text."""
    found = {name: ", ".join(columns) for name, columns in setup.binding.inputs.items()}
    preparation = setup.preparation
    if preparation is not None:
        how = "--tokenize" if setup.options.tokenize is not None else "--image"
        found |= dict.fromkeys(preparation.inputs, f"{preparation.column} ({how})")
    return {spec.name: found[spec.name] for spec in setup.runner.signature.inputs if spec.name in found}
