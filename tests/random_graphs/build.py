"""Build a random model from a seed: inputs, a chain of blocks, and outputs."""

import random
from collections.abc import Callable

import numpy as np
from onnx import helper

from tests.random_graphs.catalogue import CROSSROW, ROUNDABOUT, ROWWISE, Block
from tests.random_graphs.graph import BATCH, FLOAT, LENGTH, Graph, Value
from tests.random_graphs.joins import join
from tests.random_graphs.masks import add_dead, add_rare
from tests.random_graphs.model import RandomModel, open_plain, run_plain
from tests.random_graphs.outputs import add_outputs
from tests.random_graphs.sources import add_inputs, declare
from tests.random_graphs.truth import truth

#: As in `tests.onnx_models`, with the operator sets that blocks need.
_OPSETS = {"": 20, "ai.onnx.ml": 3, "com.microsoft": 1, "tests.local": 1}
_IR_VERSION = 9

#: Maximum number of attempts for a seed.
_ATTEMPTS = 40
#: Number of requests to a model. Models whose answers are all alike, and those that mix rows without any
#: effect although it is not hidden, are kept only in part: they show little.
_TRIALS = 6
_CONSTANT_KEPT = 0.15
_INEFFECTIVE_KEPT = 0.05

#: Share of graphs with a block that mixes rows and separates them again.
_ROUNDABOUT_SHARE = 0.01

#: Ways to hide a block that mixes rows, with their frequencies.
_HIDING = {"": 82, "rare": 14, "dead": 4}


def make_graph(seed: int) -> RandomModel:
    """Build the model of ``seed``: always the same one.

    Models of odd seeds mix rows. Consecutive seeds cycle through the catalogue.
    """
    return _first_that_runs(str(seed), lambda name: _build_chain(Graph(name), seed))


def make_graph_of(block: Block, seed: int) -> RandomModel:
    """Build a model of one block of the catalogue."""
    return _first_that_runs(f"{block.name} {seed}", lambda name: _build_one(Graph(name), block))


def _first_that_runs(seed: str, build: Callable[[str], RandomModel]) -> RandomModel:
    for attempt in range(_ATTEMPTS):
        name = f"{seed} {attempt}"
        model = build(name)
        if _is_kept(model, random.Random(name).random()):
            return model
    msg = f"none of {_ATTEMPTS} attempts gave a model that runs"
    raise RuntimeError(msg)


def _is_kept(model: RandomModel, chance: float) -> bool:
    """Return whether a model runs and shows something; ``chance`` decides on those that show little."""
    answers = _some_answers(model)
    if any(answer is None for answer in answers):
        return False
    if chance >= _CONSTANT_KEPT and all(_same(answer, answers[0]) for answer in answers):
        return False
    return chance < _INEFFECTIVE_KEPT or not _mixes_for_nothing(model)


def _some_answers(model: RandomModel) -> list[list[np.ndarray] | None]:
    rng = np.random.default_rng(0)
    scene = model.scene(rng)
    try:
        session = open_plain(model.model)
    except Exception:  # noqa: BLE001  (ONNX Runtime raises many kinds, and any of them means the same here)
        return [None]
    return [run_plain(session, model.request(rng, 2, scene)) for _ in range(_TRIALS)]


def _same(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(left, right, strict=True))


def _mixes_for_nothing(model: RandomModel) -> bool:
    ways = model.mixing.values()
    return any(way != "dead" for way in ways) and truth(model, 0).safe


def _build_one(graph: Graph, block: Block) -> RandomModel:
    least_length = graph.pick([1, 1, 3])
    add_inputs(graph, only_one=True)
    last = block.add(graph, graph.inputs[0].value)
    return _model(graph, last, [block], {block.name: ""} if block in CROSSROW else {}, least_length)


