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


class HealthService(health.HealthServicer):
    """`grpc.health.v1.Health`, as grpcio has it, with an end for ``Watch``.

    | name | SERVING |
    |---|---|
    | "", "readiness", each of ``services`` | from `open` until `drain` |
    | "startup" | from `open` on |
    | "liveness" | always: who can be answered is answered by a process that works |

    Watchers stay for as long as the server does: without `end_watches` each of them would make its stop take the whole
    grace. Invariant: a watch that is open when `end_watches` is called, or begins later, ends with OK. Any thread.
    """

    def __init__(self, services: Iterable[str] = ()) -> None:
        super().__init__(experimental_non_blocking=True)
        self._ready_names = ("", READINESS, *services)
        self._names = frozenset((*self._ready_names, LIVENESS, STARTUP))
        self._watches_lock = threading.Lock()
        self._watches: set[_Send] = set()
        self._watches_ended = False
        self._set(health_pb2.HealthCheckResponse.SERVING, LIVENESS)
        self._set(health_pb2.HealthCheckResponse.NOT_SERVING, STARTUP, *self._ready_names)

    def open(self) -> None:
        """Say that everything has been loaded, and that calls may come."""
        self._set(health_pb2.HealthCheckResponse.SERVING, STARTUP, *self._ready_names)

    def drain(self) -> None:
        """Say that further calls should go elsewhere."""
        self._set(health_pb2.HealthCheckResponse.NOT_SERVING, *self._ready_names)

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

    def _set(self, status: "health_pb2.HealthCheckResponse.ServingStatus", *names: str) -> None:
        for name in names:
            self.set(name, status)

    def _forget(self, send: _Send) -> None:
        with self._watches_lock:
            self._watches.discard(send)


class _Outcome:
    """All that ``Check`` uses of a context."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code
