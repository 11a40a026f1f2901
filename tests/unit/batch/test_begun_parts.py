"""Parts in which processes have ended: how often, what is said, and which run in a process of their own."""

import logging

import pytest

from inferd.batch.begun_parts import MEASURING, BegunParts, find_suspects, may_measure
from inferd.batch.output_folder import LocalFolder
from inferd.batch.plan import cut

_PARTS = cut([[10], [25]], 10)
_NAMES = ["a.csv", "b.csv"]


@pytest.fixture
def begun(tmp_path):
    """Return what process 0 notes of its parts."""
    return lambda: BegunParts(LocalFolder(str(tmp_path)), "work/", 0)


def _killed(begun, *parts):
    """Run ``parts`` in a process that is killed in the last of them."""
    process = begun()
    process.ends(range(-1, 10))
    for part in parts:
        process.begin(part)
        if part != parts[-1]:
            process.finish(part)


def _find(begun, caplog, *, can_isolate=True):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        found = find_suspects(begun(), _PARTS, _NAMES, can_isolate=can_isolate)
    return found, caplog.messages


def test_part_in_which_processes_end(begun, caplog):
    """It is named at first, with its rows, and then run apart; parts that were done before are not meant."""
    assert _find(begun, caplog) == (frozenset(), [])
    _killed(begun, 1, 2)
    where = "part 2 (rows 8 to 15 of b.csv)"
    text = (
        f"an earlier run ended abruptly in {where}: it was killed, or a row ended it; "
        "if it happens again, these rows run in a process of their own"
    )
    assert _find(begun, caplog) == (frozenset(), [text])
    _killed(begun, 2)
    text = (
        f"earlier runs ended abruptly 2 times in {where}: these rows run last, in a process of their own; "
        "those that end it become error rows"
    )
    assert _find(begun, caplog) == (frozenset({2}), [text])


def test_server_runs_nothing_apart(begun, caplog):
    """What can be done there is said instead."""
    _killed(begun, 0)
    _killed(begun, 0)
    found, [text] = _find(begun, caplog, can_isolate=False)
    assert not found
    assert text.endswith("if it happens again, leave the row out with --where, into another OUTPUT")


def test_run_that_ends_by_itself_ends_in_no_part(begun, caplog):
    """Whether it is stopped or fails."""
    _killed(begun, 0)
    process = begun()
    process.ends(range(10))
    process.begin(0)
    with pytest.raises(KeyError), process.running():
        raise KeyError
    assert _find(begun, caplog) == (frozenset(), [])


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"x": 1}', b'{"1": null}'])
def test_damaged_notes_say_nothing(begun, caplog, tmp_path, content):
    """They are no reason to fail."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work/begun-0.json").write_bytes(content)
    assert _find(begun, caplog) == (frozenset(), [])


def test_measuring_that_ends_processes_is_left_out(begun, caplog):
    """After the second time; sizes can be given instead."""
    for times in range(3):
        assert may_measure(begun()) == (times < 2)
        _killed(begun, MEASURING)
    assert "--batch-rows, --look-ahead and --part-rows set them" in caplog.text
