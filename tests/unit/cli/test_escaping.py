"""Text from servers and files is escaped before it reaches a terminal."""

import json

import grpc
import numpy as np
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.cli.output import print_json, print_table
from inferd.plain_text import escaped

HARMFUL = "x\nFORGED\x00\x1b[31m\x7f\x85\x9b\u2028\u202e\u200b"


def _is_harmless(text: str) -> bool:
    forged = [line for line in text.splitlines() if line.startswith("FORGED")]
    return escaped(text, keep="\n") == text and not forged


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_models(inferd, server, service, form):
    """Names, shapes and reasons, in a table and as JSON."""
    tensors = [pb.TensorInfo(name=HARMFUL, datatype=pb.DATA_TYPE_FP32, shape=[-1], dimension_names=[HARMFUL])]
    state = pb.Model.STATE_READY
    service.models = [
        pb.Model(name=HARMFUL, version=HARMFUL, state=state, reason=HARMFUL, inputs=tensors, outputs=tensors)
    ]
    result = inferd("models", "-a", server.address, *form)
    assert result.exit_code == 0
    assert "FORGED" in result.out
    assert _is_harmless(result.out)
    if form:
        assert json.loads(result.out)[0]["name"] == HARMFUL


def test_errors(inferd, server, service, tmp_path):
    """A message of the server is one line."""
    service.on_infer = lambda _, context: context.abort(grpc.StatusCode.INTERNAL, HARMFUL)
    np.save(tmp_path / "x.npy", np.zeros(1, np.float32))
    result = inferd("infer", "m", "-a", server.address, "-i", f"x=@{tmp_path / 'x.npy'}")
    assert result.exit_code == 1
    assert "FORGED" in result.err
    assert _is_harmless(result.err)
    assert result.err.count("\n") == 1


def test_json_values_survive_escaping(capsys):
    """A parser reads the original values."""
    value = {HARMFUL: [HARMFUL, "\ud800", "Grüße \u3000"]}
    print_json(value)
    out = capsys.readouterr().out
    assert json.loads(out) == value
    assert "Grüße \u3000" in out
    assert _is_harmless(out)


def test_table_cells_keep_their_lines(capsys):
    """A cell may have several lines."""
    print_table(["A"], [["one\ntwo\x1b"]])
    assert [line.strip() for line in capsys.readouterr().out.splitlines()[-2:]] == ["one", r"two\x1b"]
