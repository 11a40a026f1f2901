"""``inferd generate``: the answer of a language model, printed as it comes."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inferd.cli.connection import Connection, open_client, usage_errors, with_connection
from inferd.cli.failures import CommandError, UsageError
from inferd.cli.output import print_json
from inferd.client import Client, Delta, Generated, Generation, GenerationOptions, TokenLogprob, TokenLogprobs
from inferd.client.generation import GENERATION_TIMEOUT_S
from inferd.generation_bounds import NUMBERS, stop_violation
from inferd.plain_text import escaped

if TYPE_CHECKING:
    from inferd.cli.rest.client import RestClient

EXAMPLES = (
    'inferd generate smollm2 "What is the capital of France?"',
    'inferd generate smollm2 --no-chat --max-tokens 32 "The capital of France is"',
    'inferd generate smollm2 --system "Answer in one word." --temperature 0.7 --seed 1 < question.txt',
    'inferd generate smollm2 "Count to five." --stop 4 --json',
)

#: More than any context holds.
_MAX_PROMPT_BYTES = 64 * 2**20

#: Kept on a terminal, unlike other control characters.
_LAYOUT = "\n\t"

_MOST_RANDOM = NUMBERS["temperature"].most
_PENALTIES = f"From {NUMBERS['frequency_penalty'].least} to {NUMBERS['frequency_penalty'].most}"

_sampling = partial(typer.Option, rich_help_panel="Sampling", show_default=False)
_end = partial(typer.Option, rich_help_panel="End of the answer", show_default=False)


@with_connection(timeout_s=GENERATION_TIMEOUT_S, timeout_help="Time limit of the whole answer, retries included.")
def generate(
    connection: Connection,
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)],
    prompt: Annotated[
        str,
        typer.Argument(
            metavar="[PROMPT]",
            help="The question, or the text to continue. Defaults to - for stdin.",
            show_default=False,
        ),
    ] = "-",
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--no-chat",
            help="Send PROMPT as a message, or as a text to continue. Defaults to a message if the model takes chats.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="A message of the system before PROMPT; implies --chat.", show_default=False),
    ] = None,
    max_tokens: Annotated[int | None, _end(metavar="N", help="Maximum number of tokens of the answer.")] = None,
    min_tokens: Annotated[int | None, _end(metavar="N", help="End no sooner than after this many tokens.")] = None,
    stop: Annotated[list[str] | None, _end("--stop", metavar="TEXT", help="End before this text. Repeatable.")] = None,
    ignore_end_tokens: Annotated[bool, _end("--ignore-end-tokens", help="Go on after the model's end tokens.")] = False,
    temperature: Annotated[
        float | None, _sampling(metavar="X", help=f"0 takes the most likely token, up to {_MOST_RANDOM}.")
    ] = None,
    top_k: Annotated[int | None, _sampling(metavar="N", help="Choose among the N most likely tokens; 0: all.")] = None,
    top_p: Annotated[
        float | None, _sampling(metavar="X", help="Choose among the most likely tokens with this probability together.")
    ] = None,
    min_p: Annotated[
        float | None, _sampling(metavar="X", help="Choose among tokens this likely in relation to the first.")
    ] = None,
    seed: Annotated[int | None, _sampling(metavar="N", help="Repeat the answer of an equal request and seed.")] = None,
    repetition_penalty: Annotated[
        float | None, _sampling(metavar="X", help="More than 1 makes tokens of prompt and answer less likely.")
    ] = None,
    frequency_penalty: Annotated[
        float | None, _sampling(metavar="X", help=f"{_PENALTIES}, for each time that a token was generated.")
    ] = None,
    presence_penalty: Annotated[
        float | None, _sampling(metavar="X", help=f"{_PENALTIES}, for tokens that were generated.")
    ] = None,
    version: Annotated[
        str,
        typer.Option(
            "--model-version",
            metavar="VERSION",
            help="Version or label of the model. Defaults to the highest.",
            show_default=False,
        ),
    ] = "",
    priority: Annotated[int, typer.Option(metavar="N", help="1 goes first; 0 is the model's default.")] = 0,
    logprobs: Annotated[
        int | None,
        typer.Option(metavar="N", help="With --json, log probabilities of tokens and N others.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each piece that comes.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Print tokens and times to stderr at the end.")] = False,
) -> None:
    """Let MODEL answer or continue a text, and print it as it comes.

    Ctrl-C ends the generation. On a terminal, control characters of the answer are escaped.
    """
    options: GenerationOptions = {
        "max_tokens": max_tokens,
        "min_tokens": min_tokens,
        "stop": stop or (),
        "ignore_end_tokens": ignore_end_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "seed": seed,
        "repetition_penalty": repetition_penalty,
        "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty,
        "version": version,
        "priority": priority,
        "logprobs": logprobs,
    }
    _check(options)
    if system is not None and chat is False:
        raise UsageError("--system: expected no --no-chat beside it")
    text = _stdin() if prompt == "-" else prompt
    with open_client(connection) as client:
        if chat is None:
            chat = system is not None or _has_chat_template(client, model, version)
        with usage_errors():
            answer = _start(client, model, text, system, options, chat=chat)
        with answer:
            first_s, whole_s = _print_answer(answer, as_json=as_json)
        if stats:
            _print_stats(answer.result(), first_s, whole_s)


def _check(options: Mapping[str, Any]) -> None:
    """Check what does not depend on the model before anything is sent. Raises `UsageError`."""
    violations = {
        name: bounds.violation(options[name]) for name, bounds in NUMBERS.items() if options[name] is not None
    }
    violations["stop"] = stop_violation(options["stop"])
    for name, text in violations.items():
        if text is not None:
            raise UsageError(f"--{name.replace('_', '-')}: {text}")


def _start(
    client: "Client | RestClient", model: str, text: str, system: str | None, options: GenerationOptions, *, chat: bool
) -> Generation:
    """Return the generation, whose request is sent when it is iterated over. The time limit is the client's."""
    if not chat:
        return client.generate(model, text, timeout_s=None, **options)
    messages = [] if system is None else [{"role": "system", "content": system}]
    return client.chat(model, [*messages, {"role": "user", "content": text}], timeout_s=None, **options)


