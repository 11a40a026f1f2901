"""What one caller may do."""

from collections.abc import Sequence
from dataclasses import dataclass

from inferd.errors import NotAllowedError
from inferd.security.methods import MethodKind
from inferd.security.patterns import matches
from inferd.security.policy import Rule
from inferd.security.quota import Quota


@dataclass(frozen=True, slots=True)
class Grant:
    """What a rule grants: no priority more urgent than ``priority_ceiling``, and the caller's ``quota`` if any."""

    rule: Rule
    quota: Quota | None

    @property
    def priority_ceiling(self) -> int:
        """The most urgent priority, 1 for any."""
        return self.rule.priority_ceiling


class Permit:
    """What the rules grant one caller, in their order.

    Calls carry it as annotation "permit"; one without may do everything. Models are named as the server knows them:
    what was found out about a name is kept, so names that callers make up must not come here.
    Any thread.
    """

    def __init__(self, grants: Sequence[Grant]) -> None:
        self._grants = tuple(grants)
        self._kinds = frozenset(kind for grant in grants for kind in grant.rule.methods)
        self._known: dict[str, dict[str, Grant]] = {}

    def may_call(self, kind: MethodKind) -> bool:
        """Whether any model grants methods of ``kind``. Health and reflection are for everybody who has a name."""
        return kind.value in self._kinds or kind in {MethodKind.HEALTH, MethodKind.REFLECTION}

    def sees(self, model: str) -> bool:
        """Whether ``model`` exists for this caller."""
        return bool(self._granted(model))

    def allows(self, kind: MethodKind, model: str) -> bool:
        """Whether ``kind`` of ``model`` is granted."""
        return kind in self._granted(model)

    def require(self, kind: MethodKind, model: str) -> Grant:
        """Return what is granted for ``kind`` of ``model``, which this caller sees. Raises `NotAllowedError`."""
        grant = self._granted(model).get(kind)
        if grant is None:
            raise NotAllowedError(f'model "{model}": expected a caller who may call its {kind} methods')
        return grant

    def quota(self, kind: MethodKind, model: str | None) -> Quota | None:
        """Return what a request of ``kind`` that runs no model counts to, if to anything.

        ``model`` is None if it is about no model that there is; then the first rule counts that grants ``kind`` at all.
        """
        grant = None if model is None else self._granted(model).get(kind)
        if grant is None:
            grant = next((each for each in self._grants if kind.value in each.rule.methods), None)
        return None if grant is None else grant.quota

    def _granted(self, model: str) -> dict[str, Grant]:
        known = self._known.get(model)
        if known is None:
            known = self._known[model] = self._find(model)
        return known

    def _find(self, model: str) -> dict[str, Grant]:
        found: dict[str, Grant] = {}
        for grant in self._grants:
            if any(matches(pattern, model) for pattern in grant.rule.models):
                for kind in grant.rule.methods:
                    found.setdefault(kind, grant)
        return found
