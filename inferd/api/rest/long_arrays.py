"""Parse long JSON in pieces, so that no step holds the interpreter lock for more than about a millisecond.

A valid request is long because of the ``data`` arrays of its inputs. They are found without parsing and cut out; the
rest is short. Each array is then parsed in pieces that end at commas.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferd.api.json_text import QUICK_BYTES
from inferd.errors import InvalidInputError

#: Bytes looked at in one step.
STEP_BYTES = 16 * 1024
#: Shorter arrays stay in the text.
_LONG_BYTES = 4096
#: A string of this length is parsed in about two milliseconds.
_MAX_ELEMENT_BYTES = 2 * 1024 * 1024
#: The depth within ``{"inputs": [{"data": [`` before the last bracket.
_DEPTH = 3

_QUOTE, _COMMA = b'",'
#: By byte: how it changes the depth.
_CHANGES = np.zeros(256, np.int8)
_CHANGES[list(b"[{")] = 1
_CHANGES[list(b"]}")] = -1

Mask = NDArray[np.bool_]


class Array(NamedTuple):
    """The bounds of an array in a text, without its brackets."""

    start: int
    end: int


class Piece(NamedTuple):
    """Elements of an array up to a comma; ``outside`` marks the bytes of ``text`` outside of strings."""

    text: bytes
    outside: Mask
    is_last: bool


class ElementTooLongError(Exception):
    """An element is too long to be parsed in one step."""


class Strings:
    """Finds the strings of a text that is seen in pieces."""

    __slots__ = ("_escaped", "_inside")

    def __init__(self) -> None:
        self._inside = False
        self._escaped = False

    def outside(self, piece: bytes) -> Mask | None:
        """Return which bytes of the next piece are outside of strings, quotes not included; None for all."""
        if not self._inside and b'"' not in piece:
            return None
        if self._escaped:
            piece = b"_" + piece[1:]
            self._escaped = False
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"__")
            self._escaped = piece.endswith(b"\\")
            piece = piece.replace(b'\\"', b"__")
        quotes = np.frombuffer(piece, np.uint8) == _QUOTE
        inside = np.logical_xor.accumulate(quotes)
        if self._inside:
            np.logical_not(inside, out=inside)
        self._inside = bool(inside[-1])
        outside: Mask = ~(inside | quotes)
        return outside


def cut_long_arrays(text: memoryview, mark: str) -> tuple[bytes, list[Array]]:
    """Return ``text`` with ``["<mark>", <number>]`` in place of each long array of an input, and these arrays.

    Raises `InvalidInputError` if the rest of the text is long.
    """
    scan = _Scan(text)
    for start in range(0, len(text), STEP_BYTES):
        scan.piece(start, bytes(text[start : start + STEP_BYTES]))
    if scan.in_array:
        raise InvalidInputError("the body is not valid JSON: unexpected end of data")
    parts: list[bytes | memoryview] = []
    position = 0
    for number, array in enumerate(scan.arrays):
        parts += (text[position : array.start - 1], f'["{mark}",{number}]'.encode())
        position = array.end + 1
    parts.append(text[position:])
    return b"".join(parts), scan.arrays


class _Scan:
    """One pass over a text that finds its long arrays."""

    __slots__ = ("_cut", "_depth", "_opened_at", "_strings", "_text", "arrays")

    def __init__(self, text: memoryview) -> None:
        self.arrays: list[Array] = []
        self._text = text
        self._strings = Strings()
        self._depth = 0
        self._opened_at: int | None = None
        self._cut = 0

    @property
    def in_array(self) -> bool:
        """True inside an array."""
        return self._opened_at is not None

    def piece(self, start: int, piece: bytes) -> None:
        """Scan the next piece of the text, which begins at ``start``."""
        changes = _CHANGES[np.frombuffer(piece, np.uint8)]
        outside = self._strings.outside(piece)
        if outside is not None:
            changes *= outside
        where = np.flatnonzero(changes)
        if where.size:
            self._brackets(where + start, changes[where])
        begin = start + len(piece) if self._opened_at is None else self._opened_at
        if begin - self._cut > QUICK_BYTES:
            msg = f"the body: expected at most {QUICK_BYTES} bytes of JSON beside the data of inputs, got more"
            raise InvalidInputError(msg)

    def _brackets(self, where: NDArray[np.intp], changes: NDArray[np.int8]) -> None:
        depths = self._depth + np.cumsum(changes, dtype=np.int64)
        self._depth = int(depths[-1])
        opened = where[(changes > 0) & (depths == _DEPTH + 1)]
        closed = where[(changes < 0) & (depths == _DEPTH)]
        if self._opened_at is not None:
            opened = np.concatenate(((self._opened_at,), opened))
        self._opened_at = int(opened[-1]) if len(opened) > len(closed) else None
        opened = opened[: len(closed)]
        long = closed - opened > _LONG_BYTES
        for start, end in zip(opened[long].tolist(), closed[long].tolist(), strict=True):
            if self._text[start] == ord("[") and self._text[end] == ord("]"):
                self.arrays.append(Array(start + 1, end))
                self._cut += end + 1 - start


def pieces_of(text: memoryview, array: Array) -> Iterator[Piece]:
    """Yield the elements of an array in pieces. Raises `ElementTooLongError`."""
    strings = Strings()
    #: Start of the next piece, and the masks of its bytes so far.
    begin, masks = array.start, list[Mask]()
    for start in range(array.start, array.end, STEP_BYTES):
        window = bytes(text[start : min(start + STEP_BYTES, array.end)])
        outside = strings.outside(window)
        comma = _last_comma(window, outside)
        mask = np.ones(len(window), np.bool_) if outside is None else outside
        if comma >= 0:
            yield Piece(bytes(text[begin : start + comma]), np.concatenate((*masks, mask[:comma])), is_last=False)
            begin, masks = start + comma + 1, [mask[comma + 1 :]]
            continue
        masks.append(mask)
        if start - begin > _MAX_ELEMENT_BYTES:
            raise ElementTooLongError
    yield Piece(bytes(text[begin : array.end]), np.concatenate(masks), is_last=True)


def _last_comma(window: bytes, outside: Mask | None) -> int:
    if outside is None:
        return window.rfind(b",")
    commas = np.flatnonzero((np.frombuffer(window, np.uint8) == _COMMA) & outside)
    return int(commas[-1]) if commas.size else -1
