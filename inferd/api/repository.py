"""Calls that list, load and unload models, in all protocols.

The manager of the models does what a call asks for, and says when it is done: a call holds no thread while a model is
loaded or unloaded.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, TypeVar

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from inferd.api.admission import ModelView
from inferd.api.handler_resources import DRAINING
from inferd.api.large_messages import LargeMessages
from inferd.api.request_decoder import LARGE_BYTES
from inferd.api.status import StatusTable, abort
from inferd.api.unary import run_guarded
from inferd.api.wire_scanner import DEFAULT_LIMITS, WireScanner, parse
from inferd.call_context import ANONYMOUS, log_fields
from inferd.errors import (
    InvalidInputError,
    ModelNotFoundError,
    ModelUnavailableError,
    OverloadedError,
    ServingError,
)
from inferd.models.load_override import LoadOverride
from inferd.models.manager import IndexEntry, ModelManager
from inferd.models.registry import ModelRegistry
from inferd.models.states import ModelState
from inferd.plain_text import clipped, escaped
from inferd.rpc import UnaryCall
from inferd.rpc.worker_pool import WorkerPool
from inferd.security.authorization.methods import MethodKind

_log = logging.getLogger(__name__)

Query = TypeVar("Query", bound=Message)
#: A message as a protocol brings it.
Incoming = TypeVar("Incoming", bound=Sized)

#: Calls that may wait for a search, and about the time that one takes.
_MAX_SEARCHES = 64
_RETRY_AFTER_S = 0.1

#: The longest name of a directory or file.
_MAX_NAME_BYTES = 255

_VERSION = re.compile(r"[0-9]{1,18}")
_FILE = re.compile(r"(?:0|[1-9][0-9]{0,17})/(?P<name>[^./][^/]*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A request to load or unload ``version`` of ``model``; the manager chooses the versions if it is empty."""

    model: str
    version: str = ""
    override: LoadOverride | None = None


