"""Shared by both clients: their arguments, their lifetime, and waiting until a server is ready."""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Generic, NoReturn, TypeVar, Unpack

import grpc

from inferd._generated.inferd.v1 import generation_pb2
from inferd.arguments import Metadata, MetadataLike, checked_flag, checked_metadata, checked_timeout, merged
from inferd.client import generation_messages, messages
from inferd.client.channel import MAX_MESSAGE_BYTES, ChannelOptions, RetryPolicy, channel_config
from inferd.client.errors import DeadlineExceeded, InferdError, NotFound, Overloaded, Unavailable
from inferd.client.generation import GENERATION_TIMEOUT_S, GenerationOptions, Messages, Prompt
from inferd.client.results import ModelInfo, ModelState
from inferd.client.stream import MESSAGE_BYTES, StreamLedger
from inferd.endpoint import TLS
from inferd.health_check import HealthStatus, decode_status

# A system call per call would take longer than all other checks together.
_process = os.getpid()


def _note_process() -> None:
    global _process  # noqa: PLW0603 - what it is about is global too
    _process = os.getpid()


os.register_at_fork(after_in_child=_note_process)


class Lifetime:
    """The process and event loop that a client belongs to, and whether it was closed."""

    def __init__(self) -> None:
        self._process = _process
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the client's."""
        return self._process != _process

    def check_process(self) -> None:
        """Raise RuntimeError in a fork, where gRPC would hang."""
        if self._process != _process:
            raise self._used_in_fork()

    def check(self) -> None:
        """As `check_process`; also raise RuntimeError after `close`."""
        if self._process != _process:
            raise self._used_in_fork()
        if self.closed:
            msg = "the client is closed"
            raise RuntimeError(msg)

    def check_loop(self) -> None:
        """As `check`; also raise RuntimeError in another event loop than that of the first call."""
        self.check()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                msg = "this client belongs to the event loop of its first call: make one in each event loop"
                raise RuntimeError(msg)
            self._loop = loop

    def _used_in_fork(self) -> RuntimeError:
        return RuntimeError(
            f"this client was made in process {self._process} and cannot be used in its fork {_process}: "
            "make one in each process"
        )


#: Temporary errors, after which a wait for readiness polls again.
TRANSIENT_ERRORS = (Unavailable, NotFound, DeadlineExceeded, Overloaded)

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_GROWTH = 1.5


class ReadinessWait:
    """A wait until a server or a model is ready: `left_s`, poll, `not_ready`, `pause_s`, repeat."""

    def __init__(self, timeout_s: float | None, clock: Callable[[], float] = monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._until = None if timeout_s is None else clock() + timeout_s
        self._pause_s = _FIRST_PAUSE_S
        self._why = ""
        self._error: InferdError | None = None

    def left_s(self) -> float | None:
        """Return the remaining time in seconds; None without a limit."""
        return None if self._until is None else max(0.0, self._until - self._clock())

    def not_ready(self, why: str | InferdError) -> None:
        """Record why it is not ready, unless only the time ran out."""
        if isinstance(why, DeadlineExceeded) and self._why:
            return
        self._why = str(why)
        self._error = why if isinstance(why, InferdError) else None

    def pause_s(self) -> float:
        """Return the pause before the next poll. Raises `DeadlineExceeded` if no time is left."""
        left_s = self.left_s()
        if left_s == 0:
            raise DeadlineExceeded(
                f"not ready within {self._timeout_s:g} s: {self._why}",
                request_id="" if self._error is None else self._error.request_id,
            ) from self._error
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * _GROWTH, _LONGEST_PAUSE_S)
        return pause_s if left_s is None else min(pause_s, left_s)


def why_server_not_ready(answer: bytes) -> str:
    """Return why the server is not ready, from its health response; empty if it is."""
    status = decode_status(answer)
    return "" if status is HealthStatus.SERVING else f"the server's health is {status.name}"


def why_model_not_ready(model: ModelInfo) -> str:
    """Return why a model does not accept requests; empty if it does."""
    if model.state in {ModelState.READY, ModelState.ON_DEMAND}:
        return ""
    return f'model "{model.name}" version {model.version} is {model.state}' + (model.reason and f": {model.reason}")


#: Parameters of a call: its timeout, its metadata, and whether it waits for a connection.
CallParams = tuple[float | None, Metadata, bool | None]

Interceptor = TypeVar("Interceptor")
#: An answer of a language model, as it comes.
Stream = TypeVar("Stream")


