"""What one caller may see of the models, and how much it may ask of them."""

import grpc

from inferd.api.submission import monotonic
from inferd.batching.request import InferenceRequest
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
from inferd.security.authorization.methods import MethodKind, kind_of
from inferd.security.authorization.policy import Grant, Permissions
from inferd.security.authorization.quota import Quota

#: How a call ends that was counted in and then refused: the queue was full, or the server is to end.
_REFUSED = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE})


def permissions_of(call: Call) -> Permissions | None:
    """Return what the caller may do; None is everything."""
    permissions = call.facts.permissions
    return permissions if isinstance(permissions, Permissions) else None


def find_granted(registry: ModelRegistry, call: Call, name: str, version: str) -> tuple[ModelVersion, Grant | None]:
    """Return a version that is READY and what is granted for requests to it, None if they may be any.

    Notes in the call's facts which model it is about. Raises as `ModelRegistry.get`, which knows only the models that
    the caller may see, and `NotAllowedError`.
    """
    facts = call.facts
    grant = None
    if facts.permissions is None:
        model = registry.get(name, version)
    else:
        permissions = permissions_of(call)
        assert permissions is not None
        found = registry.find(name, version, permissions.sees)
        grant = permissions.require(MethodKind.INFER, found.name)
        model = registry.ready(found)
    facts.model, facts.version = model.name, model.version
    return model, grant


def admit(grant: Grant, model: ModelVersion, request: InferenceRequest) -> Quota | None:
    """Count ``request`` to ``model`` in, with no more urgent a priority than granted.

    Returns the quota that the request must be given back to when it is no longer open, exactly once. Raises as
    `Quota.acquire`.
    """
    levels = model.settings.queue.priority_levels
    request.priority = max(request.priority, min(grant.rule.priority_ceiling, levels))
    quota = grant.quota
    if quota is not None:
        quota.acquire(request.rows, request.received_at)
    return quota


def hold(call: Call, quota: Quota) -> None:
    """Give the request of ``call`` back to ``quota`` when the call ends, which it may have already."""

    def finished(call: Call, code: grpc.StatusCode, _details: str) -> None:
        quota.release(call.facts.rows if code in _REFUSED else None)

    call.on_finished(finished)


def rows_not_run(request: InferenceRequest | None, outcome: object) -> int | None:
    """Return the rows of a ``request`` that was refused after it was counted in, for `Quota.release`; else None."""
    refused = isinstance(outcome, OverloadedError | ModelUnavailableError)
    return request.rows if refused and request is not None else None


def counted(call: Call, error: ServingError) -> ServingError:
    """Count a request of ``call`` that is wrong like one that is right; return what it is answered with.

    That is ``error``, or a `QuotaExceededError` if the caller's quota has no room. Any thread. What is refused for
    another reason than what it asks for uses up nothing.
    """
    if call.facts.permissions is not None and isinstance(
        error, InvalidInputError | ModelNotFoundError | NotAllowedError
    ):
        try:
            _charge_request(call, call.facts.model)
        except QuotaExceededError as exceeded:
            return exceeded
    return error


def _charge_request(call: Call, model: str | None) -> None:
    """Count a request about ``model`` that runs none. Raises `QuotaExceededError`."""
    permissions = permissions_of(call)
    quota = None if permissions is None else permissions.quota(kind_of(call.method), model)
    if quota is not None:
        quota.charge_request(monotonic())


class ModelView:
    """What the caller of one query may know of the models that there are; what it asks counts to its quota, once."""

    def __init__(self, registry: ModelRegistry, call: Call) -> None:
        self._registry = registry
        self._call = call
        self._permissions = permissions_of(call)
        self._counted = False

    def count(self, model: str | None = None) -> None:
        """Count the query, which is about ``model``, unless it has been. Raises `QuotaExceededError`."""
        if not self._counted:
            self._counted = True
            _charge_request(self._call, model)

    def find(self, name: str, version: str) -> ModelVersion:
        """Return a version in any state. Raises as `ModelRegistry.find`, `NotAllowedError`, `QuotaExceededError`."""
        permissions = self._permissions
        if permissions is None:
            return self._registry.find(name, version)
        found = self._registry.find(name, version, permissions.sees)
        self.count(found.name)
        permissions.require(MethodKind.METADATA, found.name)
        return found

    def all(self) -> list[ModelVersion]:
        """Return every version, in the order of `ModelRegistry.all`. Raises `QuotaExceededError`."""
        self.count()
        permissions = self._permissions
        return [
            version
            for version in self._registry.all()
            if permissions is None or permissions.allows(MethodKind.METADATA, version.name)
        ]
