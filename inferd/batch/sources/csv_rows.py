"""Find the rows of CSV, and the malformed ones among them. Pure.

A quoted field begins and ends with a quote; within it, quotes are doubled, and line ends belong to it. A row with a
quoted field that does not end, or continues after its closing quote, is malformed and ends with its line, so the next
row is not affected. Other quotes are ordinary characters.

Steps of a file are scanned as a whole: while all quotes are regular, a line end with an even number of quotes before
it ends a row. From the first irregular quote on, some rows are scanned one by one.
"""

import re
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from inferd.batch.blocks import BadRows
from inferd.batch.sources.text_rows import NO_ROWS, RowTexts

_Indices = NDArray[np.int64]

_QUOTE, _LINE_FEED, _RETURN = b'"\n\r'

#: Rows that are scanned one by one before the next try of many, and how many bytes those have, at first.
_SINGLE_ROWS = 64
_WINDOW_BYTES = 16 << 10

_MALFORMED = (
    "malformed: a quoted field does not end, or goes on after its closing quote; or a carriage return in a line"
)


class CsvScanner:
    """Finds the rows of CSV with one ``delimiter``."""

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter[0]
        delimiter = re.escape(delimiter)
        quoted = rb'"(?:[^"]++|"")*+"'
        plain = rb'(?:[^"\r\n%b][^\r\n%b]*+)?+' % (delimiter, delimiter)
        one = rb"(?:%b|%b)(?=[\r\n%b]|\Z)" % (quoted, plain, delimiter)
        self._row = re.compile(rb"%b(?:%b%b)*+(?=\r?\n|\r?\Z)" % (one, delimiter, one))
        self._quoted = re.compile(rb"(?:^|(?<=%b))%b" % (delimiter, quoted))
        #: Fields up to the end of what there is, in the last of which a quote is open.
        self._open = re.compile(rb'(?:%b%b)*+"(?:[^"]++|"")*+\Z' % (one, delimiter))

    def scan(self, data: bytes, *, is_end: bool) -> tuple[RowTexts, int]:
        """Return the whole rows at the beginning of ``data``, and the index of the rest."""
        characters = np.frombuffer(data, np.uint8)
        found = _Found()
        at, window = 0, len(data)
        while at < len(data):
            stop = min(len(data), at + window)
            at, is_regular = self._scan_many(found, characters, at, stop, is_end=is_end and stop == len(data))
            if not is_regular:
                at, is_cut = self._scan_singles(found, data, at, is_end=is_end)
                if is_cut:
                    break
                window = _WINDOW_BYTES
            elif stop == len(data):
                break
            else:
                window *= 2
        return found.texts(data), min(at, len(data))

    def _scan_many(
        self, found: "_Found", characters: NDArray[np.uint8], at: int, stop: int, *, is_end: bool
    ) -> tuple[int, bool]:
        """Add the rows from ``at`` to ``stop`` until the first quote that is not where it belongs.

        Return where the next row begins, and whether there was none such.
        """
        seen = characters[at:stop]
        quotes, feeds = _places(seen, _QUOTE), _places(seen, _LINE_FEED)
        ends = feeds[_outside(feeds, quotes)]
        irregular = self._first_irregular(seen, quotes, is_end=is_end)
        if irregular is not None:
            ends = ends[ends < irregular]
        elif is_end and len(seen) and (not len(ends) or ends[-1] < len(seen) - 1):
            ends = np.append(ends, len(seen))
        if len(ends):
            starts = np.concatenate([[0], ends[:-1] + 1])
            delimiters = _places(seen, self._delimiter)
            delimiters = delimiters[_outside(delimiters, quotes)]
            fields = np.searchsorted(delimiters, ends) - np.searchsorted(delimiters, starts) + 1
            has_return = (ends > starts) & (seen[ends - 1] == _RETURN)
            found.add(starts + at, ends + at - has_return, fields)
            at += int(ends[-1]) + 1
        return at, irregular is None

    def _first_irregular(self, seen: NDArray[np.uint8], quotes: _Indices, *, is_end: bool) -> int | None:
        """Return the place of the first quote or carriage return that makes a row irregular."""
        returns = _places(seen, _RETURN)
        alone = returns[_next(seen, returns) != _LINE_FEED]
        irregular = [alone[_outside(alone, quotes)]]
        opening, closing = quotes[0::2], quotes[1::2]
        before, after = seen[opening - 1], _next(seen, closing)
        fine = (before == self._delimiter) | (before == _LINE_FEED) | (before == _QUOTE) | (opening == 0)
        irregular.append(opening[~fine])
        fine = (after == self._delimiter) | (after == _LINE_FEED) | (after == _QUOTE) | (after == _RETURN)
        irregular.append(closing[~fine])
        if is_end and len(opening) > len(closing):
            irregular.append(opening[-1:])
        firsts = [int(places[0]) for places in irregular if len(places)]
        return min(firsts, default=None)

    def _scan_singles(self, found: "_Found", data: bytes, at: int, *, is_end: bool) -> tuple[int, bool]:
        """Add some rows from ``at`` on; return where the next begins, and whether it is cut off by the end."""
        for _ in range(_SINGLE_ROWS):
            match = self._row.match(data, at)
            if match is None and not is_end and self._open.match(data, at):
                return at, True
            end = data.find(b"\n", at) if match is None else data.find(b"\n", match.end())
            if end < 0 and not is_end:
                return at, True
            end = len(data) if end < 0 else end
            if match is None:
                found.add_malformed(at, end)
            else:
                found.add_one(at, match.end(), self._quoted.sub(b"", match[0]).count(self._delimiter) + 1)
            at = end + 1
            if at >= len(data):
                break
        return at, False


class _Found:
    """Rows as they are found, without lines that have nothing."""

    def __init__(self) -> None:
        self._pieces: list[tuple[_Indices, _Indices, _Indices]] = []
        self._rows = 0
        self._bad: BadRows = {}

    def add(self, starts: _Indices, ends: _Indices, fields: _Indices) -> None:
        """Add well-formed rows."""
        kept = ends > starts
        self._pieces.append((starts[kept], ends[kept], fields[kept]))
        self._rows += int(kept.sum())

    def add_one(self, start: int, end: int, fields: int) -> None:
        """Add one well-formed row."""
        self.add(np.array([start]), np.array([end]), np.array([fields]))

    def add_malformed(self, start: int, end: int) -> None:
        """Add one malformed row."""
        self._bad[self._rows] = _MALFORMED
        self.add_one(start, end, 0)

    def texts(self, data: bytes) -> RowTexts:
        """Return all rows."""
        if not self._pieces:
            return replace(NO_ROWS, data=data)
        starts, ends, fields = (np.concatenate(parts) for parts in zip(*self._pieces, strict=True))
        return RowTexts(data, starts, ends, fields, self._bad)


def _places(seen: NDArray[np.uint8], character: int) -> _Indices:
    return np.flatnonzero(seen == character)


def _outside(places: _Indices, quotes: _Indices) -> NDArray[np.bool_]:
    """Return which of ``places`` are outside of quotes."""
    outside: NDArray[np.bool_] = np.searchsorted(quotes, places) % 2 == 0
    return outside


def _next(seen: NDArray[np.uint8], places: _Indices) -> NDArray[np.uint8]:
    """Return the characters after ``places``; at the end, where it is not known yet, one that always fits."""
    following = np.full(len(places), _LINE_FEED, np.uint8)
    inside = places + 1 < len(seen)
    following[inside] = seen[places[inside] + 1]
    return following
