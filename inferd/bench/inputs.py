"""Make the inputs of requests: random by seed, in the shapes of the model, or from a file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd import recorded_requests
from inferd.bench.server import ModelForm, TensorForm
from inferd.bench.traffic import Arrays
from inferd.dtypes import BY_NAME, DataType
from inferd.plain_text import escaped
from inferd.recorded_requests import InputForm

_TEXT_BYTES = 16

#: The most that a message may have.
_MOST_BYTES = 2**31 - 1


class InputsError(ValueError):
    """Inputs do not fit the model. The message has the input, the expected and the actual value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSource:
    """The source of inputs: a ``file`` of recorded requests, or random values with the ``sizes`` of `generate`."""

    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    file: Path | None = None

    def __post_init__(self) -> None:
        if self.file is not None and self.sizes:
            msg = "expected --input or --shape, got both"
            raise ValueError(msg)

    def samples(
        self, model: ModelForm, others: Iterable[ModelForm], rows: int, count: int, random: np.random.Generator
    ) -> list[Arrays]:
        """Return the inputs of some requests to ``model``: ``count`` of ``rows`` rows each, or those of the file.

        In a mix with ``others``, sizes of inputs that only those models have are ignored.
        """
        if self.file is not None:
            return read(self.file, model)
        if model.is_decoupled:
            raise InputsError(
                f'model "{model.name}" may give several answers to a request, as language models do, and takes no '
                "random tensors: expected --input FILE.json with recorded requests, such as "
                '[{"text_input": ["Count to ten."]}]; for the times of tokens use a load generator of OpenAI\'s API'
            )
        elsewhere = {form.name for other in others for form in other.inputs} - {form.name for form in model.inputs}
        sizes = {name: each for name, each in self.sizes.items() if name not in elsewhere}
        return generate(model, rows, sizes, count, random)


def generate(
    model: ModelForm, rows: int, sizes: Mapping[str, tuple[int, ...]], samples: int, random: np.random.Generator
) -> list[Arrays]:
    """Return the inputs of ``samples`` requests of ``rows`` rows.

    ``sizes`` has, by input, the dimensions after the first one if that is dynamic and so counts the rows, else all
    dimensions. It must have the inputs in which one of these dimensions is dynamic.
    """
    check_names(model, sizes)
    shapes = {form.name: _shape(form, rows, sizes.get(form.name)) for form in model.inputs}
    _require_sendable(model, shapes, rows)
    return [
        {form.name: _values(_datatype(form), shapes[form.name], random) for form in model.inputs}
        for _ in range(samples)
    ]


def _require_sendable(model: ModelForm, shapes: Mapping[str, tuple[int, ...]], rows: int) -> None:
    """Raise before the values are made, which could take all memory."""
    nbytes = sum(_item_bytes(_datatype(form)) * prod(shapes[form.name]) for form in model.inputs)
    if nbytes > _MOST_BYTES:
        shown = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise InputsError(f"rows {rows}: expected at most {_MOST_BYTES} bytes in a request, got {nbytes}, of {shown}")


def _item_bytes(datatype: DataType) -> int:
    return _TEXT_BYTES if datatype.numpy.kind == "O" else datatype.numpy.itemsize


def read(path: Path, model: ModelForm) -> list[Arrays]:
    """Return the requests recorded in a .json or .npz file."""
    if path.suffix not in {".json", ".npz"}:
        raise InputsError(f"{path}: expected a file .json or .npz")
    forms = [
        InputForm(
            name=form.name,
            datatype=_datatype(form),
            shape=tuple(None if size < 0 else size for size in form.shape),
            batch_axis=0 if _counts_rows(form) else None,
            # The protocol does not say which inputs are optional; the server rejects requests without a required one.
            optional=True,
        )
        for form in model.inputs
    ]
    return [dict(request) for request in recorded_requests.read(path, forms)]


def rows_of(model: ModelForm, inputs: Arrays) -> int:
    """Return the rows of a request: the size of the first dimension if it is dynamic, else 1.

    What decoupled models take has none: the first dimension counts the tokens of a prompt.
    """
    if model.is_decoupled:
        return 1
    found = (inputs[form.name].shape[0] for form in model.inputs if form.name in inputs and _counts_rows(form))
    return next(found, 1)


def check_names(model: ModelForm, names: Mapping[str, object]) -> None:
    """Raise `InputsError` for a name that is not an input of the model."""
    known = [form.name for form in model.inputs]
    for name in names:
        if name not in known:
            raise InputsError(f'--shape {name}: model "{model.name}" has no such input, it has {", ".join(known)}')


def _counts_rows(form: TensorForm) -> bool:
    return bool(form.shape) and form.shape[0] < 0


def _shape(form: TensorForm, rows: int, sizes: tuple[int, ...] | None) -> tuple[int, ...]:
    declared = form.shape[1:] if _counts_rows(form) else form.shape
    if not _counts_rows(form) and rows != 1:
        raise InputsError(
            f'--rows {rows}: input "{form.name}" has the fixed shape {list(form.shape)}, expected 1: its first '
            "dimension counts no rows"
        )
    if sizes is None:
        if any(size < 0 for size in declared):
            raise InputsError(
                f'input "{form.name}": its shape {list(form.shape)} is dynamic, expected --shape '
                f"{form.name}:{','.join('N' if size < 0 else str(size) for size in declared)}"
            )
        sizes = tuple(declared)
    _check_sizes(form, declared, sizes)
    return (rows, *sizes) if _counts_rows(form) else sizes


def _check_sizes(form: TensorForm, declared: Sequence[int], sizes: tuple[int, ...]) -> None:
    fits = len(sizes) == len(declared) and all(
        wanted in (-1, size) for wanted, size in zip(declared, sizes, strict=True)
    )
    if not fits:
        without = " without the rows" if _counts_rows(form) else ""
        raise InputsError(
            f"--shape {form.name}: expected sizes for {list(declared)}, the shape{without}, got {list(sizes)}"
        )


def _datatype(form: TensorForm) -> DataType:
    datatype = BY_NAME.get(form.datatype)
    if datatype is None:
        raise InputsError(f'input "{form.name}": datatype "{escaped(form.datatype)}" is not known')
    return datatype


def _values(datatype: DataType, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[Any]:
    """Return random values: normal numbers, letters, or integers 0 and 1, which are valid indices of most tables."""
    kind = datatype.numpy.kind
    if kind == "O":
        texts = np.empty(shape, dtype=object)
        letters = random.integers(ord("a"), ord("z") + 1, (texts.size, _TEXT_BYTES), dtype=np.uint8)
        texts.ravel()[:] = [row.tobytes() for row in letters]
        return texts
    if kind in "fV":
        return random.standard_normal(shape).astype(datatype.numpy)
    return random.integers(0, 2, shape).astype(datatype.numpy)
