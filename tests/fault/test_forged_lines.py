"""Callers can neither forge log lines nor send terminal escape sequences to their reader."""

import re
import socket
import struct

import grpc
import pytest

from inferd import demo
from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from tests.load import connect
from tests.patience import PATIENCE_S, eventually
from tests.server import ServerProcess, serving

_FORGERY = "x\nFORGED\rFORGED\u2028FORGED\x1b[31mFORGED\x00\x7f\x85\x9b\u202e\u200b"

_PROPOSAL = re.compile(r"inferd models --address ([\d.:]+)")


@pytest.mark.parametrize("log_format", ["json", "human"])
def test_line_ends_and_control_characters(log_format):
    """In the model name and id of a request, and in a method: each call has one printable line."""
    server = ServerProcess("--log-format", log_format, "--set", "log.level=debug")
    try:
        eventually(lambda: _PROPOSAL.search(server.text) is not None, "it is ready")
        request = v1.InferRequest(model=_FORGERY, request_id=_FORGERY)
        with connect(_PROPOSAL.search(server.text)[1]) as channel:
            with pytest.raises(grpc.RpcError) as error:
                InferenceServiceStub(channel).Infer(request, timeout=PATIENCE_S)
            with pytest.raises(grpc.RpcError) as no_method:
                channel.unary_unary(f"/{_FORGERY}/FORGED".encode())(b"", timeout=PATIENCE_S)
    finally:
        assert server.stop() == 0
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    assert error.value.details().isprintable()
    assert no_method.value.code() is grpc.StatusCode.UNIMPLEMENTED
    lines = [line for line in server.text.split("\n") if "FORGED" in line]
    assert ["NOT_FOUND" in lines[0], "UNIMPLEMENTED" in lines[1]] == [True, True]
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 2


def _frame(kind, payload):
    """Return an HTTP/2 frame of the connection."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, 0]) + bytes(4) + payload


def test_text_in_goaway_is_not_logged():
    """The log of gRPC's core would contain it unescaped."""
    settings, internal_error = _frame(4, b""), struct.pack(">II", 0, 2)
    with serving(demo.repository()) as server:
        host, _, port = server.grpc.rpartition(":")
        with socket.create_connection((host, int(port)), PATIENCE_S) as peer:
            goodbye, ping = _frame(7, internal_error + _FORGERY.encode()), _frame(6, b"are you?")
            peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + goodbye + ping)
            received = b""
            while b"are you?" not in received:
                received += peer.recv(4096)
        assert server.stop() == 0
        assert "FORGED" not in server.text
