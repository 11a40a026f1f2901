"""Error texts of rejected calls."""

import pytest

from inferd.rpc.call_ends import unknown_method

SERVED = {"x.Y": ["A", "B"], "x.Z": []}


@pytest.mark.parametrize(
    ("name", "details"),
    [
        ("/x.Y/C", 'unknown method "C" of service "x.Y", which has A, B'),
        ("/x.W/C", 'unknown service "x.W", asked for method "C"; known services are x.Y, x.Z'),
        ("/C", 'expected a method as /SERVICE/METHOD, got "/C"'),
        ("", 'expected a method as /SERVICE/METHOD, got ""'),
        ("/x.Y/", 'expected a method as /SERVICE/METHOD, got "/x.Y/"'),
        ("/x.Y/\x1b[2J", 'unknown method "\\x1b[2J" of service "x.Y", which has A, B'),
        ("/x.Y/\u4e2d\u202e", 'unknown method "\\u4e2d\\u202e" of service "x.Y", which has A, B'),
    ],
)
def test_names_an_unknown_method(name: str, details: str) -> None:
    """With the known ones, and without control characters."""
    assert unknown_method(name, SERVED).details == details


@pytest.mark.parametrize("character", ["x", "%", "\u4e2d", "\U000e0001"])
def test_error_text_is_short(character: str) -> None:
    """It must fit into a status, also with very many services."""
    served = {f"service{number}": [] for number in range(1000)}
    details = unknown_method(f"/{character * 10_000}/{character * 10_000}", served).details
    assert details.replace("…", "").isascii()
    assert len(details) < 400
