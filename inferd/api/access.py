"""What one caller may see of the models, and how much it may ask of them."""

from inferd.batching.request import InferenceRequest
from inferd.models.registry import ModelRegistry
from inferd.models.version import ModelVersion
from inferd.rpc import Call
from inferd.security.methods import MethodKind
from inferd.security.permit import Grant, Permit
from inferd.security.quota import Quota


def permit_of(call: Call) -> Permit | None:
    """Return what the caller may do; None is everything."""
    permit = call.facts.permit
    return permit if isinstance(permit, Permit) else None


def find_granted(registry: ModelRegistry, call: Call, name: str, version: str) -> tuple[ModelVersion, Grant | None]:
    """Return a version that is READY and what is granted for requests to it, None if they may be any.

    Raises as `ModelRegistry.get`, which knows only the models that the caller may see, and `NotAllowedError`.
    """
    permit = permit_of(call)
    if permit is None:
        return registry.get(name, version), None
    found = registry.find(name, version, permit.sees)
    grant = permit.require(MethodKind.INFER, found.name)
    return registry.ready(found), grant


def admit(grant: Grant, model: ModelVersion, request: InferenceRequest) -> Quota | None:
    """Count ``request`` to ``model`` in, with no more urgent a priority than granted. Raises `QuotaExceededError`.

    Returns the quota if the request must be given back to it when it is no longer open, exactly once.
    """
    levels = model.settings.queue.priority_levels
    request.priority = max(request.priority, min(grant.priority_ceiling, levels))
    quota = grant.quota
    if quota is None:
        return None
    quota.take(request.rows, request.received_at)
    return quota if quota.counts_open else None


def hold(call: Call, quota: Quota) -> None:
    """Give back to ``quota`` when ``call`` ends, which it may have already; on the poll thread."""
    call.on_finished(lambda *_: quota.give_back())


class ModelView:
    """What a caller may know of the models that there are."""

    def __init__(self, registry: ModelRegistry, permit: Permit | None) -> None:
        self._registry = registry
        self._permit = permit

    def find(self, name: str, version: str) -> ModelVersion:
        """Return a version in any state. Raises as `ModelRegistry.find`, and `NotAllowedError`."""
        permit = self._permit
        if permit is None:
            return self._registry.find(name, version)
        found = self._registry.find(name, version, permit.sees)
        permit.require(MethodKind.METADATA, found.name)
        return found

    def all(self) -> list[ModelVersion]:
        """Return every version, in the order of `ModelRegistry.all`."""
        permit = self._permit
        return [
            version
            for version in self._registry.all()
            if permit is None or permit.allows(MethodKind.METADATA, version.name)
        ]