def _build_chain(graph: Graph, seed: int) -> RandomModel:
    least_length = graph.pick([1, 1, 3])
    add_inputs(graph, only_one=False)
    plan = _plan(graph, seed)
    mixing: dict[str, str] = {}
    last = _add_chain(graph, plan, mixing)
    return _model(graph, last, plan, mixing, least_length)


def _plan(graph: Graph, seed: int) -> list[Block]:
    """Choose blocks: those whose turn it is with this seed, and random ones."""
    plan = [ROWWISE[seed % len(ROWWISE)]]
    for _ in range(graph.pick([0, 1, 1, 2, 2, 3, 3, 4, 5, 7, 10])):
        plan.insert(graph.rng.randint(0, len(plan)), graph.pick(ROWWISE))
    if graph.chance(_ROUNDABOUT_SHARE):
        plan.append(graph.pick(ROUNDABOUT))
    if seed % 2:
        mixing = [CROSSROW[seed // 2 % len(CROSSROW)], *[graph.pick(CROSSROW) for _ in range(graph.chance(0.25))]]
        for block in mixing:
            plan.insert(graph.rng.randint(0, len(plan)), block)
    return plan


def _add_chain(graph: Graph, plan: list[Block], mixing: dict[str, str]) -> Value:
    """Add blocks in sequence, sometimes with residual connections, until all inputs are used."""
    waiting = [spec.value for spec in graph.inputs[1:]]
    last = graph.inputs[0].value
    for block in plan:
        if waiting and graph.chance(0.5):
            last = join(graph, last, waiting.pop(0))
        if block in CROSSROW:
            last = _add_mixing(graph, block, last, mixing)
        else:
            last = _add_plain(graph, block, last, mixed=bool(mixing))
    for value in waiting:
        last = join(graph, last, value)
    return last


def _add_plain(graph: Graph, block: Block, before: Value, *, mixed: bool) -> Value:
    """Add a row-wise block, sometimes with a residual connection, more often if a block may lose its input."""
    after = block.add(graph, before)
    loses = after.kind != FLOAT or after.rank == 1
    probability = (0.9 if mixed else 0.6) if loses else 0.15
    return join(graph, after, before) if graph.chance(probability) else after


def _add_mixing(graph: Graph, block: Block, before: Value, mixing: dict[str, str]) -> Value:
    """Add a block that mixes rows, and note how it is hidden; one with its own output is not."""
    exposed = len(graph.exposed)
    after = block.add(graph, before)
    way = graph.rng.choices(list(_HIDING), list(_HIDING.values()))[0]
    if len(graph.exposed) > exposed:
        way = ""
    mixing[block.name] = way
    if way:
        return (add_rare if way == "rare" else add_dead)(graph, before, after)
    if graph.chance(0.3):
        graph.exposed.append(after)
    return after


def _model(graph: Graph, last: Value, plan: list[Block], mixing: dict[str, str], least_length: int) -> RandomModel:
    names = {BATCH: _name_of_rows(graph), LENGTH: graph.pick(["length", "time", "seq_len", None])}
    output_axes, outputs = add_outputs(graph, last, names, mixed=bool(mixing))
    inputs = [declare(spec.value, names) for spec in graph.inputs]
    proto = helper.make_graph(graph.nodes, "random", inputs, outputs, graph.constants)
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
    model = helper.make_model(
        proto, opset_imports=opsets, ir_version=_IR_VERSION, functions=graph.functions, producer_name="inferd.tests"
    )
    return RandomModel(
        model=model,
        recipe=graph.recipe,
        blocks=[block.name for block in plan],
        mixing=mixing,
        inputs=tuple(graph.inputs),
        output_axes=output_axes,
        least_length=least_length,
    )


def _name_of_rows(graph: Graph) -> str | None:
    """Choose the name of the batch dimension; if it is not the first, only its name identifies it."""
    if any(spec.value.axis for spec in graph.inputs):
        return graph.pick(["batch", "batch", "batch_size", "N"])
    return graph.pick(["batch", "batch", "batch_size", "N", "rows", "samples", None])
