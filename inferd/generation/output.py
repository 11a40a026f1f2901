"""The text of a sequence, and where it stops."""

from collections.abc import Sequence

from inferd.generation.ports import TextCodec
from inferd.generation.request import GenerationRequest


class SequenceOutput:
    """Makes text of the tokens of one sequence until it stops. Tokens are not turned into text that nobody needs.

    The token that ends a sequence adds no text, and neither does a stop text.
    """

    def __init__(self, request: GenerationRequest, text: TextCodec | None) -> None:
        self._stop_ids = request.stops.token_ids
        self._wants_text = request.wants_text
        needed = text is not None and (request.wants_text or request.stops.texts)
        self._stream = text.stream(request.prompt) if text is not None and needed else None
        self._stop_texts = StopTexts(request.stops.texts) if request.stops.texts else None

    def add(self, token_id: int) -> tuple[str, bool]:
        """Return the text to give out now, and whether the sequence stops with this token; then it is all of it."""
        if token_id in self._stop_ids:
            return self.end(), True
        if self._stream is None:
            return "", False
        piece, stopped = self._until_stop(self._stream.add(token_id))
        return (piece if self._wants_text else ""), stopped

    def end(self) -> str:
        """Return the rest of the text, for a sequence that ends for another reason than `add`'s."""
        if self._stream is None:
            return ""
        piece, stopped = self._until_stop(self._stream.end())
        if not stopped and self._stop_texts is not None:
            piece += self._stop_texts.end()
        return piece if self._wants_text else ""

    def _until_stop(self, piece: str) -> tuple[str, bool]:
        if self._stop_texts is None:
            return piece, False
        text, stopped = self._stop_texts.add(piece)
        if stopped:
            self._stream = None  # What comes behind a stop text is not part of the answer.
        return text, stopped


class StopTexts:
    """Looks for the first of several texts, wherever the pieces begin and end, in one pass over the characters.

    What may become a stop text is held back. For each text, the number of its characters that the end of the text
    read so far matches is kept, and continued as Knuth, Morris and Pratt do.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._searches = [_Search(text) for text in texts]
        self._held = ""

    def add(self, piece: str) -> tuple[str, bool]:
        """Return what no longer can be part of a stop text, and whether one has been found behind it."""
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
        """Return what was held back."""
        held, self._held = self._held, ""
        return held


class _Search:
    """Where one text stands: ``matched`` characters of it are the end of what was read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.length = len(text)
        self.matched = 0
        #: For each number of matched characters, how many remain matched if the next one differs.
        self._shorter = [0] * (len(text) + 1)
        for end in range(1, len(text)):
            self._shorter[end + 1] = self._next(self._shorter[end], text[end])

    def add(self, character: str) -> bool:
        """Read one character; return whether the text is complete with it."""
        self.matched = self._next(self.matched, character)
        return self.matched == self.length

    def _next(self, matched: int, character: str) -> int:
        while matched and self._text[matched] != character:
            matched = self._shorter[matched]
        return matched + 1 if self._text[matched] == character else 0
