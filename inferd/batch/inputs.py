"""The files of a job, the rows of them that are wanted, and their columns."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from inferd.batch.binding import Columns
from inferd.batch.errors import UsageError
from inferd.batch.expressions import Condition, parse
from inferd.batch.names import check_known
from inferd.batch.options import JobOptions
from inferd.batch.ports import SourceFile
from inferd.batch.reading import Sources
from inferd.batch.selection import RowFilter
from inferd.batch.sources.finding import find_sources, is_pattern
from inferd.batch.sources.formats import reader_for
from inferd.batch.sources.pictures import PATH
from inferd.batch.sources.schemas import schema_of
from inferd.batch.storage import is_remote, shown

#: Formats whose rows are files, which errors name.
_PICTURE_FORMATS = ("images", "tar")

#: Formats whose columns have no types of their own.
_TEXT_FORMATS = ("csv", "jsonl")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """The files, and what a model may be given of them. ``path_column`` says which picture a row is, if it is one."""

    sources: Sources
    columns: Columns
    path_column: str | None


def open_inputs(options: JobOptions) -> Inputs:
    """Look at the files that ``options`` name. Raises `UsageError` and `BatchError`."""
    files = find_sources(options.inputs, options.input_format)
    _check_apart(options, files)
    file_format = files[0].format
    is_text = file_format in _TEXT_FORMATS
    _check_format(options, file_format, is_text=is_text)
    condition = None if options.where is None else parse(options.where)
    # Only the members of JSON lines may be missing in some files.
    named = _named(options, condition) if file_format == "jsonl" else {}
    reader = reader_for(file_format, delimiter=options.delimiter, columns=options.columns)
    schema = _typed(schema_of(reader, files, named.keys() - options.types.keys()), options, named, is_text=is_text)
    if condition is not None:
        condition.check(schema)
    path_column = PATH if file_format in _PICTURE_FORMATS else None
    extra = (*(() if condition is None else condition.columns), *(() if path_column is None else (path_column,)))
    return Inputs(
        sources=Sources(files, reader, RowFilter(condition=condition, sample=options.sample, seed=options.seed)),
        columns=Columns(schema=schema, is_text=is_text, extra=extra),
        path_column=path_column,
    )


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


def _check_format(options: JobOptions, file_format: str, *, is_text: bool) -> None:
    """Raise `UsageError` for options that files of this format do not have."""
    if options.types and not is_text:
        raise UsageError(
            f"--type: expected files of CSV or JSON lines, got {file_format}, whose columns have types of their own"
        )
    if options.delimiter is not None and file_format != "csv":
        raise UsageError(f"--delimiter: expected files of CSV, got {file_format}")


def _named(options: JobOptions, condition: Condition | None) -> Mapping[str, str]:
    """Return the columns that options name, each with the option."""
    prepared = {"--tokenize": options.tokenize, "--image": options.image}
    by_option: dict[str, Sequence[str]] = {
        "--columns": options.columns,
        "--join": options.join or (),
        "--where": () if condition is None else condition.columns,
        **{f"--map {name}": text.split(",") for name, text in options.mapping.items() if not is_pattern(text)},
        **{option: [each.column] for option, each in prepared.items() if each is not None and each.column is not None},
    }
    return {name: option for option, names in by_option.items() for name in names}


def _typed(schema: pa.Schema, options: JobOptions, named: Mapping[str, str], *, is_text: bool) -> pa.Schema:
    """Return ``schema`` with the types that the options give. Those ``named`` may be in later rows only."""
    for name, alias in options.types.items():
        try:
            field = pa.field(name, pa.type_for_alias(alias))
        except ValueError:
            raise UsageError(f"--type {name}={alias}: expected a type such as string, int64 or float32") from None
        if name in schema.names:
            schema = schema.set(schema.get_field_index(name), field)
        elif name in named:
            schema = schema.append(field)
        else:
            check_known("--type", name, schema.names)
    for name, option in named.items():
        advice = f"if later rows have it, give its type, as in --type {name}=string"
        check_known(option, name, schema.names, advice=advice)
    if is_text:
        # Whatever comes later is a text.
        kinds = [pa.string() if pa.types.is_null(kind) else kind for kind in schema.types]
        schema = pa.schema(list(zip(schema.names, kinds, strict=True)))
    return schema
