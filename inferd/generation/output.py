"""The text of a sequence, up to an end token or a stop string."""

from collections.abc import Sequence

from inferd.generation.ports import Detokenizer
from inferd.generation.request import GenerationRequest


class SequenceOutput:
    """Detokenizes one sequence until it stops; tokens are not detokenized if neither text nor stop strings are wanted.

    The text has neither the end token nor the stop string that ends the sequence.
    """

    def __init__(self, request: GenerationRequest, detokenizer: Detokenizer | None) -> None:
        self._stop_ids = request.stops.token_ids
        self._wants_text = request.wants_text
        needed = request.wants_text or request.stops.strings
        self._stream = detokenizer.stream(request.prompt) if detokenizer is not None and needed else None
        self._matcher = StopStringMatcher(request.stops.strings) if request.stops.strings else None

    def add(self, token_id: int) -> tuple[str, bool]:
        """Return the text that is complete with ``token_id``, and whether the sequence stops with it."""
        if token_id in self._stop_ids:
            return self.end(), True
        if self._stream is None:
            return "", False
        piece, stopped = self._until_stop(self._stream.add(token_id))
        return (piece if self._wants_text else ""), stopped

    def end(self) -> str:
        """Return the rest of the text, for a sequence that ends although `add` did not say that it stops."""
        if self._stream is None:
            return ""
        piece, stopped = self._until_stop(self._stream.end())
        if not stopped and self._matcher is not None:
            piece += self._matcher.end()
        return piece if self._wants_text else ""

    def _until_stop(self, piece: str) -> tuple[str, bool]:
        if self._matcher is None:
            return piece, False
        text, stopped = self._matcher.add(piece)
        if stopped:
            self._stream = None  # Text after a stop string is not part of the answer.
        return text, stopped


class StopStringMatcher:
    """Finds the first of several stop strings in one pass over text that comes in pieces.

    Text that may be the beginning of a stop string is held back. The search is that of Knuth, Morris and Pratt, with a
    state for each string.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._searches = [_StringSearch(string) for string in strings]
        self._held = ""

    def add(self, piece: str) -> tuple[str, bool]:
        """Return the text before a possible stop string, and whether a stop string is complete."""
        self._held += piece
        for read in range(len(self._held) - len(piece), len(self._held)):
            found = [search.length for search in self._searches if search.add(self._held[read])]
            if found:
                return self._held[: read + 1 - max(found)], True
        keep = max((search.matched for search in self._searches), default=0)
        given = self._held[: len(self._held) - keep]
        self._held = self._held[len(given) :]
        return given, False

    def end(self) -> str:
        """Return the text that was held back."""
        held, self._held = self._held, ""
        return held


class _StringSearch:
    """Search for one string: the text read so far ends with its first ``matched`` characters."""

    def __init__(self, string: str) -> None:
        self._string = string
        self.length = len(string)
        self.matched = 0
        # For each number of matched characters, how many remain matched if the next one differs.
        self._shorter = [0] * (len(string) + 1)
        for end in range(1, len(string)):
            self._shorter[end + 1] = self._next(self._shorter[end], string[end])

    def add(self, character: str) -> bool:
        """Read one character; return whether the string is complete with it."""
        self.matched = self._next(self.matched, character)
        return self.matched == self.length

    def _next(self, matched: int, character: str) -> int:
        while matched and self._string[matched] != character:
            matched = self._shorter[matched]
        return matched + 1 if self._string[matched] == character else 0
