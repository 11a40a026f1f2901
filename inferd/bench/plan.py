"""The plan of a run: the loads, the traffic and how they are measured."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from inferd.bench.inputs import InputSource
from inferd.bench.loads import Load, Trace
from inferd.bench.traffic import TrafficClass
from inferd.endpoint import Endpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The plan of a run.

    ``loads`` are the steps, in this order; with ``to_saturation`` the first load is raised until the server is
    saturated. ``principals`` has the endpoint, with its token, of each principal by name; "" is the default. Answers
    are compared within ``tolerance`` unless it is None. ``connections`` is the number of each process.
    """

    principals: Mapping[str, Endpoint]
    classes: tuple[TrafficClass, ...]
    loads: tuple[Load, ...]
    to_saturation: bool = False
    duration_s: float = 10.0
    warmup_s: float = 2.0
    retries: int = 0
    objective_ms: float | None = None
    inputs: InputSource = field(default_factory=InputSource)
    tolerance: float | None = None
    processes: int = 1
    connections: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for each in self.classes:
            if each.principal not in self.principals:
                known = ", ".join(filter(None, self.principals)) or "none"
                raise ValueError(f'--mix principal: expected one of --principal ({known}), got "{each.principal}"')
        if self.inputs.file is not None and (any(each.rows > 1 for each in self.classes) or self.trace_rows()):
            msg = "expected --input or rows, got both: recorded requests have the rows that they have"
            raise ValueError(msg)

    def trace_rows(self) -> set[int]:
        """Return the different numbers of rows in traces."""
        traces = (load for load in self.loads if isinstance(load, Trace))
        return {entry.rows for trace in traces for entry in trace.entries if entry.rows is not None}

    def describe(self) -> dict[str, object]:
        """Return the plan for reports, without tokens."""
        return {
            "duration_s": self.duration_s,
            "warmup_s": self.warmup_s,
            "objective_ms": self.objective_ms,
            "retries": self.retries,
            "seed": self.seed,
            "check": self.tolerance is not None,
            "tolerance": self.tolerance,
            "input_file": None if self.inputs.file is None else self.inputs.file.name,
            "shapes": {name: list(sizes) for name, sizes in self.inputs.sizes.items()},
            "classes": [asdict(each) for each in self.classes],
        }
