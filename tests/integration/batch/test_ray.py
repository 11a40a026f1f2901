"""Ray Data with a `Predictor`: the answers and errors of ``inferd batch``, in the rows' places."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inferd.batch.errors import UsageError
from inferd.batch.job import Job
from inferd.batch.options import JobOptions, RunOptions
from inferd.batch.ray import ERROR, ERROR_TYPE, Predictor, answered, failed
from inferd.config.settings import Settings
from tests import onnx_models

#: Row 5 has no value, and row 77 makes its run fail.
ROWS = pa.table(
    {
        "position": pa.array([{5: None, 77: 100}.get(row, row % 4) for row in range(100)], pa.int64()),
        "id": pa.array([f"r{row}" for row in range(100)]),
    }
)
ARGUMENTS = {"mapping": {"index": "position"}, "join": ["id"], "batch_rows": 16}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that answers ten times its index, and fails from 4 on."""
    return str(onnx_models.save(onnx_models.lookup(), tmp_path_factory.mktemp("model") / "lookup.onnx"))


@pytest.fixture
def predictor(model: str) -> Iterator[Predictor]:
    """The predictor of an actor."""
    made = Predictor(model, **ARGUMENTS)
    yield made
    made.close()


def test_answers_and_errors_are_those_of_a_job(predictor: Predictor, model: str, tmp_path: Path) -> None:
    """Rows without an answer keep their places, with nulls; the codes and messages are the same."""
    pq.write_table(ROWS, tmp_path / "rows.parquet")
    options = JobOptions(
        model=model,
        inputs=(str(tmp_path / "rows.parquet"),),
        output=str(tmp_path / "out"),
        **ARGUMENTS | {"join": ("id",)},
    )
    Job(options, RunOptions(), Settings()).run(Event())
    lines = (tmp_path / "out/_inferd/errors.jsonl").read_text().splitlines()

    table = predictor(ROWS)

    assert table["id"].equals(ROWS["id"])
    assert table.schema.field(ERROR).type == ERROR_TYPE
    assert answered(table).equals(pq.read_table(tmp_path / "out"))
    errors = [{"row": row, **error} for row, error in enumerate(table[ERROR].to_pylist()) if error is not None]
    assert errors == [{key: value for key, value in json.loads(line).items() if key != "source"} for line in lines]
    assert [error["row"] for error in errors] == [5, 77]
    assert failed(table)["id"].to_pylist() == ["r5", "r77"]
    assert failed(table)["y"].null_count == 2


def test_tables_of_any_size_have_one_schema(predictor: Predictor) -> None:
    """Empty ones, those in pieces, and those of failing rows only."""
    pieces = pa.concat_tables([ROWS.slice(0, 3), ROWS.slice(3, 3)])
    empty, whole, bad = predictor(ROWS.slice(0, 0)), predictor(pieces), predictor(ROWS.slice(5, 1))
    assert empty.schema == whole.schema == bad.schema
    assert (len(empty), len(whole), len(bad)) == (0, 6, 1)
    assert whole["y"].to_pylist() == [0, 10, 20, 30, 0, None]


def test_refuses_what_it_cannot_take(predictor: Predictor, model: str) -> None:
    """Another format of batches, columns that are missing, and a column where the errors go."""
    with pytest.raises(UsageError, match='expected batch_format="pyarrow" beside Predictor, got dict'):
        predictor({"position": np.zeros(3)})  # type: ignore[arg-type]  (what Ray passes by default)
    with pytest.raises(UsageError, match="--map index"):
        predictor(pa.table({"other": [1]}))
    other = Predictor(model, outputs={"y": ERROR}, mapping={"index": "position"})
    with pytest.raises(UsageError, match='column "error": that is the column of errors'):
        other(ROWS)
    other.close()


@pytest.mark.parametrize(
    ("given", "threads", "providers"), [({"CPU": 0.5}, 1, ["cpu"]), ({"CPU": 4, "GPU": 0.25}, 4, ["cuda"])]
)
def test_actors_use_what_ray_gives_them(
    given: dict[str, float], threads: int, providers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU of another actor is not touched; what is set by hand takes precedence."""
    context = SimpleNamespace(get_actor_id=lambda: "actor", get_assigned_resources=lambda: given)
    ray = SimpleNamespace(is_initialized=lambda: True, get_runtime_context=lambda: context)
    monkeypatch.setitem(sys.modules, "ray", ray)
    opened: list[Settings] = []
    monkeypatch.setattr("inferd.batch.ray.open_local", lambda _, settings: opened.append(settings))
    Predictor("x", settings={"log.level": "debug"})
    Predictor("x", settings={"runtime.intra_op_threads": 7})
    assert [each.runtime.providers for each in opened] == [providers] * 2
    assert [each.runtime.intra_op_threads for each in opened] == [threads, 7]


@pytest.mark.filterwarnings("ignore")  # Ray's own, about its future and the machine.
def test_data_set_on_a_cluster() -> None:
    """One session in each actor, with the CPUs of the actor; tensors of Ray are inputs as they are."""
    ray = pytest.importorskip("ray")
    images = np.random.default_rng(1).integers(0, 17, (300, 64)).astype(np.float32)
    alone = Predictor("digits", settings={"runtime.intra_op_threads": 1})
    expected = alone(pa.table({"X": pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), 64)}))
    alone.close()
    # Only the actor needs a CPU: what the actor gives is not mapped or written by a task.
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        answers = ray.data.from_numpy(images).map_batches(
            Predictor,
            fn_constructor_kwargs={"model": "digits", "mapping": {"X": "data"}},
            batch_format="pyarrow",
            batch_size=128,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        table = pa.concat_tables(ray.get(answers.to_arrow_refs()))
    finally:
        ray.shutdown()
    assert table.equals(expected)
