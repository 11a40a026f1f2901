"""Which preparation the options of a job ask for."""

import pyarrow as pa

from inferd.batch.errors import UsageError
from inferd.batch.options import JobOptions
from inferd.batch.ports import Preparation
from inferd.runtime.signature import ModelSignature


def preparation_for(options: JobOptions, signature: ModelSignature, schema: pa.Schema) -> Preparation | None:
    """Return what prepares a column of ``schema`` for the model; None if nothing does. Raises `UsageError`."""
    # ruff: noqa: PLC0415  (each needs a library that other jobs do not)
    if options.tokenize is not None and options.image is not None:
        raise UsageError("--tokenize, --image: expected one of them, got both")
    if options.tokenize is not None:
        from inferd.batch.preparation.tokens import tokens

        return tokens(options.tokenize, signature, schema)
    if options.image is not None:
        from inferd.batch.preparation.pictures import pictures

        return pictures(options.image, signature, schema)
    return None
