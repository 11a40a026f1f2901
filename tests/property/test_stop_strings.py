"""Stop strings are found wherever the pieces of a text begin and end, and no more is held back than may become one."""

from hypothesis import given
from hypothesis import strategies as st

from inferd.generation.output import StopStringMatcher

_LETTERS = "ab日"
_STOPS = st.lists(st.text(_LETTERS, min_size=1, max_size=5), min_size=1, max_size=4)
_PIECES = st.lists(st.text(_LETTERS, max_size=6), max_size=12)


def _expected(text: str, stops: list[str]) -> tuple[str, bool]:
    """Return the text before the first complete stop string; of those that end there, before the longest."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


@given(_PIECES, _STOPS)
def test_text_ends_before_the_first_stop_string(pieces: list[str], stops: list[str]) -> None:
    search, given_out, stopped = StopStringMatcher(stops), "", False
    for piece in pieces:
        text, stopped = search.add(piece)
        given_out += text
        if stopped:
            break
    if not stopped:
        given_out += search.end()
    assert (given_out, stopped) == _expected("".join(pieces), stops)


@given(_PIECES, _STOPS)
def test_holds_back_what_may_become_a_stop_string_and_no_more(pieces: list[str], stops: list[str]) -> None:
    search, read, given_out = StopStringMatcher(stops), "", ""
    for piece in pieces:
        text, stopped = search.add(piece)
        if stopped:
            return
        read, given_out = read + piece, given_out + text
        held = max((n for stop in stops for n in range(1, len(stop)) if read.endswith(stop[:n])), default=0)
        assert given_out == read[: len(read) - held]
