"""Bind columns to the inputs of the model, and derive the schema of the output. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from string import digits

import pyarrow as pa

from inferd.batch.column_types import mismatch, output_type, read_type, row_shape
from inferd.batch.errors import UsageError, check_known
from inferd.batch.exact_numbers import marked
from inferd.batch.options import JobOptions
from inferd.batch.ports import Preparation
from inferd.plain_text import escaped, listed
from inferd.runtime.signature import ModelSignature, TensorSpec, format_shape

#: Columns that ``row_ids`` adds.
SOURCE, ROW = "source", "row"


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The columns of a job's files.

    ``is_text``: the format has only texts, which are read in the types of the model. ``extra`` are columns that are
    always read, for filters and error messages.
    """

    schema: pa.Schema
    is_text: bool = False
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Binding:
    """The columns of a job by their use.

    ``read_schema`` has the columns to read, with the types to read them in. ``inputs`` has the columns of each input
    that ``preparation`` does not fill: one, or several whose numbers become one dimension. ``joined`` are copied to the
    output. ``outputs`` has the column of each wanted output. ``output_schema`` is the schema of every part.
    """

    read_schema: pa.Schema
    inputs: Mapping[str, tuple[str, ...]]
    joined: tuple[str, ...]
    outputs: Mapping[str, str]
    output_schema: pa.Schema
    row_ids: bool
    preparation: Preparation | None


def bind(
    signature: ModelSignature, columns: Columns, options: JobOptions, preparation: Preparation | None = None
) -> Binding:
    """Bind ``columns`` to the inputs and outputs of the model. Raises `UsageError`."""
    schema = columns.schema
    considered = _considered(schema, options)
    if preparation is not None:
        check_known("--tokenize or --image", preparation.column, considered)
    types = {field.name: field.type for field in schema}
    inputs = _inputs(signature, {name: types[name] for name in considered}, options, preparation)
    joined = _joined(considered, options)
    outputs = _outputs(signature, options)
    types |= _read_types(signature, inputs, columns, options, preparation)
    for name, given in inputs.items():
        _check_types(signature.input(name), given, types)
    prepared = () if preparation is None else (preparation.column,)
    used = dict.fromkeys([*(name for each in inputs.values() for name in each), *prepared, *joined, *columns.extra])
    for name in used:
        if schema.names.count(name) > 1:
            raise UsageError(f'column "{name}": expected one of that name, got {schema.names.count(name)}')
    return Binding(
        read_schema=pa.schema([_read_field(name, types[name], columns, joined) for name in used]),
        inputs=inputs,
        joined=joined,
        outputs=outputs,
        output_schema=_output_schema(signature, types, joined, outputs, row_ids=options.row_ids),
        row_ids=options.row_ids,
        preparation=preparation,
    )


def _considered(schema: pa.Schema, options: JobOptions) -> tuple[str, ...]:
    for name in options.columns:
        check_known("--columns", name, schema.names)
    return options.columns or tuple(schema.names)


def _inputs(
    signature: ModelSignature, columns: Mapping[str, pa.DataType], options: JobOptions, preparation: Preparation | None
) -> dict[str, tuple[str, ...]]:
    names = [spec.name for spec in signature.inputs]
    filled = set(() if preparation is None else preparation.inputs)
    for name in options.mapping:
        check_known("--map", name, names, "input")
        if name in filled:
            raise UsageError(f"--map {name}: --tokenize or --image fills this input, so it takes no column")
    inputs: dict[str, tuple[str, ...]] = {}
    missing = []
    for spec in signature.inputs:
        if spec.name in options.mapping:
            inputs[spec.name] = _named(spec.name, options.mapping[spec.name], list(columns))
        elif spec.name in columns and spec.name not in filled:
            inputs[spec.name] = (spec.name,)
        elif not spec.optional and spec.name not in filled:
            missing.append(spec)
    if len(missing) == len(columns) == 1 and not (inputs or filled):
        inputs[missing[0].name] = tuple(columns)
    elif missing:
        raise _unbound(missing, columns)
    return inputs


