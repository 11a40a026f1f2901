"""Models come and go by the rules of the memory budget, whatever is asked for, in simulated time."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from inferd.models.residency import Claim, Memory, Residency, Resident

BUDGET = 100
STEP_S = 0.05
RUN_S = 0.2

sizes = st.lists(st.integers(min_value=5, max_value=60), min_size=2, max_size=6)
asked = st.lists(st.tuples(st.floats(0.0, 20.0), st.integers(0, 5)), min_size=1, max_size=60)


@dataclass
class Simulation:
    """Models of given sizes; a load takes 0.01 s for each byte, and a request 0.2 s."""

    sizes: list[int]
    now: float = 0.0
    loaded: dict[int, Resident] = field(default_factory=dict)
    busy_until: dict[int, float] = field(default_factory=dict)
    loading: dict[int, float] = field(default_factory=dict)
    line: list[int] = field(default_factory=list)
    first_since: float = 0.0
    answered: int = 0
    loads_at: dict[int, list[float]] = field(default_factory=dict)
    rules: Residency = field(default_factory=lambda: Residency(budget=Memory(BUDGET), min_residence_s=1.0))

    def ask(self, model: int) -> None:
        if model in self.loaded and not self.loaded[model].is_unloading:
            self.busy_until[model] = self.now + RUN_S
            self.answered += 1
        else:
            self.line.append(model)

    def step(self) -> None:
        self.now += STEP_S
        for model in [each for each, until in self.loading.items() if until <= self.now]:
            del self.loading[model]
            self.loaded[model] = self.resident(model)
            self.answer(model)
        for model in [each for each in self.loaded if self.loaded[each].is_unloading and not self.is_busy(each)]:
            del self.loaded[model]
        self.begin()

    def answer(self, model: int) -> None:
        self.answered += self.line.count(model)
        self.line = [each for each in self.line if each != model]
        self.busy_until[model] = self.now + RUN_S

    def begin(self) -> None:
        waiting = [each for each in dict.fromkeys(self.line) if each not in self.loading and each not in self.loaded]
        if not waiting:
            self.first_since = self.now
            return
        model, size = waiting[0], self.sizes[waiting[0]]
        claim = Claim(name=str(model), memory=Memory(size), least=Memory(size), since=self.first_since)
        residents = [self.resident(each) for each in self.loaded]
        decision = self.rules.decide(claim, residents, self.reserved(), self.now)
        assert decision.most is None
        for name in decision.evicted:
            leaver = self.resident(int(name))
            stays_s = self.rules.residence_s(leaver.load_s)
            assert self.now - leaver.loaded_at >= stays_s
            assert not leaver.is_busy or self.now - self.first_since >= 2 * stays_s
            self.loaded[int(name)] = self.resident(int(name), is_unloading=True)
        if decision.begins:
            self.loading[model] = self.now + size / 100
            self.loads_at.setdefault(model, []).append(self.now)
            self.first_since = self.now
        taken = sum(self.sizes[each] for each in (*self.loaded, *self.loading))
        assert taken <= BUDGET

    def reserved(self) -> Memory:
        return Memory(sum(self.sizes[each] for each in self.loading))

    def is_busy(self, model: int) -> bool:
        return self.busy_until.get(model, 0.0) > self.now

    def resident(self, model: int, *, is_unloading: bool = False) -> Resident:
        old = self.loaded.get(model)
        return Resident(
            name=str(model),
            memory=Memory(self.sizes[model]),
            loaded_at=self.now if old is None else old.loaded_at,
            load_s=self.sizes[model] / 100,
            last_used_at=self.busy_until.get(model, 0.0) - RUN_S,
            is_busy=self.is_busy(model),
            is_evictable=True,
            is_unloading=is_unloading or (old is not None and old.is_unloading),
        )


@given(sizes=sizes, asked=asked)
def test_keeps_the_budget_and_answers_every_request(sizes: list[int], asked: list[tuple[float, int]]) -> None:
    """No model leaves before its time; one in use leaves only after a load has waited for long."""
    simulation = Simulation(sizes)
    schedule = sorted((at, number % len(sizes)) for at, number in asked)
    while schedule:
        at, model = schedule[0]
        if at > simulation.now:
            simulation.step()
            continue
        schedule.pop(0)
        simulation.ask(model)
    # Each load waits at most for the time that the others stay, twice over, and for their runs and loads.
    for _ in range(int(len(sizes) * 6.0 / STEP_S)):
        simulation.step()
    assert simulation.answered == len(asked)


@given(sizes=st.tuples(st.integers(51, 100), st.integers(51, 100)))
def test_two_models_do_not_chase_each_other(sizes: tuple[int, int]) -> None:
    """With memory for one of them and requests for both all the time, at most every third second is spent on loads."""
    simulation = Simulation(list(sizes))
    for _ in range(1200):
        for model in (0, 1):
            if model not in simulation.line:
                simulation.ask(model)
        simulation.step()
    loads_s = sum(sizes[model] / 100 * len(times) for model, times in simulation.loads_at.items())
    assert len(simulation.loads_at) == 2
    assert loads_s <= simulation.now / 3 + 2.0
