"""The standard health service, whose watchers hold nothing up."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from inferd.api.parsing import parse
from inferd.errors import InvalidInputError
from inferd.rpc import UnaryCall, callback_unary

#: Sends a status to a watcher, or ends its stream if given None.
_Send = Callable[[health_pb2.HealthCheckResponse | None], Any]

#: Names for an orchestrator's three questions, beside "" and those of the services.
LIVENESS, READINESS, STARTUP = "liveness", "readiness", "startup"

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthService(health.HealthServicer):
    """`grpc.health.v1.Health`, as grpcio has it, with an end for ``Watch``.

    | name | SERVING |
    |---|---|
    | "", "readiness", each of ``services`` | from `open` until `drain`, but not while ``is_late`` |
    | "startup" | from `open` on |
    | "liveness" | always, but not while ``is_stuck`` |

    Both are called for each ``Check`` and must be quick; `update` sends watchers what has changed.

    Watchers stay for as long as the server does: without `end_watches` each of them would make its stop take the whole
    grace. Invariant: a watch that is open when `end_watches` is called, or begins later, ends with OK. Any thread.
    """

    def __init__(
        self,
        services: Iterable[str] = (),
        *,
        is_late: Callable[[], bool] = lambda: False,
        is_stuck: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(experimental_non_blocking=True)
        self._is_late = is_late
        self._is_stuck = is_stuck
        self._open = False
        self._draining = False
        self._ready_names = ("", READINESS, *services)
        self._names = frozenset((*self._ready_names, LIVENESS, STARTUP))
        self._watches_lock = threading.Lock()
        self._watches: set[_Send] = set()
        self._watches_ended = False
        #: Names that are always in the same state, and whether each group was told to be serving.
        self._groups = ((STARTUP,), self._ready_names, (LIVENESS,))
        self._told = (False, False, True)
        self._telling = threading.Lock()
        for names, is_serving in zip(self._groups, self._told, strict=True):
            self._tell(names, is_serving)

    def open(self) -> None:
        """Say that everything has been loaded, and that calls may come."""
        self._open = True
        self.update()

    def drain(self) -> None:
        """Say that further calls should go elsewhere."""
        self._draining = True
        self.update()

    def update(self) -> None:
        """Tell watchers what is another way than they were told last."""
        if self._found() == self._told:
            return
        with self._telling:
            # Computed again with the lock held, so that the last update sends the present state.
            before, self._told = self._told, self._found()
            for names, was_serving, is_serving in zip(self._groups, before, self._told, strict=True):
                if is_serving is not was_serving:
                    self._tell(names, is_serving)

    def _tell(self, names: Iterable[str], is_serving: bool) -> None:
        for name in names:
            self.set(name, _SERVING if is_serving else _NOT_SERVING)

    def _found(self) -> tuple[bool, bool, bool]:
        """Return whether each group is serving."""
        return self._open, self._open and not self._draining and not self._is_late(), not self._is_stuck()

    def Watch(  # noqa: N802  the name in the contract
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send_response_callback: _Send | None = None,
    ) -> None:
        """Send the status that there is, and each that follows."""
        send = send_response_callback
        assert send is not None, "our server gives one to handlers that do not block"
        with self._watches_lock:
            self._watches.add(send)
            ended = self._watches_ended
        if not context.add_callback(lambda: self._forget(send)):
            self._forget(send)
            return
        if request.service in self._names:
            super().Watch(request, context, send)
        else:
            # It will never be known, and grpcio's service would remember for ever that it was asked for.
            send(health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN))
        if ended:
            send(None)

    def check_handler(self) -> "grpc.RpcMethodHandler[Any, Any]":
        """Return a handler of ``Check`` that answers on the poll thread: a probe must not wait for a thread."""

        def handle(call: UnaryCall, message: bytes) -> None:
            try:
                request = parse(health_pb2.HealthCheckRequest, message)
            except InvalidInputError as error:
                call.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
                return
            self.update()
            outcome = _Outcome()
            response = self.Check(request, outcome)  # type: ignore[arg-type]  # it uses no more of a context
            if outcome.code is None:
                call.reply(response.SerializeToString())
            else:
                call.abort(outcome.code, "unknown service")

        return callback_unary(handle)

    def end_watches(self) -> None:
        """Let every watcher go, those that are still to come as well."""
        with self._watches_lock:
            self._watches_ended = True
            watches = list(self._watches)
        for send in watches:
            send(None)

    def _forget(self, send: _Send) -> None:
        with self._watches_lock:
            self._watches.discard(send)


class _Outcome:
    """All that ``Check`` uses of a context."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code
