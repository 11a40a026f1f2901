"""Compressed bodies over HTTP: accepted within limits by a server that is set up so, otherwise refused."""

import gzip
import http.client
import json
import urllib.request
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests import onnx_models
from tests.patience import PATIENCE_S, eventually
from tests.server import ServerProcess, serving

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that accepts them."""
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(onnx_models.linear(), folder / "linear" / "1" / "model.onnx")
    settings = ("--set", "server.compressed_requests=true", "--set", f"server.max_message_bytes={MIB}")
    with serving(folder, *settings) as running:
        yield running


@pytest.fixture
def connection(server: ServerProcess) -> Iterator[http.client.HTTPConnection]:
    opened = http.client.HTTPConnection(server.rest, timeout=PATIENCE_S)
    yield opened
    opened.close()


def request(rows: int) -> bytes:
    tensor = {"name": "x", "shape": [rows, 3], "datatype": "FP32", "data": list(range(3 * rows))}
    return json.dumps({"inputs": [tensor]}).encode()


def ask(
    connection: http.client.HTTPConnection, body: bytes, encoding: str, path: str = "/v2/models/linear/infer"
) -> tuple[int, Any]:
    connection.request("POST", path, body, {"Content-Encoding": encoding})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def scrape(server: ServerProcess) -> str:
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=PATIENCE_S) as response:
        return response.read().decode()


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("Deflate", zlib.compress)])
@pytest.mark.parametrize("rows", [1, 4_000])
def test_is_inflated(connection: http.client.HTTPConnection, encoding: str, compress: Any, rows: int) -> None:
    """Whether it is short or long."""
    for _ in range(2):
        status, content = ask(connection, compress(request(rows)), encoding)
        assert (status, content["outputs"][0]["data"]) == (200, [2 * x + 1 for x in range(3 * rows)])


def test_binary_data(connection: http.client.HTTPConnection) -> None:
    """The header has the length of the JSON as it was before."""
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}
    text = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Content-Encoding": "gzip", "Inference-Header-Content-Length": str(len(text))}
    connection.request("POST", "/v2/models/linear/infer", gzip.compress(text + bytes(12)), headers)
    assert json.loads(connection.getresponse().read())["outputs"][0]["data"] == [1, 1, 1]


@pytest.mark.parametrize(
    ("body", "encoding", "path", "status", "text"),
    [
        (gzip.compress(request(50_000)), "gzip", None, 400, f"inflates to at most {MIB} bytes"),
        (b"x" * 50, "gzip", None, 400, "expected a message compressed with gzip"),
        (zlib.compress(request(1))[:-3], "deflate", None, 400, "one whole member of deflate"),
        (gzip.compress(request(1)), "deflate", None, 400, "expected a message compressed with deflate"),
        (gzip.compress(request(4_000)), "gzip", "/v2/repository/index", 413, "at most 65536 bytes, got 7"),
        (gzip.compress(request(1)), "gzip, gzip", None, 415, "none, gzip or deflate"),
        (request(1), "br", None, 415, "none, gzip or deflate"),
    ],
)
def test_refused(
    connection: http.client.HTTPConnection, body: bytes, encoding: str, path: str | None, status: int, text: str
) -> None:
    """What is not compressed as it says, or is too large; the connection goes on."""
    found, content = ask(connection, body, encoding, path or "/v2/models/linear/infer")
    assert found == status, content
    assert text in content["error"]
    if status != 413:
        assert content["field"] == "Content-Encoding"
    assert ask(connection, request(1), "identity")[0] == 200


def test_nothing_is_held_afterwards(server: ServerProcess, connection: http.client.HTTPConnection) -> None:
    """The memory of inflated bodies is given back."""
    assert ask(connection, gzip.compress(request(4_000)), "gzip")[0] == 200
    eventually(lambda: "\ninferd_message_bytes 0.0\n" in scrape(server), "given back")
