"""Decide what a caller may ask of which model, and turn a decoded request into one that a queue takes."""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import NamedTuple

import grpc

from inferd.batching.queued import Principal
from inferd.batching.request import InferenceRequest
from inferd.config.settings import QueueSettings
from inferd.errors import (
    InvalidInputError,
    ModelNotFoundError,
    ModelUnavailableError,
    NotAllowedError,
    OverloadedError,
    QuotaExceededError,
    ServingError,
)
from inferd.models.registry import ModelRegistry
from inferd.models.version import ModelVersion
from inferd.rpc import Call
from inferd.runtime.signature import ModelSignature, Tensors
from inferd.security.authorization.methods import MethodKind, kind_of
from inferd.security.authorization.policy import Grant, Permissions
from inferd.security.authorization.quota import Quota

#: Status of a call whose request was charged to a quota and then rejected: queue full, or server draining.
_REJECTED = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE})


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedRequest:
    """A request to a model, independent of the protocol.

    ``priority`` 0 is the model's default. ``timeout_s`` is None if the request has none.
    """

    inputs: Tensors
    outputs: tuple[str, ...]
    priority: int
    timeout_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestParams:
    """All of an `InferenceRequest` that does not depend on its numbers; ``priority`` is never 0.

    ``timeout_s`` is the request's own, or what applies in its place. ``default_timeout_s`` applies without it and
    without a deadline of the call.
    """

    outputs: tuple[str, ...]
    rows: int
    nbytes: int
    stack_key: Hashable
    priority: int
    timeout_s: float | None
    default_timeout_s: float


class Timeouts(NamedTuple):
    """Seconds; see `RequestParams`."""

    timeout_s: float | None
    default_timeout_s: float


def validate(model: ModelVersion, signature: ModelSignature, decoded: DecodedRequest) -> RequestParams:
    """Check ``decoded`` against the signature and settings of ``model``. Raises `InvalidInputError`."""
    checked = signature.check(decoded.inputs)
    priority = priority_of(model, decoded.priority)
    timeout_s, default_timeout_s = _timeouts(model.settings.queue, priority, decoded.timeout_s)
    return RequestParams(
        outputs=signature.select_outputs(decoded.outputs),
        rows=checked.rows,
        nbytes=checked.nbytes,
        stack_key=checked.stack_key,
        priority=priority,
        timeout_s=timeout_s,
        default_timeout_s=default_timeout_s,
    )


def params_of(model: ModelVersion, rows: int, priority: int, timeout_s: float | None) -> RequestParams:
    """Return what decides whether a request is admitted. Raises `InvalidInputError` for an invalid priority."""
    priority = priority_of(model, priority)
    timeout_s, default_timeout_s = _timeouts(model.settings.queue, priority, timeout_s)
    return RequestParams(
        outputs=(),
        rows=rows,
        nbytes=0,
        stack_key=(),
        priority=priority,
        timeout_s=timeout_s,
        default_timeout_s=default_timeout_s,
    )


def deadline_of(params: RequestParams | Timeouts, received_at: float, call_deadline: float) -> float:
    """Return when a request expires: with its call, or earlier."""
    if params.timeout_s is not None:
        return min(call_deadline, received_at + params.timeout_s)
    if call_deadline == math.inf:
        return received_at + params.default_timeout_s
    return call_deadline


def generation_deadline(
    model: ModelVersion, priority: int, timeout_s: float | None, received_at: float, call_deadline: float
) -> float:
    """Return when a request to generate expires: with its call, or earlier."""
    settings = model.settings
    timeouts = _timeouts(settings.queue, priority, timeout_s, settings.generation.default_timeout_s * 1000)
    return deadline_of(timeouts, received_at, call_deadline)


def priority_of(model: ModelVersion, priority: int) -> int:
    """Return ``priority``, or the model's default for 0. Raises `InvalidInputError`."""
    queue = model.settings.queue
    scavenger = queue.priority_levels + 1
    if not 0 <= priority <= scavenger:
        msg = (
            f"priority: expected 1 (first) to {queue.priority_levels}, {scavenger} for a scavenger,"
            f" or 0 for the default, got {priority}"
        )
        raise InvalidInputError(msg, at="priority")
    return priority or queue.default_priority


def _timeouts(
    queue: QueueSettings, priority: int, timeout_s: float | None, default_ms: float | None = None
) -> Timeouts:
    """Return the timeout of a request that names ``timeout_s``, and the default for those without one.

    ``default_ms`` is in place of the queue's.
    """
    default_ms = queue.default_timeout_ms if default_ms is None else default_ms
    may_override = queue.allow_timeout_override
    own = queue.by_priority.get(priority)
    if own is not None:
        default_ms = default_ms if own.default_timeout_ms is None else own.default_timeout_ms
        may_override = may_override if own.allow_timeout_override is None else own.allow_timeout_override
    default_s = default_ms / 1000 or math.inf
    return Timeouts(timeout_s if may_override else default_s, default_s)


def _permissions(call: Call) -> Permissions | None:
    """Return the caller's permissions; None if everything is allowed."""
    permissions = call.context.permissions
    return permissions if isinstance(permissions, Permissions) else None


def find_model(registry: ModelRegistry, call: Call, name: str, version: str) -> tuple[ModelVersion, Grant | None]:
    """Return a READY version and the grant for requests to it, None if everything is allowed.

    Records in the call's context which model it is about. Raises as `ModelRegistry.get` on the models that the caller
    can see, and `NotAllowedError`.
    """
    context = call.context
    grant = None
    if context.permissions is None:
        model = registry.get(name, version)
    else:
        permissions = _permissions(call)
        assert permissions is not None, "only authorization sets permissions"
        found = registry.find(name, version, permissions.sees)
        grant = permissions.require(MethodKind.INFER, found.name)
        model = registry.get(found.name, version)
    context.model, context.version = model.name, model.version
    return model, grant


