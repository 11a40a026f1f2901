"""What is read at the moment of a scrape."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from inferd.observability.gpu import GpuSample

#: Label values of ``inferd_model_state``.
MODEL_STATES = ("loading", "ready", "failed", "unloading")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSample:
    """How one model version stands; ``state`` is one of `MODEL_STATES`, and what is not known yet is 0.

    ``queue_limit_rows`` is how many rows may wait at present, ``instances`` how many batches may run at the same time,
    ``capacity_rows_per_s`` how many rows all of them would run in a second, ``memory_bytes`` by how much the process
    grew as the version was loaded and warmed up, ``stuck_threads`` how many threads hang in a run that was given up.
    """

    model: str
    version: str
    state: str
    queue_rows: int = 0
    queue_limit_rows: int = 0
    queue_bytes: int = 0
    instances: int = 0
    capacity_rows_per_s: float = 0.0
    memory_bytes: int = 0
    stuck_threads: int = 0


class ServerUsage(Protocol):
    """What calls take of the server at present, and how many it has refused by itself, by reason."""

    @property
    def held_bytes(self) -> int: ...  # noqa: D102  see the families

    @property
    def taken_bytes(self) -> int: ...  # noqa: D102

    @property
    def budget_bytes(self) -> int | None: ...  # noqa: D102

    @property
    def refused(self) -> Mapping[str, int]: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """What is read when a scrape comes, in its thread. None of these may block."""

    models: Callable[[], Iterable[ModelSample]]
    inflight_requests: Callable[[], int]
    server_usage: Callable[[], ServerUsage]
    poll_lag_s: Callable[[], float]
    log_lines_dropped: Callable[[], int]
    spans_dropped: Callable[[], int]
    gpus: Callable[[], Iterable[GpuSample]]
    certificate_expiry: Callable[[], Mapping[str, float]]
    """By what the certificate is for; seconds since the epoch."""
    certificate_lifetimes_s: Callable[[], Mapping[str, float]]
    """How long each is valid in all."""
    file_reload_failures: Callable[[], Mapping[str, int]]
    """By what the files are for."""
    quota_rejections: Callable[[], Mapping[str, int]]
    """By the limit that was reached."""
    jwks_age_s: Callable[[], float | None]
    """Since the keys of the issuer were fetched; None if they do not come from a URL."""
