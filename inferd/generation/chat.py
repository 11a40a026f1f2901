"""Renders the messages of a chat to a prompt, by the model's chat template."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from inferd.errors import InvalidInputError
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.model_folder import read_model_text

_log = logging.getLogger("inferd.generation")

_CONFIG, _TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
#: tokenizer_config.json lists added tokens, of which there may be thousands.
_MAX_FILE_BYTES = 32 * 1024 * 1024
#: Limits of a rendered chat, so that a template cannot fill the memory: a multiple of its messages, and characters in
#: addition.
_MAX_REPETITIONS, _MAX_EXTRA_CHARACTERS = 4, 256 * 1024
#: Roles of short chats; some templates take no system message.
_SOME_CHATS = (("user",), ("system", "user"), ("user", "assistant", "user"))
#: Tokens that templates may write around messages, by their names in tokenizer_config.json.
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ChatTemplate:
    """A chat template in the form of Hugging Face's tokenizers. Used by any thread."""

    def __init__(
        self, source: str, special_tokens: Mapping[str, str], now: Callable[[], datetime] = datetime.now
    ) -> None:
        """Compile ``source``. Raises ``jinja2.TemplateSyntaxError``."""
        from inferd.generation.chat_sandbox import RefusedError, compile_template  # noqa: PLC0415

        self._template = compile_template(source, now)
        self._variables = {"tools": None, "documents": None, "add_generation_prompt": True, **special_tokens}
        self._refused_error = RefusedError

    def frame(self) -> str:
        """Return what the template writes around messages, of all roles that it takes."""
        texts = []
        for roles in _SOME_CHATS:
            with suppress(InvalidInputError):
                texts.append(self.render([{"role": role, "content": "a"} for role in roles]))
        return "".join(texts)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the prompt text of ``messages``, up to the beginning of the answer.

        Raises `InvalidInputError`, with the template's own message if the template rejects them.
        """
        left = _MAX_EXTRA_CHARACTERS + _MAX_REPETITIONS * sum(len(text) for each in messages for text in each.values())
        pieces = []
        try:
            for piece in self._template.generate(self._variables, messages=[dict(each) for each in messages]):
                pieces.append(piece)
                left -= len(piece)
                if left < 0:
                    break
        except self._refused_error as error:
            raise _invalid(f"the model's chat template does not take them: {error}") from None
        except Exception as error:  # noqa: BLE001  (templates are programs; they fail in any way)
            _log.info("chat template: %s: %s", type(error).__name__, error)
            raise _invalid("the model's chat template fails on them") from None
        if left < 0:
            raise _invalid("the model's chat template writes far more than they have")
        return "".join(pieces)


def load_chat_template(folder: Path) -> ChatTemplate | None:
    """Load the chat template of the model in ``folder``; return None if it has none.

    A template that does not compile, or for which Jinja is missing, is logged and ignored, as the model can be served
    without chats. Raises `ModelLoadError` for files that cannot be read.
    """
    config = _read_config(folder)
    file = folder / _TEMPLATE
    source = read_model_text(file, max_bytes=_MAX_FILE_BYTES) if file.exists() else _template_in(config)
    if source is None:
        return None
    if find_spec("jinja2") is None:
        _log.warning("%s: takes no chats; for those, install inferd[text]", folder.name)
        return None
    from jinja2 import TemplateSyntaxError  # noqa: PLC0415  (not every server has Jinja)

    try:
        return ChatTemplate(source, _special_tokens(config))
    except TemplateSyntaxError as error:
        _log.warning("%s: takes no chats: chat template, line %d: %s", folder.name, error.lineno, error.message)
        return None


def _template_in(config: Mapping[str, Any]) -> str | None:
    """Return the template in ``config``: of several named ones the default, or the only one."""
    found = config.get("chat_template")
    if isinstance(found, list):
        by_name = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = by_name.get("default") or (next(iter(by_name.values())) if len(by_name) == 1 else None)
    return found if isinstance(found, str) else None


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens in ``config`` by name; each is there as a string, or as an object with ``content``."""
    tokens = {}
    for name in _SPECIAL_TOKENS:
        token = config.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str):
            tokens[name] = text
    return tokens


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / _CONFIG
    if not path.exists():
        return {}
    try:
        config = json.loads(read_model_text(path, max_bytes=_MAX_FILE_BYTES))
    except ValueError as error:
        msg = f"{_CONFIG}: expected JSON: {error}"
        raise ModelLoadError(msg) from error
    if not isinstance(config, dict):
        msg = f"{_CONFIG}: expected an object, got {type(config).__name__}"
        raise ModelLoadError(msg)
    return config


def _invalid(problem: str) -> InvalidInputError:
    return InvalidInputError(f"messages: {problem}", field="messages")
