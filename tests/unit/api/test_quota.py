"""Requests that run no model and are charged to a quota."""

import grpc
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd.api.admission import ModelView, charge_invalid, release_at_end
from inferd.api.status import StatusTable
from inferd.api.unary import query_handler
from inferd.errors import (
    InferenceFailedError,
    InvalidInputError,
    ModelNotFoundError,
    OverloadedError,
    QuotaExceededError,
    ServingError,
)
from inferd.security.authorization.policy import Policy, permissions_of
from inferd.security.authorization.quota import QuotaStore
from tests.unit.api.fakes import FakeCall, FakeModel, FakeRegistry

CODES = grpc.StatusCode


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd.api.admission.monotonic", lambda: 0.0)


class Caller:
    """Makes calls under given rules."""

    def __init__(self, *rules: dict[str, object]) -> None:
        policy = Policy.model_validate({"rules": [{"principals": ["*"], **rule} for rule in rules]})
        self.permissions = permissions_of("token:alice", policy, QuotaStore(clock=lambda: 0.0))

    def call(self, method: str = "Infer", model: str | None = None) -> FakeCall:
        call = FakeCall()
        call.method = f"/inferd.v1.InferenceService/{method}"
        call.context.permissions, call.context.model = self.permissions, model
        return call

    def ask(self, name: str = "fake") -> FakeCall:
        def respond(query: v1.GetModelRequest, models: ModelView) -> v1.GetModelResponse:
            return v1.GetModelResponse(model=v1.Model(name=models.find(query.model, "").name))

        handler = query_handler(v1.GetModelRequest, respond, FakeRegistry(FakeModel()), StatusTable())
        call = self.call("GetModel")
        handler.callback(call, v1.GetModelRequest(model=name).SerializeToString())
        return call


@pytest.mark.parametrize("name", ["fake", "none"])
def test_charges_queries_whatever_their_result(name: str) -> None:
    """Two of ten succeed; the others get a retry hint."""
    caller = Caller({"quota": {"requests_per_s": 2}})
    ended = [caller.ask(name).ended for _ in range(10)]
    over = (CODES.RESOURCE_EXHAUSTED, "the quota of 2 requests a second is used up")
    assert over not in ended[:2]
    assert ended[2:] == [over] * 8


def test_charges_malformed_query() -> None:
    """It may be as expensive as any."""
    caller = Caller({"quota": {"requests_per_s": 1}})
    codes = []
    for _ in range(2):
        call = caller.call("GetModel")
        query_handler(v1.GetModelRequest, lambda *_: None, FakeRegistry(FakeModel()), StatusTable()).callback(
            call, b"\xff"
        )
        codes.append(call.ended[0])
    assert codes == [CODES.INVALID_ARGUMENT, CODES.RESOURCE_EXHAUSTED]


def test_charges_rule_of_model() -> None:
    """Models without a quota are free; an unknown name is charged to the first rule."""
    caller = Caller({"models": ["other"], "quota": {"requests_per_s": 1}}, {"models": ["fake"]})
    assert all(caller.ask().ended[0] is CODES.OK for _ in range(5))
    assert [caller.ask("none").ended[0] for _ in range(2)] == [CODES.NOT_FOUND, CODES.RESOURCE_EXHAUSTED]


@pytest.mark.parametrize("error", [InvalidInputError("x"), ModelNotFoundError("x")])
def test_charges_invalid_requests(error: ServingError) -> None:
    """One request each, to the quota of the model if it exists."""
    caller = Caller({"quota": {"requests_per_s": 2}})
    answered = [charge_invalid(caller.call(model="fake"), error) for _ in range(3)]
    assert answered[:2] == [error, error]
    assert isinstance(answered[2], QuotaExceededError)


def test_does_not_charge_other_errors() -> None:
    """Overload, exhausted quotas and failures of the server."""
    caller = Caller({"quota": {"requests_per_s": 1}})
    for error in (OverloadedError("x", retry_after_s=1), QuotaExceededError("x", retry_after_s=1)):
        assert all(charge_invalid(caller.call(), error) is error for _ in range(5))
    failed = InferenceFailedError()
    assert charge_invalid(caller.call(), failed) is failed
    wrong = InvalidInputError("x")
    assert charge_invalid(caller.call(), wrong) is wrong


@pytest.mark.parametrize(("code", "left"), [(CODES.RESOURCE_EXHAUSTED, 1), (CODES.OK, 0), (CODES.INTERNAL, 0)])
def test_releases_requests_rejected_by_queue(code: grpc.StatusCode, left: int) -> None:
    """Only requests that ran are charged."""
    caller = Caller({"quota": {"requests_per_s": 1}})
    call = caller.call(model="fake")
    grant = caller.permissions.require("infer", "fake")
    grant.quota.acquire(1, 0.0)
    finishers = []
    call.on_finished = finishers.append
    release_at_end(call, grant.quota)
    call.context.rows = 1
    finishers[0](call, code, "")
    passed = 0
    while passed < 5 and not isinstance(charge_invalid(call, InvalidInputError("x")), QuotaExceededError):
        passed += 1
    assert passed == left
