"""A model's tokenizer and chat template, read from the files beside it."""

import logging
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from inferd.errors import InvalidInputError
from inferd.generation.chat import ChatTemplate, load_chat_template
from inferd.generation.decoding import TokenDecoder
from inferd.generation.ports import TextStream
from inferd.generation.request import TokenIds
from inferd.runtime.errors import ModelLoadError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_log = logging.getLogger("inferd.generation")


class ModelText:
    """Turns texts and chats into tokens, and tokens into text, as a model's files say. Used by any thread."""

    def __init__(self, tokenizer: "Tokenizer", template: ChatTemplate | None = None) -> None:
        # Files of tokenizers may tell to cut or fill up texts, as suits training.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._template = template
        self._decoder = TokenDecoder(tokenizer)
        self.token_bytes = self._decoder.token_bytes

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read the files in ``folder``. None without a tokenizer, or without the packages that read it.

        Raises `ModelLoadError` for files that are not what they should be.
        """
        path = folder / "tokenizer.json"
        if not path.exists():
            return None
        if find_spec("tokenizers") is None:
            _log.warning("%s: takes token ids only; for text, install inferd[text]", folder.name)
            return None
        # One text is encoded by one thread; others would be started for nothing.
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
        """Whether chats can be rendered."""
        return self._template is not None

    @property
    def vocabulary_size(self) -> int:
        """The number of tokens, which may be less than the logits of the model."""
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str, *, add_special_tokens: bool = True) -> TokenIds:
        """Return the tokens of ``text``, with those around it that the tokenizer adds.

        Other threads run meanwhile. Raises `InvalidInputError` for text that cannot be UTF-8.
        """
        try:
            # Unlike `encode`, it releases the interpreter lock, and is four times as fast with long texts.
            [encoding] = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        except TypeError:
            msg = "prompt: expected Unicode text, got half of a surrogate pair"
            raise InvalidInputError(msg, field="prompt") from None
        return np.array(encoding.ids, np.int64)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the text of a chat, up to where the model answers. Raises `InvalidInputError`."""
        if self._template is None:
            msg = "messages: the model has no chat template; send the prompt as text or token ids"
            raise InvalidInputError(msg, field="messages")
        return self._template.render(messages)

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> TokenIds:
        """Return the tokens of a chat. Raises `InvalidInputError`."""
        return self.encode_rendered(self.render(messages))

    def encode_rendered(self, text: str) -> TokenIds:
        """Return the tokens of what `render` returned: the template has put in the special ones."""
        return self.encode(text, add_special_tokens=False)

    def stream(self, prompt: TokenIds) -> TextStream:
        """Return a stream of what follows ``prompt``, without special tokens."""
        return self._decoder.stream(prompt)