def _named(name: str, text: str, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of ``--map NAME=TEXT``: one, or several with commas or a pattern, in their order."""
    if text in columns:
        return (text,)
    found: list[str] = []
    for part in text.split(","):
        matching = [part] if part in columns else [column for column in columns if fnmatchcase(column, part)]
        if not matching:
            check_known(f"--map {name}", part, columns)
        found += matching
    for column in found:
        if found.count(column) > 1:
            raise UsageError(f'--map {name}: column "{escaped(column)}" is among the columns twice')
    return tuple(found)


def _unbound(missing: Sequence[TensorSpec], columns: Mapping[str, pa.DataType]) -> UsageError:
    """Return the error of inputs without a column, with options that would bind them."""
    wanted = listed(
        f'"{spec.name}" ({spec.datatype.name} {format_shape(row_shape(spec))} in each row)' for spec in missing
    )
    advice = " ".join(f"--map {spec.name}={_suggested(spec, columns)}" for spec in missing)
    inputs = "inputs" if len(missing) > 1 else "input"
    return UsageError(
        f"{inputs} {wanted}: expected a column of that name, got {listed(columns) or 'none'}; name one with {advice}"
    )


def _suggested(spec: TensorSpec, types: Mapping[str, pa.DataType]) -> str:
    """Suggest a value of ``--map``: a column with a similar name, or the only column or columns of a fitting type."""
    fitting = [name for name, kind in types.items() if mismatch(spec, kind) is None]
    close = get_close_matches(spec.name, fitting or list(types), 1)
    if close or len(fitting) == 1:
        return (close or fitting)[0]
    shape = row_shape(spec)
    single = [name for name, kind in types.items() if mismatch(_element_of(spec), kind) is None]
    if not fitting and len(shape) == 1:
        # Such as pixel_0, pixel_1 …
        for stem in dict.fromkeys(name.rstrip(digits) for name in single):
            if len([name for name in types if name.startswith(stem)]) == shape[0]:
                return f"'{stem}*'" if stem else ",".join(single)
        if len(single) == shape[0]:
            return ",".join(single)
    return "COLUMN"


def _joined(columns: Sequence[str], options: JobOptions) -> tuple[str, ...]:
    if options.join is None:
        return ()
    for name in options.join:
        check_known("--join", name, columns)
    return options.join or tuple(columns)


def _outputs(signature: ModelSignature, options: JobOptions) -> dict[str, str]:
    names = [spec.name for spec in signature.outputs]
    for name in options.outputs:
        check_known("--output", name, names, "output")
    return dict(options.outputs) or {name: name for name in names}


def _read_types(
    signature: ModelSignature,
    inputs: Mapping[str, tuple[str, ...]],
    columns: Columns,
    options: JobOptions,
    preparation: Preparation | None,
) -> dict[str, pa.DataType]:
    """Return the types to read columns in, where the model determines them and ``options.types`` does not.

    The model determines them in text formats, and for columns of nulls: a later file may have values.
    """
    types = {field.name: field.type for field in columns.schema}
    read: dict[str, pa.DataType] = {}
    for name, used in inputs.items():
        spec = signature.input(name) if len(used) == 1 else _element_of(signature.input(name))
        read |= {
            column: read_type(spec, types[column])
            for column in used
            if columns.is_text or pa.types.is_null(types[column])
        }
    if preparation is not None and columns.is_text:
        # Also a text that looks like a number or a date.
        read[preparation.column] = pa.string()
    return {column: kind for column, kind in read.items() if column not in options.types}


def _read_field(name: str, kind: pa.DataType, columns: Columns, joined: Sequence[str]) -> pa.Field:
    field = pa.field(name, kind)
    return marked(field) if columns.is_text and name in joined else field


def _check_types(spec: TensorSpec, columns: Sequence[str], types: Mapping[str, pa.DataType]) -> None:
    """Raise `UsageError` unless the types of ``columns`` fit the input."""
    if len(columns) == 1:
        problem = mismatch(spec, types[columns[0]])
        if problem:
            others = {name: kind for name, kind in types.items() if name != columns[0]}
            raise UsageError(f'column "{columns[0]}" for input "{spec.name}": {problem}; {_advice(spec, others)}')
        return
    shape = row_shape(spec)
    if len(shape) != 1 or (isinstance(shape[0], int) and shape[0] != len(columns)):
        raise UsageError(f"--map {spec.name}: expected {format_shape(shape)} in each row, got {len(columns)} columns")
    for column in columns:
        if mismatch(_element_of(spec), types[column]):
            text = f"expected single values for {spec.datatype.name}, got {types[column]}"
            raise UsageError(f'column "{column}" for input "{spec.name}": {text}')


def _advice(spec: TensorSpec, others: Mapping[str, pa.DataType]) -> str:
    """Return advice for an input whose column does not fit."""
    advice = f"name another one with --map {spec.name}={_suggested(spec, others)}"
    is_token = spec.datatype.numpy.kind == "i"
    return f"{advice}, or make tokens of texts with --tokenize" if is_token else advice


def _element_of(spec: TensorSpec) -> TensorSpec:
    return TensorSpec(name=spec.name, datatype=spec.datatype, shape=(), batch_axis=None)


def _output_schema(
    signature: ModelSignature,
    types: Mapping[str, pa.DataType],
    joined: Sequence[str],
    outputs: Mapping[str, str],
    *,
    row_ids: bool,
) -> pa.Schema:
    specs = {spec.name: spec for spec in signature.outputs}
    ids = [pa.field(SOURCE, pa.string()), pa.field(ROW, pa.int64())] if row_ids else []
    kept = [pa.field(name, types[name]) for name in joined]
    given = [pa.field(column, output_type(specs[name])) for name, column in outputs.items()]
    fields = [*ids, *kept, *given]
    names = [each.name for each in fields]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f'column "{name}" would be in the output twice; give an output another name with '
                f"--output {name if name in outputs else next(iter(outputs))}=COLUMN, or leave it out of --join"
            )
    return pa.schema(fields)