class BaseClient(ABC, Generic[Interceptor, Stream]):
    """Validates the arguments of a client, and merges those of each call with them."""

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        allow_insecure_token: bool = False,
        tls: TLS | None = None,
        timeout_s: float | None = 30.0,
        retry: RetryPolicy | None = RetryPolicy(),  # noqa: B008 - frozen, so it can be shared
        round_robin: bool = False,
        metadata: MetadataLike | None = None,
        max_receive_bytes: int = MAX_MESSAGE_BYTES,
        coalesce: bool = False,
        wait_for_ready: bool = False,
        options: ChannelOptions = (),
        interceptors: Sequence[Interceptor] = (),
        compression: grpc.Compression | None = None,
    ) -> None:
        self._config = channel_config(
            address,
            token=token,
            allow_insecure_token=allow_insecure_token,
            tls=tls,
            retry=retry,
            round_robin=round_robin,
            metadata=metadata,
            max_receive_bytes=max_receive_bytes,
            options=options,
            compression=compression,
        )
        self._timeout_s = checked_timeout(timeout_s)
        self._metadata = self._config.metadata
        # None instead of False, so that a service config may enable it.
        self._waits = checked_flag("wait_for_ready", wait_for_ready) or None
        self._interceptors = self._checked_interceptors(interceptors)
        self._lifetime = Lifetime()
        self._start(coalesce=checked_flag("coalesce", coalesce))

    def generate(
        self,
        model: str,
        prompt: Prompt,
        *,
        timeout_s: float | None = GENERATION_TIMEOUT_S,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Stream:
        """Continue ``prompt``, a text or token ids, and return the answer as it comes, an iterator of `Delta`.

        Its ``result()`` waits for the whole. Closing or dropping it cancels the request. ``timeout_s`` is for the whole
        answer; None is the client's. What came before an error stays valid, and nothing is retried after it; a request
        that the server rejects is, as in `infer`. ``options`` are those of `GenerationOptions`.
        """
        request = generation_messages.generate_request(model, generation_messages.text_or_ids(prompt), options)
        return self._generation(request, self._params(timeout_s, metadata, wait_for_ready))

    def chat(
        self,
        model: str,
        messages: Messages,
        *,
        timeout_s: float | None = GENERATION_TIMEOUT_S,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Stream:
        """Return the next message of a conversation as it comes; see `generate`.

        ``messages`` are mappings with ``role`` and ``content``, which the model's chat template renders, or the text of
        the user's only message.
        """
        request = generation_messages.generate_request(model, generation_messages.chat(messages), options)
        return self._generation(request, self._params(timeout_s, metadata, wait_for_ready))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__}: expected to be used where it was made, because it is a connection; it cannot be "
            "pickled or copied, make another one instead"
        )

    @abstractmethod
    def _start(self, *, coalesce: bool) -> None:
        """Create the channel and the call objects."""

    @abstractmethod
    def _generation(self, request: generation_pb2.GenerateRequest, params: CallParams) -> Stream:
        """Return an answer whose request is sent when its first delta is asked for."""

    @classmethod
    @abstractmethod
    def _interceptor_kinds(cls) -> tuple[type, ...]:
        """Return the accepted classes of interceptors."""

    def _params(
        self, timeout_s: float | None, metadata: MetadataLike | None, wait_for_ready: bool | None
    ) -> CallParams:
        """Return timeout, metadata and wait_for_ready of a call, by default the client's."""
        return (
            self._timeout_s if timeout_s is None else checked_timeout(timeout_s),
            self._metadata if metadata is None else merged(self._metadata, checked_metadata(metadata)),
            self._waits if wait_for_ready is None else checked_flag("wait_for_ready", wait_for_ready),
        )

    def _needs_own_call(self, fields: Sequence[bytes], params: CallParams) -> bool:
        """Whether a request needs a separate call: too large for the shared stream, or with its own parameters."""
        _, metadata, waits = params
        differs = metadata is not self._metadata or (waits or None) is not self._waits
        return differs or sum(map(len, fields)) > MESSAGE_BYTES

    def _ledger(
        self,
        model: str,
        outputs: Sequence[str],
        version: str,
        priority: int,
        timeout_s: float | None,
        *,
        ordered: bool,
    ) -> StreamLedger:
        """Create the ledger of a stream; its requests have their own timeouts."""
        writer = messages.request_writer(model, version, outputs, priority, checked_timeout(timeout_s))
        return StreamLedger(writer, ordered=checked_flag("ordered", ordered))

    def _checked_interceptors(self, interceptors: Iterable[Interceptor]) -> tuple[Interceptor, ...]:
        kinds = self._interceptor_kinds()
        if not isinstance(interceptors, Iterable):
            raise TypeError(f"interceptors: expected a sequence, got {type(interceptors).__name__}")
        checked = tuple(interceptors)
        for interceptor in checked:
            if not isinstance(interceptor, kinds):
                raise TypeError(
                    f"interceptors: expected {' or '.join(kind.__name__ for kind in kinds)}, "
                    f"got {type(interceptor).__name__}"
                )
        return checked
