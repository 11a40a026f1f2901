"""Requests for text under a rule of the policy: quotas of tokens, priorities and hidden models."""

from inferd.errors import InvalidInputError, ModelNotFoundError, OverloadedError, QuotaExceededError
from inferd.security.authorization.policy import Policy, permissions_of
from inferd.security.authorization.quota import QuotaStore
from tests.unit.api.generation.fakes import Recorder
from tests.unit.api.generation.test_generations import Asked, _still  # noqa: F401  a fixture, of the clock that both stop


class Limited(Asked):
    """A request under a rule."""

    def __init__(self, **rule: object) -> None:
        policy = Policy.model_validate({"rules": [{"principals": ["*"], **rule}]})
        self.permissions = permissions_of("token:alice", policy, QuotaStore(clock=lambda: 100.0))
        super().__init__(max_tokens=16)

    def ask(self, prompt: object = "once", **fields: object) -> Recorder:
        self.call.context.permissions, self.call.context.principal = self.permissions, "token:alice"
        return super().ask(prompt, **fields)


def test_quota_counts_max_tokens_and_refunds_the_rest() -> None:
    """Tokens that were not generated are refunded at the end, here 14 of 16."""
    limited = Limited(quota={"tokens_per_s": 21})
    assert len(limited.engine.submitted) == 1
    error = limited.ask(max_tokens=4).error
    assert isinstance(error, QuotaExceededError)
    assert error.message == "the quota of 21 tokens a second is used up"
    limited.engine.finish("ab")
    limited.ask(max_tokens=11)
    assert len(limited.engine.submitted) == 2


def test_cancelled_and_rejected_requests_are_refunded() -> None:
    """A cancelled request gets the tokens back that it did not generate, a rejected one all."""
    limited = Limited(quota={"tokens_per_s": 20, "concurrent_requests": 1})
    limited.call.terminated()
    limited.ask(max_tokens=12)
    assert len(limited.engine.submitted) == 2
    limited.engine.fail(OverloadedError("full", retry_after_s=1.0))
    limited.ask(max_tokens=12)
    assert len(limited.engine.submitted) == 3


def test_request_that_the_quota_never_allows_names_its_field() -> None:
    """The error is about max_tokens, which can be made small enough."""
    limited = Limited(quota={"tokens_per_s": 0.01})
    assert limited.got.error.field == "max_tokens"
    assert limited.got.error.message == "expected at most 6 tokens, as the quota is 0.01 tokens a second, got 20"


def test_invalid_requests_are_charged() -> None:
    """Each invalid request costs one request of the quota."""
    limited = Limited(quota={"requests_per_s": 2})
    assert isinstance(limited.ask(temperature=9).error, InvalidInputError)
    assert isinstance(limited.ask(temperature=9).error, QuotaExceededError)


def test_priority_and_weight_are_those_of_the_rule() -> None:
    """A caller cannot ask for more than its rule grants."""
    limited = Limited(priority_ceiling=2, weight=3.0)
    assert limited.request.priority == 2
    assert limited.request.principal == ("token:alice", 3.0)


def test_model_that_the_caller_may_not_see_does_not_exist() -> None:
    """It gets the same error as for an unknown model."""
    limited = Limited(models=["other"])
    assert isinstance(limited.got.error, ModelNotFoundError)
