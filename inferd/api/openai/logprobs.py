"""Write log probabilities in the forms of completions and of chats."""

from collections.abc import Sequence
from typing import Any

from inferd.generation.request import Candidate, TokenLogprobs

Json = dict[str, Any]


def of_chat(tokens: Sequence[TokenLogprobs]) -> Json:
    """Return the log probabilities of a piece of a chat's answer."""
    return {
        "content": [{**_chat_token(each.chosen), "top_logprobs": list(map(_chat_token, each.top))} for each in tokens],
        "refusal": None,
    }


def of_completion(tokens: Sequence[TokenLogprobs], offset: int, first: Candidate | None = None) -> tuple[Json, int]:
    """Return the log probabilities of a piece of text that begins at ``offset`` in characters, and the end offset.

    ``first`` is the first token of a prompt, which has no log probability. The text of tokens that are not UTF-8 on
    their own is approximate, and so are the offsets after them.
    """
    form: Json = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    nothing = [] if first is None else [(first, None, None)]
    for token, logprob, top in [*nothing, *((each.chosen, each.chosen.logprob, _by_text(each)) for each in tokens)]:
        form["tokens"].append(_readable(token))
        form["token_logprobs"].append(logprob)
        form["top_logprobs"].append(top)
        form["text_offset"].append(offset)
        offset += len(token.text.decode(errors="replace"))
    return form, offset


def _chat_token(candidate: Candidate) -> Json:
    text = candidate.text
    return {"token": text.decode(errors="replace"), "logprob": candidate.logprob, "bytes": list(text)}


def _by_text(token: TokenLogprobs) -> dict[str, float]:
    """Return the most likely tokens by their text, and the chosen one."""
    found: dict[str, float] = {}
    for candidate in (*token.top, token.chosen):
        found.setdefault(_readable(candidate), candidate.logprob)
    return found


def _readable(candidate: Candidate) -> str:
    """Return the text of a token, or its bytes in OpenAI's form if they are not UTF-8, so that tokens stay distinct.

    Tokens without a text, as those of a model without a tokenizer, are written as in vLLM.
    """
    text = candidate.text
    if not text:
        return f"token_id:{candidate.token_id}"
    try:
        return text.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in text)