def _has_chat_template(client: "Client | RestClient", model: str, version: str) -> bool:
    described = client.model(model, version=version, load=True)
    if described.generation is None:
        reason = f": {described.reason}" if described.reason else ""
        raise CommandError(f'model "{model}" is not known to generate text, its state is {described.state}{reason}')
    return described.generation.has_chat_template


def _stdin() -> str:
    """Return what is on stdin, without its last line end, which shells and editors add."""
    if sys.stdin.isatty():
        raise UsageError("PROMPT: expected a text, or one on stdin")
    content = sys.stdin.buffer.read(_MAX_PROMPT_BYTES + 1)
    if len(content) > _MAX_PROMPT_BYTES:
        raise UsageError(f"stdin: expected at most {_MAX_PROMPT_BYTES} bytes")
    try:
        return content.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"stdin: expected UTF-8, got byte {error.object[error.start]:#04x} at {error.start}") from None


def _print_answer(answer: Generation, *, as_json: bool) -> tuple[float, float]:
    """Print the deltas as they come; return the seconds to the first one and to the last."""
    started_at = monotonic()
    first_at = 0.0
    printed = "\n"
    try:
        for delta in answer:
            first_at = first_at or monotonic()
            if as_json:
                print_json(_as_json(delta))
            elif delta.text:
                printed = escaped(delta.text, keep=_LAYOUT) if sys.stdout.isatty() else delta.text
                sys.stdout.write(printed)
            sys.stdout.flush()
    finally:
        if not printed.endswith("\n"):
            print(flush=True)
    return first_at - started_at, monotonic() - started_at


def _as_json(delta: Delta) -> dict[str, Any]:
    content: dict[str, Any] = {"text": delta.text, "token_ids": delta.token_ids}
    if delta.logprobs:
        content["logprobs"] = [_logprobs_json(entry) for entry in delta.logprobs]
    if delta.finish_reason is not None:
        content["finish_reason"] = str(delta.finish_reason)
    if delta.usage is not None:
        content["usage"] = asdict(delta.usage)
    return content


def _logprobs_json(entry: TokenLogprobs) -> dict[str, Any]:
    return {**_logprob_json(entry.chosen), "top": [_logprob_json(each) for each in entry.top]}


def _logprob_json(entry: TokenLogprob) -> dict[str, Any]:
    token = entry.token.decode(errors="backslashreplace")
    return {"token_id": entry.token_id, "token": token, "logprob": entry.logprob}


def _print_stats(whole: Generated, first_s: float, whole_s: float) -> None:
    """Print the server's count of tokens, and the times that passed here."""
    usage = whole.usage
    # OpenAI's API does not say which version it was.
    version = whole.version and f" version {escaped(whole.version)}"
    print(
        f"{escaped(whole.model)}{version}: {usage.prompt_tokens} tokens in, "
        f"{usage.generated_tokens} out ({whole.finish_reason}), the first after {first_s:.3f} s, "
        f"{usage.generated_tokens / whole_s:.1f}/s over {whole_s:.2f} s",
        file=sys.stderr,
    )
