"""A model's tokenizer and chat template, loaded from the files beside it."""

import logging
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from inferd.errors import InvalidInputError
from inferd.generation.chat import ChatTemplate, load_chat_template
from inferd.generation.detokenizer import HuggingFaceDetokenizer
from inferd.generation.literal_texts import LiteralTexts, has_marks, unmarked
from inferd.generation.ports import TextStream
from inferd.generation.request import TokenIds
from inferd.runtime.errors import ModelLoadError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_log = logging.getLogger("inferd.generation")


class ModelText:
    """Tokenizes texts and chats, and detokenizes answers (a `Detokenizer`). Used by any thread."""

    def __init__(self, tokenizer: "Tokenizer", template: ChatTemplate | None = None) -> None:
        # Tokenizer files may ask for truncation and padding, which are for training.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._template = template
        self._literal_texts = LiteralTexts(tokenizer, "" if template is None else template.frame())
        self._detokenizer = HuggingFaceDetokenizer(tokenizer)
        self.token_bytes = self._detokenizer.token_bytes

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Load the files in ``folder``; return None without a tokenizer, or without the package that reads it.

        Raises `ModelLoadError` for invalid files.
        """
        path = folder / "tokenizer.json"
        if not path.exists():
            return None
        if find_spec("tokenizers") is None:
            _log.warning("%s: takes token ids only; for text, install inferd[text]", folder.name)
            return None
        # Texts are encoded one at a time, by one thread; the library would start a pool.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from tokenizers import Tokenizer  # noqa: PLC0415  (not every server has it)

        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library has no classes of errors
            msg = f"tokenizer.json: expected the file of a tokenizer: {error}"
            raise ModelLoadError(msg) from error
        return cls(tokenizer, load_chat_template(folder))

    @property
    def has_chat_template(self) -> bool:
        """True if `render` is supported."""
        return self._template is not None

    @property
    def vocabulary_size(self) -> int:
        """The number of tokens of the tokenizer; the model's rows of logits may be longer."""
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str, *, add_special_tokens: bool = True) -> TokenIds:
        """Return the token ids of ``text``, [tokens] of int64, by default with the special ones of the tokenizer.

        Releases the interpreter lock. Raises `InvalidInputError` for text that cannot be encoded as UTF-8.
        """
        try:
            # Unlike `encode`, it releases the interpreter lock; it is four times as fast with long texts.
            [encoding] = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        except TypeError:
            msg = "prompt: expected Unicode text, got half of a surrogate pair"
            raise InvalidInputError(msg, field="prompt") from None
        return np.array(encoding.ids, np.int64)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the prompt text of a chat, up to the beginning of the answer, for `encode_rendered` and `unmarked`.

        Raises `InvalidInputError` without a chat template, or if it rejects the messages.
        """
        if self._template is None:
            msg = "messages: the model has no chat template; send the prompt as text or token ids"
            raise InvalidInputError(msg, field="messages")
        try:
            return self._template.render(self._literal_texts.marked(messages))
        except InvalidInputError as error:
            raise InvalidInputError(unmarked(error.message), field=error.field) from None

    def encode_rendered(self, text: str) -> TokenIds:
        """Return the token ids of what `render` returned, to which the template has added the special tokens."""
        if has_marks(text):
            return np.array(self._literal_texts.encode(text), np.int64)
        return self.encode(text, add_special_tokens=False)

    def stream(self, prompt: TokenIds) -> TextStream:
        """See `Detokenizer.stream`; the text leaves out special tokens."""
        return self._detokenizer.stream(prompt)