def charge(grant: Grant, model: ModelVersion, request: InferenceRequest) -> Quota | None:
    """Charge ``request`` to the quota of ``grant``, and give it the priority and weight that are granted.

    Returns the quota to release exactly once, when the request is no longer open. Raises as `Quota.acquire`.
    """
    request.priority = granted_priority(grant, model, request.priority)
    request.principal = Principal(request.principal.name, grant.rule.weight)
    quota = grant.quota
    if quota is not None:
        quota.acquire(request.rows, request.received_at)
    return quota


def granted_priority(grant: Grant, model: ModelVersion, priority: int) -> int:
    """Return ``priority`` as far as ``grant`` allows."""
    levels = model.settings.queue.priority_levels
    ceiling = grant.rule.priority_ceiling
    return levels + 1 if ceiling == "scavenger" else max(priority, min(ceiling, levels))


def hold_quota(call: Call, model: str) -> Callable[[], None]:
    """Charge an inference request that waits for ``model``, whose rows are unknown yet, as one of a single row.

    Returns a function that refunds it when it does not wait any more; only its first call has an effect. Raises as
    `Quota.acquire`, and `NotAllowedError`.
    """
    permissions = _permissions(call)
    if permissions is None or kind_of(call.method) is not MethodKind.INFER:
        # Queries have been charged.
        return lambda: None
    quota = permissions.require(MethodKind.INFER, model).quota
    if quota is None:
        return lambda: None
    quota.acquire(1, monotonic())
    refunds = [partial(quota.release, 1)]
    return lambda: refunds.pop()() if refunds else None


def release_at_end(call: Call, quota: Quota) -> None:
    """Release the request of ``call`` from ``quota`` when the call ends, which may have happened already."""

    def on_finished(call: Call, code: grpc.StatusCode, _details: str) -> None:
        quota.release(call.context.rows if code in _REJECTED else None)

    call.on_finished(on_finished)


def rejected_rows(request: InferenceRequest | None, outcome: object) -> int | None:
    """Return the rows of a ``request`` that was rejected after it was charged, for `Quota.release`; else None."""
    rejected = isinstance(outcome, OverloadedError | ModelUnavailableError)
    return request.rows if rejected and request is not None else None


def charge_invalid(call: Call, error: ServingError) -> ServingError:
    """Charge an invalid request of ``call`` like a valid one, and return the error to answer it with.

    That is ``error``, or a `QuotaExceededError` if the quota is exhausted. Requests rejected for other reasons are
    not charged. Any thread.
    """
    if call.context.permissions is not None and isinstance(
        error, InvalidInputError | ModelNotFoundError | NotAllowedError
    ):
        try:
            charge_request(call, call.context.model)
        except QuotaExceededError as exceeded:
            return exceeded
    return error


def charge_request(call: Call, model: str | None) -> None:
    """Charge a request about ``model`` that runs nothing. Raises `QuotaExceededError`."""
    permissions = _permissions(call)
    quota = None if permissions is None else permissions.quota(kind_of(call.method), model)
    if quota is not None:
        quota.charge_request(monotonic())


class ModelView:
    """The models that the caller of a query can see; charges the query to its quota once."""

    def __init__(self, registry: ModelRegistry, call: Call) -> None:
        self._registry = registry
        self._call = call
        self._permissions = _permissions(call)
        self._charged = False

    def charge(self, model: str | None = None) -> None:
        """Charge the query, which is about ``model``, unless it has been. Raises `QuotaExceededError`."""
        if not self._charged:
            self._charged = True
            charge_request(self._call, model)

    def find(self, name: str, version: str) -> ModelVersion:
        """Return a version in any state. Raises as `ModelRegistry.find`, `NotAllowedError`, `QuotaExceededError`."""
        permissions = self._permissions
        if permissions is None:
            return self._registry.find(name, version)
        found = self._registry.find(name, version, permissions.sees)
        self.charge(found.name)
        permissions.require(MethodKind.METADATA, found.name)
        return found

    def visible(self, name: str) -> str:
        """Return the name of the model that a call about all its versions means. Raises as `ModelRegistry.find`."""
        found = self._registry.find(name, "", None if self._permissions is None else self._permissions.sees)
        self.charge(found.name)
        return found.name

    @property
    def principal(self) -> str:
        """Who asks; empty without authentication."""
        return self._call.context.principal or ""

    @property
    def sees_everything(self) -> bool:
        """Whether no rules apply to the caller."""
        return self._permissions is None

    def may_call(self, kind: MethodKind) -> bool:
        """Return whether the caller may call methods of ``kind`` for any model."""
        return self._permissions is None or self._permissions.may_call(kind)

    def all(self) -> list[ModelVersion]:
        """Return every visible version, in the order of `ModelRegistry.all`. Raises `QuotaExceededError`."""
        self.charge()
        return [version for version in self._registry.all() if self.allows(MethodKind.METADATA, version.name)]

    def allows(self, kind: MethodKind, model: str) -> bool:
        """Return whether the caller may call methods of ``kind`` for ``model``."""
        return self._permissions is None or self._permissions.allows(kind, model)

    def require(self, kind: MethodKind, model: str) -> None:
        """Raise `NotAllowedError` if the caller may not call methods of ``kind`` for ``model``."""
        if self._permissions is not None:
            self._permissions.require(kind, model)
