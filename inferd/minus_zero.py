"""The number -0 in JSON: parsers take it for the integer 0, but some encoders, such as Go's, write -0.0 so."""

import re

#: Finds it in a text, also within strings. Its other forms, such as -0.0, are parsed to floats.
MINUS_ZERO = re.compile(rb"-0(?![.\deE])(?<![eE]-0)")


class MinusZero(int):
    """The integer 0, which is -0.0 as a float."""

    def __float__(self) -> float:
        return -0.0


def parse_int(text: str) -> int:
    """Parse an integer of JSON; the ``parse_int`` of Python's parser."""
    return MinusZero() if text == "-0" else int(text)
