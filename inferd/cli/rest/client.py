"""A client over HTTP with what the commands use of `inferd.client.Client`, and its results."""

import base64
import json
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, Unpack

from google.protobuf.json_format import ParseDict, ParseError
from numpy.typing import ArrayLike

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd._generated.inferd.v1.generation_pb2 import GenerateRequest, GenerateResponse
from inferd.arguments import checked_timeout
from inferd.cli.rest.address import HttpAddress
from inferd.cli.rest.errors import RestError
from inferd.cli.rest.generation import CHAT_PATH, TEXT_PATH, request_body, responses
from inferd.cli.rest.tensors import read_answer, write_request
from inferd.cli.rest.transport import Answer, StreamedAnswer, Transport, unexpected_answer
from inferd.client import (
    Generation,
    GenerationOptions,
    IndexEntry,
    Messages,
    ModelInfo,
    ModelState,
    Result,
    RetryPolicy,
    Routing,
    Timing,
    generation_messages,
)
from inferd.client.generation_messages import Collected
from inferd.client.messages import model_info

_MODELS = ("v2", "models")
_REPOSITORY = ("v2", "repository")
_JSON = {"Content-Type": "application/json"}
_TIMING_HEADER = "inferd-timing"

_Answer = TypeVar("_Answer", Answer, StreamedAnswer)


