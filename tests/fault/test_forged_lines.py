"""Callers cannot write lines of their own into the log, nor paint the terminal of who reads it."""

import re

import grpc
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from tests.load import PATIENCE_S, connect, eventually
from tests.server import ServerProcess

_FORGERY = "x\nFORGED\rFORGED\u2028FORGED\x1b[31mFORGED\x00"

_PROPOSAL = re.compile(r"inferd models --address ([\d.:]+)")


@pytest.mark.parametrize("log_format", ["json", "human"])
def test_line_ends_and_control_characters(log_format):
    """In a name and an id of a request: each call leaves one line, which a terminal can show."""
    server = ServerProcess("--log-format", log_format, "--set", "log.level=debug")
    try:
        eventually(lambda: _PROPOSAL.search(server.text) is not None, "it is ready")
        address = _PROPOSAL.search(server.text)[1]
        request = v1.InferRequest(model=_FORGERY, request_id=_FORGERY)
        with connect(address) as channel, pytest.raises(grpc.RpcError) as error:
            InferenceServiceStub(channel).Infer(request, timeout=PATIENCE_S)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        eventually(lambda: "NOT_FOUND" in server.text, "the call is in the log")
    finally:
        assert server.stop() == 0
    (line,) = (line for line in server.text.split("\n") if "FORGED" in line)
    assert all(character.isprintable() or character == "\u2028" for character in line)
