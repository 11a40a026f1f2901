"""What the interceptors here need of a call, so that they know no gRPC server."""

from collections.abc import Sequence
from typing import Protocol


class Status(Protocol):
    """A gRPC status code."""

    @property
    def name(self) -> str:
        """Its name, for example ``RESOURCE_EXHAUSTED``."""
        ...


class Call(Protocol):
    """One RPC. ``annotations`` hold what the handlers found out about it: model, version, rows, timings."""

    @property
    def method(self) -> str:
        """``/package.Service/Name``."""
        ...

    @property
    def peer(self) -> str:
        """Who calls, as gRPC writes it."""
        ...

    @property
    def metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """What the caller sent along."""
        ...

    @property
    def started_at(self) -> float:
        """When the call was accepted, in seconds on the monotonic clock."""
        ...

    @property
    def annotations(self) -> dict[str, object]:
        """Facts for the log and the metrics, by name."""
        ...
