"""Make tokens of texts with `tokenizers`, each text by itself."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from inferd.batch.blocks import BadRows
from inferd.batch.column_types import is_text, row_shape
from inferd.batch.errors import UsageError
from inferd.batch.options import TokenizeOptions
from inferd.batch.ports import Prepared
from inferd.batch.preparation.choice import chosen_column, chosen_input
from inferd.batch.storage import open_input, shown
from inferd.batch.tensors import tensor_of
from inferd.plain_text import clipped, escaped, listed
from inferd.runtime.signature import Array, ModelSignature, TensorSpec, format_shape

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

#: The usual names of a model's inputs for each result of a tokenizer.
_USUAL = {"ids": "input_ids", "attention_mask": "attention_mask", "type_ids": "token_type_ids"}

#: Texts that are encoded at a time: the library's objects are large.
_ENCODED_TEXTS = 256


class Tokens:
    """Makes tokens of texts.

    ``fields`` has the input for ``ids``, and for ``attention_mask`` and ``type_ids`` if the model has them. Texts of
    more than ``max_length`` tokens are cut at the side in the tokenizer's file, or are bad rows without ``truncate``.
    Each row is padded to a multiple of ``pad_to`` tokens, independent of other rows.
    """

    def __init__(
        self,
        *,
        column: str,
        fields: Mapping[str, TensorSpec],
        tokenizer: "Tokenizer",
        max_length: int | None,
        truncate: bool,
        pad_to: int,
    ) -> None:
        self.column = column
        self.inputs = tuple(spec.name for spec in fields.values())
        self._fields = dict(fields)
        self._max_length = max_length
        self._truncate = truncate
        self._pad_to = pad_to
        self._digest = hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
        self._pad_id, self._pads_left = _padding(tokenizer)
        self._tokenizer = _set_up(tokenizer, max_length if truncate else None)

    @property
    def identity(self) -> Mapping[str, str]:
        """What the tokens depend on, besides the options."""
        import tokenizers  # noqa: PLC0415  (only jobs with texts need it)

        return {"tokenizer": self._digest, "tokenizers": tokenizers.__version__}

    def __call__(self, column: pa.Array) -> Prepared:
        """Return the tokens of all texts of ``column``."""
        texts, bad = _texts(column)
        rows: dict[str, list[Array | None]] = {name: [None] * len(column) for name in self._fields}
        for index, encoding in self._encoded(texts, bad):
            length = len(encoding)
            if not length or (self._max_length is not None and length > self._max_length):
                bad[index] = f"expected 1 to {self._max_length or 'any number of'} tokens, got {length}"
                continue
            for field, spec in self._fields.items():
                rows[field][index] = self._row(spec, field, encoding)
        return {spec.name: tensor_of(rows[field], _no_tokens(spec)) for field, spec in self._fields.items()}, bad

    def _encoded(self, texts: Mapping[int, str], bad: BadRows) -> Iterator[tuple[int, "Encoding"]]:
        indices = list(texts)
        for start in range(0, len(indices), _ENCODED_TEXTS):
            taken = indices[start : start + _ENCODED_TEXTS]
            try:
                encodings = self._tokenizer.encode_batch_fast([texts[index] for index in taken])
            except BaseException as error:  # noqa: BLE001  (see there)
                _reraise_others(error)
                yield from self._encoded_alone(texts, taken, bad)
            else:
                yield from zip(taken, encodings, strict=True)

    def _encoded_alone(
        self, texts: Mapping[int, str], indices: Sequence[int], bad: BadRows
    ) -> Iterator[tuple[int, "Encoding"]]:
        for index in indices:
            try:
                [encoding] = self._tokenizer.encode_batch_fast([texts[index]])
            except BaseException as error:  # noqa: BLE001  (see there)
                _reraise_others(error)
                bad[index] = f"the tokenizer fails: {clipped(escaped(str(error)))}"
            else:
                yield index, encoding

    def _row(self, spec: TensorSpec, field: str, encoding: "Encoding") -> Array:
        length = len(encoding)
        padded = -(-length // self._pad_to) * self._pad_to
        fill = self._pad_id if field == "ids" else 0
        row = np.full(padded, fill, spec.datatype.numpy)
        own = slice(padded - length, None) if self._pads_left else slice(length)
        row[own] = 1 if field == "attention_mask" else getattr(encoding, field)
        # Without a batch axis, an input may have a first dimension of 1.
        return row.reshape(*_no_tokens(spec).shape[:-1], padded)


def tokens(options: TokenizeOptions, signature: ModelSignature, schema: pa.Schema) -> Tokens:
    """Return the preparation of texts in ``schema`` for the model. Raises `UsageError`."""
    tokenizer = _tokenizer(options.file)
    fields = _fields(options, signature)
    max_length, pad_to = _lengths(options, fields["ids"], tokenizer)
    added = tokenizer.num_special_tokens_to_add(is_pair=False)
    if max_length is not None and max_length <= added:
        raise UsageError(f"--tokenize max_length: expected more than the {added} special tokens, got {max_length}")
    return Tokens(
        column=chosen_column("--tokenize", options.column, schema, is_text, "texts"),
        fields=fields,
        tokenizer=tokenizer,
        max_length=max_length,
        truncate=options.truncate,
        pad_to=pad_to,
    )


def _tokenizer(address: str) -> "Tokenizer":
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415  (only jobs with texts need it)
    except ImportError:
        raise UsageError("--tokenize needs the package tokenizers: pip install 'inferd[batch]'") from None
    with open_input(address) as file:
        content = file.read()
    try:
        return Tokenizer.from_buffer(content)
    except Exception as error:  # noqa: BLE001  (the library raises plain exceptions)
        text = clipped(escaped(str(error)))
        raise UsageError(f"--tokenize {shown(address)}: expected a tokenizer.json: {text}") from None


def _fields(options: TokenizeOptions, signature: ModelSignature) -> dict[str, TensorSpec]:
    known = {spec.name: spec for spec in signature.inputs}
    names = {field: name for field, name in _USUAL.items() if name in known} | dict(options.fields)
    if "ids" not in names and len(known) == 1:
        names["ids"] = next(iter(known))
    if "ids" not in names:
        raise UsageError(f'--tokenize: the model has no input "input_ids", only {listed(known)}; say ids=INPUT')
    fields = {}
    for field in _USUAL:
        if field in names:
            spec = chosen_input(f"--tokenize {field}", names[field], signature)
            _check_field(field, spec)
            fields[field] = spec
    return fields


def _check_field(field: str, spec: TensorSpec) -> None:
    shape = row_shape(spec)
    kinds = "iufb" if field == "attention_mask" else "iu"
    if spec.datatype.numpy.kind not in kinds or len(shape) not in {1, 2} or shape[:-1] not in {(), (1,), (None,)}:
        got = f"{spec.datatype.name} {format_shape(shape)}"
        raise UsageError(f'--tokenize: expected integers in one dimension in each row for "{spec.name}", got {got}')


def _lengths(options: TokenizeOptions, ids: TensorSpec, tokenizer: "Tokenizer") -> tuple[int | None, int]:
    """Return the most tokens of a row, None for any number, and the multiple that rows are padded to."""
    # The tokenizer's file may have the limit of the model.
    most = options.max_length or (tokenizer.truncation or {}).get("max_length")
    fixed = row_shape(ids)[-1]
    if not isinstance(fixed, int):
        return most, options.pad_to
    for name, given in (("max_length", options.max_length), ("pad_to", options.pad_to)):
        if given is not None and given > fixed:
            raise UsageError(f'--tokenize {name}: expected at most the {fixed} tokens of "{ids.name}", got {given}')
    return min(most or fixed, fixed), fixed


def _padding(tokenizer: "Tokenizer") -> tuple[int, bool]:
    """Return the id of padding, and True if it goes to the left."""
    padding: dict[str, Any] = tokenizer.padding or {}
    usual = (tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>"))
    pad_id = padding.get("pad_id", next((each for each in usual if each is not None), 0))
    return pad_id, padding.get("direction") == "left"


def _set_up(tokenizer: "Tokenizer", max_length: int | None) -> "Tokenizer":
    """Set truncation to ``max_length``, at the side in the tokenizer's file, and no padding."""
    direction = (tokenizer.truncation or {}).get("direction", "right")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if max_length is not None:
        tokenizer.enable_truncation(max_length, direction=direction)
    return tokenizer


def _texts(column: pa.Array) -> tuple[dict[int, str], BadRows]:
    """Return the texts of ``column`` by row, and the rows without a text."""
    texts, bad = {}, {}
    values: Sequence[str | bytes | None] = column.to_pylist()
    for index, value in enumerate(values):
        if value is None:
            bad[index] = "expected a text, got null"
        elif isinstance(value, str):
            texts[index] = value
        else:
            try:
                texts[index] = value.decode()
            except UnicodeDecodeError as error:
                bad[index] = f"expected a text in UTF-8, got byte {value[error.start]:#04x} at {error.start}"
    return texts, bad


def _no_tokens(spec: TensorSpec) -> Array:
    return np.zeros((*(1,) * (len(row_shape(spec)) - 1), 0), spec.datatype.numpy)


def _reraise_others(error: BaseException) -> None:
    """Raise ``error`` again unless it is of the library, whose panics do not derive from `Exception`."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
