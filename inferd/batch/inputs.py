"""Open the input files of a job: their format, their columns, and the filter of their rows."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from inferd.batch.binding import Columns
from inferd.batch.errors import BatchError, UnreadableFileError, UsageError, check_known
from inferd.batch.expressions import Condition, parse
from inferd.batch.options import JobOptions
from inferd.batch.ports import Reader, SourceFile
from inferd.batch.reading import Sources
from inferd.batch.selection import RowFilter
from inferd.batch.sources.finding import find_sources, is_pattern, reader_for
from inferd.batch.sources.images import PATH
from inferd.batch.storage import is_remote, shown

#: Formats whose rows are pictures, whose paths errors name.
_PICTURE_FORMATS = ("images", "tar")

#: Formats whose columns have no stored types.
_TEXT_FORMATS = ("csv", "jsonl")

#: The most files that are read for types that the first file does not determine.
_MOST_FILES = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """The files and their columns. ``path_column`` has the path of the picture of each row; None for other formats."""

    sources: Sources
    columns: Columns
    path_column: str | None


def open_inputs(options: JobOptions) -> Inputs:
    """Find the files of ``options``, and read their columns. Raises `UsageError` and `BatchError`."""
    files = find_sources(options.inputs, options.input_format)
    _check_apart(options, files)
    file_format = files[0].format
    is_text = file_format in _TEXT_FORMATS
    _check_format(options, file_format, is_text=is_text)
    condition = None if options.where is None else parse(options.where)
    # Only JSON lines may lack a member in some files.
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
    """Raise `UsageError` if the output is one of the inputs, or in the folder of one, or contains one."""
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
    """Raise `UsageError` for options that do not apply to the format."""
    if options.types and not is_text:
        raise UsageError(
            f"--type: expected files of CSV or JSON lines, got {file_format}, whose columns have types of their own"
        )
    if options.delimiter is not None and file_format != "csv":
        raise UsageError(f"--delimiter: expected files of CSV, got {file_format}")


def _named(options: JobOptions, condition: Condition | None) -> Mapping[str, str]:
    """Return the columns that options name, each with its option."""
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
    """Return ``schema`` with the types of --type. Columns that are ``named`` may occur in later rows only."""
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
        # Later values are read as texts.
        kinds = [pa.string() if pa.types.is_null(kind) else kind for kind in schema.types]
        schema = pa.schema(list(zip(schema.names, kinds, strict=True)))
    return schema


def schema_of(reader: Reader, files: Sequence[SourceFile], wanted: Collection[str] = ()) -> pa.Schema:
    """Return the columns of the first file that is not damaged and has columns.

    A column of nulls there gets the type of the first of the next files that has values; if none has, its type is
    null. Columns in ``wanted`` that the file lacks are taken from the next files too.

    Raises `BatchError` if no file can be read.
    """
    found = pa.schema([])
    problem = ""
    has_columns = has_read = False
    for index, file in enumerate(files):
        is_known = has_columns and _is_known(found) and set(wanted) <= set(found.names)
        if is_known or (has_read and index >= _MOST_FILES):
            break
        try:
            schema = reader.schema(file)
        except UnreadableFileError as error:
            problem = problem or f"{shown(file.address)}: {error}"
            continue
        found = _completed(found, schema, wanted) if has_columns else schema
        # An empty file of JSON lines has the columns of its path only.
        has_columns = has_columns or not set(schema.names) <= set(file.partition)
        has_read = True
    if not has_read:
        raise BatchError(f"no file can be read; {problem}")
    return found


def _is_known(schema: pa.Schema) -> bool:
    return not any(map(_has_nulls_only, schema.types))


def _completed(found: pa.Schema, other: pa.Schema, wanted: Collection[str]) -> pa.Schema:
    """Return ``found`` with types from ``other`` for columns of nulls, and the ``wanted`` columns that it lacks."""
    fields = []
    for field in found:
        is_told = not _has_nulls_only(field.type) or other.names.count(field.name) != 1
        fields.append(field if is_told else pa.field(field.name, other.field(field.name).type))
    return pa.schema([*fields, *(field for field in other if field.name in wanted and field.name not in found.names)])


def _has_nulls_only(kind: pa.DataType) -> bool:
    """Return True if ``kind`` is null, or lists of null."""
    while pa.types.is_nested(kind) and kind.num_fields == 1:
        kind = kind.field(0).type
    return bool(pa.types.is_null(kind))
