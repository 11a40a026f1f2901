"""Which handler serves a method."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import grpc

from inferd.rpc import core
from inferd.rpc.metadata import Metadata

_log = logging.getLogger("inferd.rpc")

Handler = Any  # a grpc.RpcMethodHandler, generic in the stubs and of another's making

#: Methods whose handler is remembered; far more than any server has.
_MAX_REMEMBERED = 4096


class _CallDetails(NamedTuple):
    method: str
    invocation_metadata: Metadata


class CallDetails(_CallDetails, grpc.HandlerCallDetails):  # type: ignore[misc]  # a protocol at runtime, which the stubs do not know
    """What generic handlers are asked with; a named tuple as in grpcio."""

    __slots__ = ()


class Methods:
    """The handlers of a server.

    Invariant: what is remembered is what would be found: only handlers of services, whose methods are fixed, and only
    where no handler before them may decide otherwise for another call. Methods that nobody serves are not remembered,
    as callers can make up any number of them.

    Threads: handlers are added before the server starts; after that ``find`` is for the poll thread.
    """

    def __init__(self) -> None:
        self._generic: list[grpc.GenericRpcHandler[Any, Any]] = []
        self._registered: dict[str, Handler] = {}
        self._served: dict[str, list[str]] | None = None
        #: What was found for each method, where that does not change.
        self.remembered: dict[bytes, tuple[str, Handler]] = {}

    def add_generic(self, handlers: Iterable["grpc.GenericRpcHandler[Any, Any]"]) -> None:
        """Ask ``handlers`` for methods, after those added before."""
        handlers = list(handlers)
        for handler in handlers:
            if not hasattr(handler, "service"):
                raise AttributeError(f"expected a grpc.GenericRpcHandler, which has a service method, got {handler!r}")
        self._generic.extend(handlers)

    def add_registered(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Serve the methods of ``service`` by ``handlers``, before asking any generic handler."""
        self._registered.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    def find(self, method: bytes, metadata: Metadata) -> tuple[str, Handler | None]:
        """Return the method's name and its handler, or None for an unknown method. Raises what generic handlers do."""
        name = decode(method)
        handler, is_fixed = self._look_up(CallDetails(name, metadata))
        if handler is not None and is_fixed and len(self.remembered) < _MAX_REMEMBERED:
            self.remembered[method] = (name, handler)
        return name, handler

    def served(self) -> dict[str, list[str]]:
        """Return the methods of each service, as far as handlers tell; on the poll thread, once no more are added."""
        if self._served is None:
            self._served = self._list_served()
        return self._served

    def _list_served(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for generic in self._generic:
            if isinstance(generic, grpc.ServiceRpcHandler):
                found[generic.service_name()] = []
        for name in (*self._registered, *(name for generic in self._generic for name in core.methods_of(generic))):
            service, _, method = name.strip("/").rpartition("/")
            methods = found.setdefault(service, [])
            if method not in methods:
                methods.append(method)
        return {service: sorted(methods) for service, methods in sorted(found.items())}

    def _look_up(self, details: grpc.HandlerCallDetails) -> tuple[Handler | None, bool]:
        """Return the handler and whether it is the same for every call of the method."""
        handler = self._registered.get(details.method)
        if handler is not None:
            return handler, True
        is_fixed = True
        for generic in self._generic:
            is_fixed = is_fixed and isinstance(generic, grpc.ServiceRpcHandler)
            handler = generic.service(details)
            if handler is not None:
                return handler, is_fixed
        return None, False


def decode(method: bytes) -> str:
    """Return a method's name as text, whatever the caller has sent."""
    return method.decode(errors="replace")