#: Gives a load up; no effect if it has ended.
Cancel = Callable[[], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandMethod(Generic[Incoming]):
    """A method that loads or unloads a model.

    ``read`` reads its message, and raises `InvalidInputError`. ``respond`` makes the answer from the model's name, when
    that is done. With ``may_be_absent``, having nothing to unload is no error.
    """

    action: Literal["load", "unload"]
    read: Callable[[Incoming], Command]
    respond: Callable[[str], bytes]
    may_be_absent: bool = False


def checked_command(command: Command, *, name_field: str) -> Command:
    """Check names, and return ``command`` with a normal version. Raises `InvalidInputError`."""
    name, version = command.model, command.version
    if not name or len(name.encode()) > _MAX_NAME_BYTES or escaped(name) != name or "/" in name or name[0] == ".":
        got = f'"{clipped(name)}"' if name else "none"
        raise InvalidInputError(f"{name_field}: expected the name of a model, got {got}", field=name_field)
    if version and _VERSION.fullmatch(version) is None:
        raise InvalidInputError(f'version: expected a number, got "{clipped(version)}"', field="version")
    return Command(model=name, version=str(int(version)) if version else "", override=command.override)


def override_of(
    config: str, files: Mapping[str, bytes], *, prefix: str = "", field: Callable[[str], str]
) -> LoadOverride | None:
    """Return what a load replaces; None for nothing. ``prefix`` and ``field`` are for errors: `InvalidInputError`."""
    for path in files:
        match = _FILE.fullmatch(path)
        if match is None or len(match["name"].encode()) > _MAX_NAME_BYTES or escaped(path) != path:
            got = f'"{prefix}{clipped(path)}"'
            msg = f"a file: expected {prefix}VERSION/NAME, for example {prefix}1/model.onnx, got {got}"
            raise InvalidInputError(msg, field=field(path))
    if files and not config:
        msg = "config: expected the model's configuration as JSON beside files, which replace its directory; got none"
        raise InvalidInputError(msg, field=field(next(iter(files))))
    return LoadOverride(config=config, files=dict(files)) if config else None


def _visible(entries: Iterable[IndexEntry], models: ModelView, *, ready: bool) -> list[IndexEntry]:
    """Return the ``entries`` that the caller may see; with ``ready`` only those that answer requests."""
    return [
        entry
        for entry in entries
        if (entry.state is ModelState.READY or not ready)
        and (models.allows(MethodKind.ADMIN, entry.name) or models.allows(MethodKind.METADATA, entry.name))
    ]


class LoadReader:
    """Reads messages that may hold files. Their fields are counted before they are parsed, as those of requests."""

    def __init__(self, kind: type[Query], descriptor: Descriptor, files: str) -> None:
        """``descriptor`` is that of the ``kind``; ``files`` is the full name of the field with a file's content."""
        self._kind = kind
        self._scanner = WireScanner(
            descriptor, raw=frozenset({files}), request_id="", lists=frozenset(), limits=DEFAULT_LIMITS
        )

    def read(self, message: bytes) -> Any:  # noqa: ANN401  (a message of the kind)
        """Parse ``message``. Raises `InvalidInputError`."""
        self._scanner.scan(message)
        return parse(self._kind, message)


def _nothing() -> None:
    """Give nothing up: there is no load yet, or it is an unload."""


@dataclass(frozen=True, slots=True, eq=False)
class _Operation:
    """A call to load or unload, from the moment that it was read."""

    method: CommandMethod[Any]
    call: UnaryCall
    command: Command


class RepositoryControl:
    """Handlers of the calls that list, load and unload models.

    Threads: handlers are called on the poll thread, and so is `drain`; outcomes come from the manager's thread. The
    repositories are searched in a thread of ``_searches``, as that reads directories. ``_lock`` guards ``_open``: the
    calls to load and unload, with what gives up their load. The thread that takes one out of it ends the call.
    """

    def __init__(
        self, manager: ModelManager, registry: ModelRegistry, statuses: StatusTable, large: LargeMessages
    ) -> None:
        self._manager = manager
        self._registry = registry
        self._statuses = statuses
        self._large_messages = large
        self._searches = WorkerPool("inferd-repository", threads=1, max_waiting=_MAX_SEARCHES)
        self._lock = threading.Lock()
        self._open: dict[_Operation, Cancel] = {}
        self._draining = False

    def index_handler(
        self, only_ready: Callable[[Incoming], bool], respond: Callable[[list[IndexEntry]], bytes]
    ) -> Callable[[UnaryCall, Incoming], None]:
        """Return a handler that answers messages from the index, as far as the caller may see it.

        ``only_ready`` returns whether a message asks for versions that answer requests only, or raises
        `InvalidInputError`.
        """

        def ask(call: UnaryCall, message: Incoming) -> None:
            view = ModelView(self._registry, call)
            try:
                ready = only_ready(message)
            finally:
                view.charge()
            if not self._searches.submit(
                partial(run_guarded, call, self._statuses, partial(answer, call, view, ready))
            ):
                text = f"{_MAX_SEARCHES} calls wait for the repositories to be searched"
                raise OverloadedError(text, retry_after_s=_RETRY_AFTER_S, reason="REPOSITORY_SEARCHES")

        def answer(call: UnaryCall, view: ModelView, ready: bool) -> None:
            call.reply(respond(_visible(self._manager.index(), view, ready=ready)))

        return lambda call, message: run_guarded(call, self._statuses, partial(ask, call, message))

    def command_handler(self, method: CommandMethod[Incoming]) -> Callable[[UnaryCall, Incoming], None]:
        """Return a handler of calls to load or unload a model, which end when that is done."""

        def handle(call: UnaryCall, message: Incoming) -> None:
            work = partial(run_guarded, call, self._statuses, partial(self._command, method, call, message))
            if len(message) > LARGE_BYTES:
                run_guarded(call, self._statuses, partial(self._large_messages.decode, work))
            else:
                work()

        return handle

    def drain(self) -> None:
        """Give up the loads that calls wait for, and refuse further calls to load and unload."""
        self._draining = True
        with self._lock:
            loads = [
                (operation, cancel) for operation, cancel in self._open.items() if operation.method.action == "load"
            ]
        for operation, cancel in loads:
            self._end(operation, ModelUnavailableError(DRAINING))
            cancel()

    def stop(self, timeout_s: float) -> bool:
        """End the thread. Return False if it is still busy after the timeout."""
        return self._searches.stop(timeout_s)

    def _command(self, method: CommandMethod[Incoming], call: UnaryCall, message: Incoming) -> None:
        view = ModelView(self._registry, call)
        try:
            command = method.read(message)
        except InvalidInputError:
            view.charge()
            raise
        operation = _Operation(method, call, command)
        with self._lock:
            self._open[operation] = _nothing
        try:
            view.charge(command.model)
            view.require(MethodKind.ADMIN, command.model)
            self._begin(operation)
        except ServingError as error:
            self._end(operation, error)

    def _begin(self, operation: _Operation) -> None:
        if self._draining:
            raise ModelUnavailableError(DRAINING)
        command, on_done = operation.command, partial(self._done, operation)
        if operation.method.action == "unload":
            self._manager.unload(command.model, version=command.version, on_done=on_done)
            return
        cancel = self._manager.load(command.model, version=command.version, override=command.override, on_done=on_done)
        with self._lock:
            is_open = operation in self._open
            if is_open:
                self._open[operation] = cancel
        if is_open:
            self._large_messages.call_soon(partial(operation.call.on_terminated, cancel))
        else:
            # The load has ended meanwhile, or the server drains.
            cancel()

    def _done(self, operation: _Operation, error: ServingError | None) -> None:
        """End the call of ``operation``; any thread."""
        if operation.method.may_be_absent and isinstance(error, ModelNotFoundError):
            error = None
        run_guarded(operation.call, self._statuses, partial(self._end, operation, error))

    def _end(self, operation: _Operation, error: ServingError | None) -> None:
        """End the call of ``operation``, unless that was done."""
        with self._lock:
            if self._open.pop(operation, None) is None:
                return
        self._log_outcome(operation, error)
        if error is None:
            operation.call.reply(operation.method.respond(operation.command.model))
        else:
            abort(operation.call, self._statuses, error)

    def _log_outcome(self, operation: _Operation, error: ServingError | None) -> None:
        """Log who has loaded or unloaded which model, and whether that succeeded."""
        call, command = operation.call, operation.command
        fields = {
            **log_fields(call),
            "action": operation.method.action,
            "principal": call.context.principal or ANONYMOUS,
            "model": command.model,
            "version": command.version,
            "overridden": command.override is not None,
        }
        if error is None:
            _log.info("model control", extra={**fields, "outcome": grpc.StatusCode.OK.name})
        else:
            outcome = self._statuses.status_of(error).code.name
            _log.warning("model control", extra={**fields, "outcome": outcome, "reason": error.message})
