"""The text of a sequence, up to an end token or a stop string."""

import pytest

from inferd.generation.output import SequenceOutput
from tests.unit.generation.generation_requests import request


class Words:
    """A tokenizer whose tokens are words."""

    def __init__(self, *words):
        self.words = words
        self.prompts = []

    def stream(self, prompt):
        self.prompts.append(prompt.tolist())
        return Pieces(self.words)

    def token_bytes(self, token_id):
        return self.words[token_id].encode()


class Pieces:
    """Gives a word out with the next one, as incomplete characters are."""

    def __init__(self, words):
        self._words = words
        self._left = ""

    def add(self, token_id):
        left, self._left = self._left, self._words[token_id]
        return left

    def end(self):
        left, self._left = self._left, ""
        return left


def _output(words, **wanted):
    return SequenceOutput(request(**wanted), Words(*words))


def test_text_comes_as_it_is_complete_and_the_rest_at_the_end():
    output = _output(["Par", "is", "."])
    assert [output.add(token) for token in range(3)] == [("", False), ("Par", False), ("is", False)]
    assert (output.end(), output.end()) == (".", "")


def test_stream_knows_the_prompt():
    words = Words("a")
    SequenceOutput(request(prompt=(7, 8)), words)
    assert words.prompts == [[7, 8]]


def test_end_token_adds_no_text_and_lets_out_the_rest():
    output = _output(["Par", "is", "</s>"], token_ids=(2,), strings=("isle",))
    assert [output.add(token) for token in range(3)] == [("", False), ("Par", False), ("is", True)]


def test_stop_string_across_tokens_cuts_the_text():
    output = _output(["Paris", " St", "O", "P now"], strings=("STOP", "OP"))
    assert [output.add(token) for token in range(4)] == [("", False), ("Paris", False), (" St", False), ("", False)]
    assert output.end() == ""


def test_stop_string_ends_the_sequence():
    output = _output(["one", " END two", " three"], strings=(" END",))
    assert [output.add(token) for token in range(3)] == [("", False), ("one", False), ("", True)]


def test_gives_out_at_the_end_text_that_was_held_back():
    output = _output(["one", " E", "N"], strings=(" END",))
    assert [output.add(token) for token in range(3)] == [("", False), ("one", False), ("", False)]
    assert output.end() == " EN"


def test_stop_string_ends_a_sequence_without_wanted_text():
    output = _output(["one", " END", " two"], strings=(" END",), wants_text=False)
    assert [output.add(token) for token in range(3)] == [("", False), ("", False), ("", True)]
    assert output.end() == ""


@pytest.mark.parametrize("wanted", [{"wants_text": False}, {"wants_text": False, "token_ids": (1,)}])
def test_makes_no_text_that_is_not_needed(wanted):
    words = Words("a", "b")
    output = SequenceOutput(request(**wanted), words)
    assert output.add(0) == ("", False)
    assert output.add(1) == ("", "token_ids" in wanted)
    assert (output.end(), words.prompts) == ("", [])


def test_without_a_tokenizer_there_are_end_tokens_only():
    output = SequenceOutput(request(token_ids=(1,)), None)
    assert [output.add(0), output.add(1)] == [("", False), ("", True)]
    assert output.end() == ""
