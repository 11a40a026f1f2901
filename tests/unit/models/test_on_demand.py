"""Requests that wait for on-demand models, with a manager that does what the test says."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from inferd.errors import (
    DeadlineExceededError,
    InferenceFailedError,
    ModelLoadFailedError,
    ModelUnavailableError,
    OverloadedError,
    Retry,
    ServingError,
)
from inferd.models.on_demand import OnDemandLoads, has_room
from inferd.models.registry import ModelRegistry
from inferd.models.states import ModelState
from tests.fakes import FakeClock, ManualPollThread
from tests.unit.models.language_versions import IdleGenerator, language_version
from tests.unit.models.versions import version

Waiting = Callable[[], None]


class Bench:
    """The loads, and what became of the requests: "gone on", or their error, by name."""

    def __init__(self) -> None:
        self.clock = FakeClock(100.0)
        self.poll = ManualPollThread(self.clock)
        # As the real one, it calls nothing back at once.
        self.poll.busy = True
        self.asked: list[str] = []
        self.expected_s = 0.0
        self.room = 1000
        self.outcomes: dict[str, str | ServingError] = {}
        self.loads = OnDemandLoads(
            request_load=self.asked.append,
            expected_s=lambda _: self.expected_s,
            has_room=lambda _: len(self.outcomes) < self.room,
            poll_thread=self.poll,
            clock=self.clock,
            max_waiting=100,
        )

    def wait(self, request: str, model: str = "m", deadline: float = math.inf) -> Waiting:
        def end(outcome: str | ServingError) -> None:
            assert request not in self.outcomes, "a request ends once"
            self.outcomes[request] = outcome

        return self.loads.wait(model, deadline, lambda: end("gone on"), end)

    def load_ends(self, model: str = "m", error: ServingError | None = None) -> None:
        self.loads.ended(model, error)
        self.poll.run_soon()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_asks_once_however_many_wait(bench: Bench) -> None:
    """All go on in the order in which they came; the next one asks again."""
    for request in "abc":
        bench.wait(request)
    bench.wait("other", model="n")
    assert (bench.asked, bench.loads.waiting("m"), bench.loads.waiting("n")) == (["m", "n"], 3, 1)
    assert bench.outcomes == {}
    bench.load_ends()
    assert list(bench.outcomes.items()) == [("a", "gone on"), ("b", "gone on"), ("c", "gone on")]
    assert (bench.loads.waiting("m"), bench.loads.waiting("n")) == (0, 1)
    bench.wait("d")
    assert bench.asked == ["m", "n", "m"]
    assert bench.loads.cold_requests == {"m": 4, "n": 1}


def test_load_that_outlasts_the_deadline(bench: Bench) -> None:
    """The request is refused at once, with a hint; the load goes on, and others wait for it."""
    bench.expected_s = 2.5
    bench.wait("in a hurry", deadline=102.4)
    refused = bench.outcomes["in a hurry"]
    assert isinstance(refused, ModelUnavailableError)
    assert (refused.reason, refused.retry_after_s) == ("MODEL_LOADING", 2.5)
    assert refused.retry is Retry.NEVER, "a retry after that time would wait until the deadline, without this error"
    assert refused.message == 'model "m" is being loaded, in about 2.5 s, which is after the deadline'
    assert (bench.asked, bench.loads.waiting("m")) == (["m"], 0)
    bench.wait("patient", deadline=102.6)
    bench.clock.advance(2.0)
    bench.expected_s = 0.5
    bench.wait("late and quick", deadline=102.51)
    assert (bench.asked, bench.loads.waiting("m")) == (["m"], 2)
    bench.load_ends()
    assert bench.outcomes["patient"] == bench.outcomes["late and quick"] == "gone on"


def test_load_that_fails(bench: Bench) -> None:
    """Everyone that waits gets its error."""
    failed = ModelUnavailableError("it is damaged", retry_after_s=4.0)
    bench.wait("a")
    bench.wait("b")
    bench.load_ends(error=failed)
    assert bench.outcomes == {"a": failed, "b": failed}
    assert bench.loads.waiting("m") == 0


def test_load_that_is_cancelled(bench: Bench) -> None:
    """What the manager says of it is not for the callers of the model."""
    bench.wait("a")
    bench.load_ends(error=ModelLoadFailedError("failed to load 'm', the model is being unloaded"))
    failure = bench.outcomes["a"]
    assert isinstance(failure, ModelUnavailableError)
    assert failure.message == 'model "m" failed to load'


def test_withdrawn_request(bench: Bench) -> None:
    """It neither goes on nor fails; the load and the others are not touched."""
    withdraw = bench.wait("a", deadline=101.0)
    bench.wait("b")
    withdraw()
    withdraw()
    assert bench.loads.waiting("m") == 1
    bench.clock.advance(2.0)
    bench.poll.fire_due()
    bench.load_ends()
    assert (bench.outcomes, bench.asked) == ({"b": "gone on"}, ["m"])


def test_deadline_that_expires(bench: Bench) -> None:
    """The load took longer than expected, or nothing was known of it."""
    bench.wait("a", deadline=101.0)
    bench.wait("b", deadline=103.0)
    bench.clock.advance(1.0)
    bench.poll.fire_due()
    assert isinstance(bench.outcomes.pop("a"), DeadlineExceededError)
    assert bench.loads.waiting("m") == 1
    bench.load_ends()
    bench.clock.advance(5.0)
    bench.poll.fire_due()
    assert bench.outcomes == {"b": "gone on"}


def test_many_go_on_in_several_rounds(bench: Bench) -> None:
    """So that other calls get their turn; those that have not gone on yet count as waiting."""
    for number in range(70):
        bench.wait(str(number))
    bench.load_ends()
    assert 0 < len(bench.outcomes) < 70
    assert bench.loads.waiting("m") == 70 - len(bench.outcomes)
    bench.wait("new, for the next load")
    while bench.poll.soon:
        bench.poll.run_soon()
    assert list(bench.outcomes) == [str(number) for number in range(70)]
    assert (bench.loads.waiting("m"), bench.asked) == (1, ["m", "m"])


def test_queue_that_does_not_take_all(bench: Bench) -> None:
    """Those that it has no room for wait further, in their order, or until their deadline; a failed load ends all."""
    bench.room = 2
    for request in "abcd":
        bench.wait(request, deadline=105.0 if request == "c" else math.inf)
    bench.load_ends()
    assert list(bench.outcomes) == ["a", "b"]
    bench.clock.advance(1.0)
    bench.poll.fire_due()
    assert (list(bench.outcomes), bench.loads.waiting("m")) == (["a", "b"], 2)
    bench.clock.advance(4.0)
    bench.poll.fire_due()
    assert isinstance(bench.outcomes.pop("c"), DeadlineExceededError)
    bench.room = 9
    bench.clock.advance(1.0)
    bench.poll.fire_due()
    assert list(bench.outcomes) == ["a", "b", "d"]
    bench.room = 0
    bench.wait("e")
    bench.load_ends(error=ModelUnavailableError("it is damaged"))
    assert isinstance(bench.outcomes["e"], ModelUnavailableError)


def test_room_of_a_queue() -> None:
    """That of the highest version that is loaded; one that is not has nothing to wait for."""
    waiting = SimpleNamespace(rows=0, row_limit=4)
    models = ModelRegistry()
    models.add(version("m", "2", ModelState.FAILED))
    models.add(version("m", "1", batcher=SimpleNamespace(waiting=waiting)))
    models.add(version("cold", state=ModelState.ON_DEMAND, on_demand=True))
    rooms = []
    for waiting.rows in (3, 4, 5):
        rooms.append(has_room(models, "m"))
    assert rooms == [True, False, False]
    assert has_room(models, "cold")
    assert has_room(models, "gone")


def test_room_of_a_language_model() -> None:
    """Its queue counts tokens."""
    generator, models, rooms = IdleGenerator(), ModelRegistry(), []
    models.add(language_version(generator=generator))
    for generator.waiting_tokens in (99, 100):
        rooms.append(has_room(models, "lm"))
    assert rooms == [True, False]


def test_request_that_finds_its_model_cold_again(bench: Bench) -> None:
    """It asks for another load: the one that has ended does not count."""
    bench.loads.wait("m", math.inf, lambda: bench.wait("again") and None, lambda _: None)
    bench.load_ends()
    assert (bench.asked, bench.loads.waiting("m")) == (["m", "m"], 1)
    bench.load_ends()
    assert bench.outcomes == {"again": "gone on"}


def test_bound_of_waiting_requests(bench: Bench) -> None:
    """Over all models, so that requests to models that are loaded have room."""
    for number in range(100):
        bench.wait(str(number), model=f"m{number % 2}")
    bench.expected_s = 1.5
    bench.wait("one more")
    refused = bench.outcomes["one more"]
    assert isinstance(refused, OverloadedError)
    assert (refused.reason, refused.retry_after_s) == ("WAITING_FOR_MODELS", 1.5)
    assert bench.loads.waiting("m") == 0


def test_request_that_cannot_be_resumed(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A bug in one ends that one, and no other."""

    def broken() -> None:
        raise KeyError("a bug")

    failures: list[ServingError] = []
    bench.loads.wait("m", math.inf, broken, failures.append)
    bench.wait("b")
    bench.load_ends()
    assert [type(each) for each in failures] == [InferenceFailedError]
    assert bench.outcomes == {"b": "gone on"}
    assert "could not be resumed" in caplog.text


def test_drain(bench: Bench) -> None:
    """Who waits fails, and who comes later; nothing is loaded for them."""
    draining = ModelUnavailableError("the server is draining")
    bench.wait("a")
    bench.loads.drain(draining)
    bench.wait("b")
    bench.load_ends()
    assert bench.outcomes == {"a": draining, "b": draining}
    assert bench.asked == ["m"]
