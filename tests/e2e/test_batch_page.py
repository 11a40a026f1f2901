"""The commands of docs/batch.md, in the order of the page, on small files of the names that it uses; and its tables."""

import json
import re
import shlex
import subprocess
import sys

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import typer
from onnx import TensorProto, helper
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from inferd import demo
from inferd.batch import errors
from inferd.cli import batch
from inferd.cli.failures import ExitCode
from tests.patience import PATIENCE_S
from tests.server import ROOT, serving

PAGE = (ROOT / "docs/batch.md").read_text()
_SHELL = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
#: The jobs on the page, and the exit code that a comment gives for one.
COMMANDS = re.findall(r"^(inferd batch .*?)(?:\s+#[^#\n]*?(\d+)?)?$", _SHELL, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what the commands read."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "inferd").symlink_to(ROOT / "inferd")
    _write_digits(folder)
    _write_texts(folder)
    _write_pictures(folder)
    return folder


def _write_digits(folder):
    samples = demo.samples()
    rows = [
        {"id": f"d{number}", "truth": int(label), "pixels": picture.tolist()}
        for number, (picture, label) in enumerate(zip(samples.inputs, samples.labels, strict=True))
    ]
    _write_lines(folder / "rows.jsonl", rows)
    rows[1] = {**rows[1], "pixels": rows[1]["pixels"][:63]}
    _write_lines(folder / "broken.jsonl", rows)
    (folder / "scans").mkdir()
    header = ",".join(["id", *(f"p{number}" for number in range(64))])
    for name, part in (("a", rows[2:5]), ("b", rows[5:])):
        lines = [",".join([row["id"], *map(str, row["pixels"])]) for row in part]
        (folder / "scans" / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")


def _write_lines(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _write_texts(folder):
    """A model with MiniLM's inputs whose output is the number of tokens, and a tokenizer of a few words."""
    (folder / "minilm").mkdir()
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "sequence"])
    summed = helper.make_node("ReduceSum", ["both", "axes"], ["sentence_embedding"], keepdims=1)
    output = helper.make_tensor_value_info("sentence_embedding", TensorProto.INT64, ["batch", 1])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [helper.make_node("Mul", ["input_ids", "attention_mask"], ["both"]), summed]
    graph = helper.make_graph(nodes, "texts", [ids, mask], [output], [axes])
    _save(graph, folder / "minilm" / "model.onnx")
    words = Tokenizer(WordLevel({"[UNK]": 0, "the": 1, "cat": 2, "sat": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.save(str(folder / "minilm" / "tokenizer.json"))
    _write_lines(folder / "texts.jsonl", [{"id": number, "text": "the cat sat " * number} for number in (1, 3, 2, 1)])


def _write_pictures(folder):
    """A model that returns the mean of each channel, and pictures."""
    (folder / "photos").mkdir()
    for number in range(3):
        Image.fromarray(np.full((40, 60, 3), 80 * number, np.uint8)).save(folder / "photos" / f"{number}.jpg")
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)],
        "pictures",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    _save(graph, folder / "classify.onnx")


def _save(graph, path):
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


#: Runs commands one after another in one process, and prints the exit code and the output of each. Only starts of
#: Python are left out of them.
_RUNS = """
import io, json, sys
from contextlib import redirect_stdout
from inferd.cli import main
ran = []
for arguments in json.load(sys.stdin):
    with redirect_stdout(io.StringIO()) as printed:
        code = main(arguments)
    ran.append([code, printed.getvalue()])
json.dump(ran, sys.stdout)
"""


@pytest.fixture(scope="module")
def outputs(folder):
    """Run all commands of the page, and return what each printed."""
    with serving() as server:
        # What is found by trial takes seconds, and is the same for all of these.
        jobs = [
            [*shlex.split(command.replace("127.0.0.1:8001", server.grpc))[1:], "--batch-rows", "8"]
            for command, _ in COMMANDS
        ]
        done = subprocess.run(
            [sys.executable, "-c", _RUNS],
            cwd=folder,
            input=json.dumps(jobs),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
    ran = json.loads(done.stdout)
    assert [code for code, _ in ran] == [int(exit_code or 0) for _, exit_code in COMMANDS], done.stderr
    return {command: printed for (command, _), (_, printed) in zip(COMMANDS, ran, strict=True)}


def test_quick_start(folder, outputs):
    """It prints what the page shows, and the answers are there beside what was joined."""
    shown = re.search(r"```\n(output .*?)```", PAGE, re.DOTALL)[1]
    printed = next(iter(outputs.values()))
    assert printed.startswith(shown)
    answers = pq.read_table(folder / "answers.parquet")
    assert answers.column_names == ["label", "read"]
    assert answers["label"].to_pylist() == demo.samples().labels.tolist()
    assert not list(folder.glob("**/*.tmp*"))


def test_columns(folder, outputs):
    """Columns of one input, outputs under other names, joined columns and numbers of rows."""
    assert (folder / "read.csv").read_text().splitlines()[0] == '"id","label"'
    table = pq.read_table(folder / "read")
    assert table.column_names == ["source", "row", "id", "truth", "pixels", "digit", "probabilities"]
    assert table["row"].to_pylist() == list(range(10))


def test_chosen_rows(folder, outputs):
    """A filter, a sample and a limit."""
    assert pq.read_table(folder / "few.parquet").num_rows == 2
    assert pq.read_table(folder / "some.parquet").num_rows == 3


def test_texts_and_pictures(folder, outputs):
    """In the order of the files, with tokens of each text alone."""
    vectors = pq.read_table(folder / "vectors.parquet").to_pydict()
    assert vectors == {"id": [1, 3, 2, 1], "sentence_embedding": [[6], [18], [12], [6]]}
    assert [path[-5:] for path in pq.read_table(folder / "classes.parquet")["path"].to_pylist()] == [
        "0.jpg",
        "1.jpg",
        "2.jpg",
    ]


def test_broken_row(folder, outputs):
    """The row is in the file of errors, in the form of the page."""
    shown = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])
    (line,) = (folder / "broken-rows.jsonl").read_text().splitlines()
    assert json.loads(line) | {"message": shown["message"]} == shown


def test_shared_parts(folder, outputs):
    """Three processes have made the output of one."""
    names = sorted(path.name for path in (folder / "shared").glob("*.parquet"))
    assert names == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert json.loads((folder / "shared" / "_inferd" / "summary.json").read_text())["rows"] == 10


def test_table_of_errors():
    """It has all codes."""
    codes = {errors.INVALID_INPUT, errors.UNREADABLE, errors.NOT_PREPARED, errors.RUN_FAILED}
    assert codes == set(re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE))


def test_table_of_exit_codes():
    """It has all codes."""
    assert {str(int(code)) for code in ExitCode} == set(re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE))


def test_options():
    """Every option of jobs is on the page, but for those that say how to reach a server and what a run prints."""
    app = typer.Typer()
    app.command()(batch.batch)
    parameters = typer.main.get_command(app).params
    names = [parameter.opts[0] for parameter in parameters if parameter.opts[0].startswith("--")]
    connection = {"--token-file", "--allow-insecure-token", "--tls", "--ca", "--certificate", "--key", "--server-name"}
    missing = [name for name in names if f"`{name}" not in PAGE and f" {name} " not in PAGE and name not in connection]
    assert not {*missing} - {"--install-completion", "--show-completion"}
