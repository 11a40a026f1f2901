"""Which column is prepared, and for which input."""

from collections.abc import Callable

import pyarrow as pa

from inferd.batch.column_types import is_binary
from inferd.batch.errors import UsageError
from inferd.batch.names import check_known
from inferd.plain_text import listed
from inferd.runtime.signature import ModelSignature, TensorSpec


def chosen_column(
    option: str, name: str | None, schema: pa.Schema, is_meant: Callable[[pa.DataType], bool], kind: str
) -> str:
    """Return the column ``name``, or the only one that ``is_meant``. Raises `UsageError`.

    A named one may have bytes in any case.
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
