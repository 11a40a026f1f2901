"""The columns of the files of a job: those of the first one, and types that only the next ones tell."""

from collections.abc import Collection, Sequence

import pyarrow as pa

from inferd.batch.errors import BatchError, UnreadableFileError
from inferd.batch.ports import Reader, SourceFile
from inferd.batch.storage import shown

#: The most files that are looked at for types which the first one does not tell.
_MOST_FILES = 16


def schema_of(reader: Reader, files: Sequence[SourceFile], wanted: Collection[str] = ()) -> pa.Schema:
    """Return the columns of the first file that is not damaged and has any.

    A column that has only nulls there has the type of the first of the next files that tells it; if none does, its
    type is null. Those ``wanted`` that it lacks are looked for in the next files too.

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
        # Those of the path are all that JSON lines without lines have.
        has_columns = has_columns or not set(schema.names) <= set(file.partition)
        has_read = True
    if not has_read:
        raise BatchError(f"no file can be read; {problem}")
    return found


def _is_known(schema: pa.Schema) -> bool:
    return not any(map(_has_nulls_only, schema.types))


def _completed(found: pa.Schema, other: pa.Schema, wanted: Collection[str]) -> pa.Schema:
    """Return ``found`` with those types of ``other`` that it does not tell, and those columns ``wanted`` it lacks."""
    fields = []
    for field in found:
        is_told = not _has_nulls_only(field.type) or other.names.count(field.name) != 1
        fields.append(field if is_told else pa.field(field.name, other.field(field.name).type))
    return pa.schema([*fields, *(field for field in other if field.name in wanted and field.name not in found.names)])


def _has_nulls_only(kind: pa.DataType) -> bool:
    """Whether no value has told ``kind``, or that of elements of its lists."""
    while pa.types.is_nested(kind) and kind.num_fields == 1:
        kind = kind.field(0).type
    return bool(pa.types.is_null(kind))
