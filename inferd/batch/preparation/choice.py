"""Choose the preparation of a job, its column, and the inputs that it fills."""

from collections.abc import Callable

import pyarrow as pa

from inferd.batch.column_types import is_binary
from inferd.batch.errors import UsageError, check_known
from inferd.batch.options import JobOptions
from inferd.batch.ports import Preparation
from inferd.plain_text import listed
from inferd.runtime.signature import ModelSignature, TensorSpec


def preparation_for(options: JobOptions, signature: ModelSignature, schema: pa.Schema) -> Preparation | None:
    """Return the preparation of --tokenize or --image; None without either. Raises `UsageError`."""
    # ruff: noqa: PLC0415  (each needs a library that other jobs do not need)
    if options.tokenize is not None and options.image is not None:
        raise UsageError("--tokenize, --image: expected one of them, got both")
    if options.tokenize is not None:
        from inferd.batch.preparation.tokens import tokens

        return tokens(options.tokenize, signature, schema)
    if options.image is not None:
        from inferd.batch.preparation.pictures import pictures

        return pictures(options.image, signature, schema)
    return None


def chosen_column(
    option: str, name: str | None, schema: pa.Schema, is_meant: Callable[[pa.DataType], bool], kind: str
) -> str:
    """Return the column ``name``, or the only column whose type ``is_meant``. Raises `UsageError`.

    A named column may also be one of bytes.
    """
    if name is None:
        found: list[str] = [field.name for field in schema if is_meant(field.type)]
        if len(found) == 1:
            return found[0]
        got = listed(found) if found else f"none among {listed(schema.names)}"
        raise UsageError(f"{option}: expected one column of {kind}, got {got}; name it with column=NAME")
    check_known(f"{option} column", name, schema.names)
    actual = schema.field(name).type
    if not (is_meant(actual) or is_binary(actual)):
        raise UsageError(f'{option}: expected {kind} in column "{name}", got {actual}')
    return name


def chosen_input(option: str, name: str, signature: ModelSignature) -> TensorSpec:
    """Return the input ``name``. Raises `UsageError`."""
    check_known(option, name, [spec.name for spec in signature.inputs], "input")
    return signature.input(name)
