"""The text of a sequence, and where it stops."""

from inferd.generation.ports import TextCodec
from inferd.generation.request import GenerationRequest
from inferd.generation.stop_texts import StopTexts


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