class RestClient:
    """A connection to one server. Failed requests raise `RestError`; rejected ones are repeated as over gRPC."""

    def __init__(
        self,
        address: HttpAddress,
        *,
        timeout_s: float | None,
        retry: RetryPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raise `OSError` or `ValueError` for certificates that cannot be used."""
        self._transport = Transport(address)
        self._timeout_s = checked_timeout(timeout_s)
        self._retry = retry or RetryPolicy()
        self._sleep = sleep
        self._clock = clock

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.__exit__(kind, error, trace)

    def infer(self, model: str, inputs: Mapping[str, ArrayLike], *, outputs: Sequence[str], version: str) -> Result:
        """Run ``model`` once, with tensors in binary. REST does not say how large the batch was: 0 rows."""
        body, headers = write_request(inputs, outputs)
        answer = self._call("POST", (*_of_model(model, version), "infer"), body, {**headers, _TIMING_HEADER: "1"})
        content, arrays = read_answer(answer.headers, answer.body)
        durations_s = _durations_s(answer.headers.get(_TIMING_HEADER, ""))
        return Result(
            outputs=arrays,
            model=str(content.get("model_name", model)),
            version=str(content.get("model_version", "")),
            request_id=str(content.get("id", "")),
            timing=Timing(queue_s=durations_s.get("queue", 0.0), run_s=durations_s.get("run", 0.0), batch_rows=0),
        )

    def generate(
        self, model: str, prompt: str, *, timeout_s: float | None, **options: Unpack[GenerationOptions]
    ) -> Generation:
        """Continue a text by OpenAI's API."""
        request = generation_messages.generate_request(model, generation_messages.text_or_ids(prompt), options)
        return self._generation(TEXT_PATH, request, timeout_s)

    def chat(
        self, model: str, messages: Messages, *, timeout_s: float | None, **options: Unpack[GenerationOptions]
    ) -> Generation:
        """Continue a conversation by OpenAI's API."""
        request = generation_messages.generate_request(model, generation_messages.chat(messages), options)
        return self._generation(CHAT_PATH, request, timeout_s)

    def models(self) -> list[ModelInfo]:
        """Describe all models."""
        return self._described({})

    def model(self, name: str, *, version: str, load: bool) -> ModelInfo:
        """Describe one version; ``load`` waits for a model that is loaded on demand."""
        if load:
            # Metadata are what loads it.
            self._call("GET", _of_model(name, version))
        return self._described({"model": name, "version": version})[0]

    def load_model(
        self,
        name: str,
        *,
        version: str,
        config: str | None,
        files: Mapping[str, bytes],
        timeout_s: float | None,
    ) -> list[ModelInfo]:
        """Load a model by Triton's repository extension, which names no versions."""
        if version:
            _refuse("a version is loaded by itself", "leave --version out")
        parameters: dict[str, str] = {} if config is None else {"config": config}
        parameters |= {f"file:{path}": base64.b64encode(content).decode() for path, content in files.items()}
        content = {"parameters": parameters} if parameters else {}
        self._post((*_REPOSITORY, "models", name, "load"), content, timeout_s)
        return self._described({"model": name})

    def unload_model(self, name: str, *, version: str, timeout_s: float | None) -> None:
        """Unload a model by Triton's repository extension, which names no versions."""
        if version:
            _refuse("a version is unloaded by itself", "leave --version out")
        self._post((*_REPOSITORY, "models", name, "unload"), {}, timeout_s)

    def repository_index(self, *, ready: bool) -> list[IndexEntry]:
        """Return the index of the repositories, with Triton's names of the states."""
        answer = self._post((*_REPOSITORY, "index"), {"ready": True} if ready else {})
        try:
            return [
                IndexEntry(
                    name=each["name"],
                    version=str(each.get("version", "")),
                    state=ModelState(each.get("state") or ModelState.UNAVAILABLE),
                    reason=each.get("reason", ""),
                )
                for each in answer.json()
            ]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise unexpected_answer(200, answer.headers) from None

    def routing(self, name: str) -> NoReturn:
        """Refuse: REST has no routing."""
        _refuse(f'the routing of model "{name}" is read and changed', "for labels, the status page")

    def set_routing(self, name: str, routing: Routing) -> NoReturn:  # noqa: ARG002  (as the other client)
        """Refuse as `routing`, which commands call first unless they clear all."""
        self.routing(name)

    def _generation(self, path: Sequence[str], request: GenerateRequest, timeout_s: float | None) -> Generation:
        if request.HasField("logprobs"):
            _refuse("log probabilities are given", "leave --logprobs out")
        collected = Collected(request.request_id)
        return Generation(self._responses(path, json.dumps(request_body(request)).encode(), timeout_s), collected)

    def _responses(
        self, path: Sequence[str], body: bytes, timeout_s: float | None
    ) -> Generator[GenerateResponse, None, None]:
        send = partial(self._transport.stream, "POST", path, body=body, headers=_JSON)
        answer = self._accepted(send, timeout_s)
        with closing(answer.parts):
            yield from responses(answer.parts, answer.headers.get("x-request-id", ""))

    def _described(self, query: Mapping[str, str]) -> list[ModelInfo]:
        answer = self._call("GET", _MODELS, query={"details": "true", **query})
        try:
            return [model_info(ParseDict(_readable(each), pb.Model(), True)) for each in answer.json()["models"]]
        except (KeyError, TypeError, ValueError, AttributeError, ParseError):
            raise unexpected_answer(200, answer.headers) from None

    def _post(self, path: Sequence[str], content: object, timeout_s: float | None = None) -> Answer:
        return self._call("POST", path, json.dumps(content).encode(), _JSON, timeout_s=timeout_s)

    def _call(
        self,
        verb: str,
        path: Sequence[str],
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """Send a request, and again if it was rejected, within the time limit of all attempts. Raises `RestError`."""
        return self._accepted(
            partial(self._transport.request, verb, path, body=body, headers=headers, query=query), timeout_s
        )

    def _accepted(self, send: Callable[..., _Answer], timeout_s: float | None) -> _Answer:
        """Return what ``send`` returns in one of several attempts."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = None if limit_s is None else self._clock() + limit_s
        for delay_s in (*self._delays_s(), None):
            left_s = None if deadline is None else deadline - self._clock()
            try:
                return send(timeout_s=left_s)
            except RestError as error:
                wait_s = delay_s if error.retry_after_s is None else error.retry_after_s
                if delay_s is None or wait_s is None or not error.may_retry:
                    raise
                if deadline is not None and self._clock() + wait_s >= deadline:
                    raise
                self._sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def _delays_s(self) -> Iterator[float]:
        """Yield the waits between attempts, with a random part, so that callers who were rejected together separate."""
        retry = self._retry
        delay_s = retry.initial_backoff_s
        for _ in range(retry.max_attempts - 1):
            yield delay_s * random.uniform(0.8, 1.2)  # noqa: S311  (no secret)
            delay_s = min(delay_s * retry.multiplier, retry.max_backoff_s)


def _of_model(name: str, version: str) -> tuple[str, ...]:
    return (*_MODELS, name, "versions", version) if version else (*_MODELS, name)


def _readable(value: Any) -> Any:  # noqa: ANN401  (any JSON)
    """Return JSON of a message for protobuf, which takes durations as text."""
    if isinstance(value, list):
        return [_readable(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"seconds", "nanos"}:
        return f"{value['seconds'] + value['nanos'] / 1e9:.9f}s"
    return {name: _readable(each) for name, each in value.items()}


def _durations_s(timing: str) -> dict[str, float]:
    """Return the seconds of each stage of a Server-Timing: ``queue;dur=1.2, run;dur=3.4``, in milliseconds."""
    stages = (stage.strip().partition(";dur=") for stage in timing.split(","))
    return {name: float(milliseconds) / 1000 for name, _, milliseconds in stages if milliseconds}


def _refuse(what: str, instead: str) -> NoReturn:
    """Raise the error of what the REST form lacks."""
    msg = f"{what} over gRPC only: use the address of gRPC (HOST:8001), or {instead}"
    raise ValueError(msg)
