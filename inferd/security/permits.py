"""Makes the permits of callers from the rules, and keeps what is left of their quotas when the rules change."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from inferd.security.patterns import matches
from inferd.security.permit import Grant, Permit
from inferd.security.policy import Policy, Rule
from inferd.security.quota import Limits, Quota, QuotaRejections

#: Quotas that are remembered. Whose was forgotten begins with a full one.
_MAX_QUOTAS = 10_000


class QuotaLedger:
    """The quotas of all callers, by caller and rule, the one that was asked for longest ago first. Any thread."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.rejections = QuotaRejections()
        self._clock = clock
        self._lock = threading.Lock()
        self._quotas: OrderedDict[tuple[str, int], tuple[Limits, Quota]] = OrderedDict()

    def quota(self, principal: str, number: int, limits: Limits) -> Quota:
        """Return the quota of ``principal`` under rule ``number``: the one it had, if the limits are the same."""
        key = (principal, number)
        with self._lock:
            known = self._quotas.get(key)
            if known is None or known[0] != limits:
                known = self._quotas[key] = (limits, Quota(limits, self.rejections, self._clock()))
            self._quotas.move_to_end(key)
            if len(self._quotas) > _MAX_QUOTAS:
                self._quotas.popitem(last=False)
            return known[1]


def permit_of(principal: str, policy: Policy, ledger: QuotaLedger) -> Permit:
    """Return what ``policy`` grants ``principal``."""
    return Permit(
        [
            Grant(rule, _quota(principal, number, rule, ledger))
            for number, rule in enumerate(policy.rules)
            if any(matches(pattern, principal) for pattern in rule.principals)
        ]
    )


def _quota(principal: str, number: int, rule: Rule, ledger: QuotaLedger) -> Quota | None:
    if rule.quota is None:
        return None
    return ledger.quota(principal, number, Limits(**rule.quota.model_dump()))
