"""Answers reach the requests that they belong to: many connections at once, with requests of all forms and sizes."""

import json
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np
import pytest

from inferd import dtypes
from tests import onnx_models
from tests.patience import PATIENCE_S
from tests.raw_http import RawAnswer, answers
from tests.server import ServerProcess, serving

LENGTH = "Inference-Header-Content-Length"
CONNECTIONS = 64


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose model answers what it is asked."""
    folder = tmp_path_factory.mktemp("models")
    model = onnx_models.identity(dtypes.BY_NAME["FP32"], ("batch", "length"))
    onnx_models.save(model, folder / "same" / "1" / "model.onnx")
    with serving(folder) as running:
        yield running


@dataclass(frozen=True)
class Sent:
    """A request, and the answer that it must get: its own rows, or 404."""

    text: bytes
    name: str
    rows: np.ndarray
    is_known: bool


def request(choose: random.Random, name: str) -> Sent:
    shape = choose.choice([1, 1, 3]), choose.choice([1, 30, 3_000, 20_000])
    rows = np.random.default_rng(choose.getrandbits(32)).random(shape, np.float32)
    tensor: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": shape}
    content = {"id": name, "inputs": [tensor], "parameters": {"binary_data_output": choose.random() < 0.5}}
    is_binary, is_known = choose.random() < 0.6, choose.random() < 0.9
    if is_binary:
        tensor["parameters"] = {"binary_data_size": rows.nbytes}
    else:
        tensor["data"] = rows.tolist() if choose.random() < 0.5 else rows.ravel().tolist()
    text = json.dumps(content).encode()
    body = text + rows.tobytes() if is_binary else text
    head = f"POST /v2/models/{'same' if is_known else 'other'}/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}"
    if is_binary:
        head += f"\r\n{LENGTH}: {len(text)}"
    return Sent(f"{head}\r\n\r\n".encode() + body, name, rows, is_known)


def converse(address: str, number: int) -> None:
    """Send requests, in pieces and before the answers to others have come."""
    choose = random.Random(number)
    host, port = address.split(":")
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection,
        connection.makefile("rb") as received,
    ):
        for turn in range(4):
            ahead = [request(choose, f"{number}-{turn}-{each}") for each in range(choose.choice([1, 1, 4]))]
            # Answers that nobody reads yet must fit into the buffers between.
            ahead = ahead if sum(len(sent.text) for sent in ahead) < 200_000 else ahead[:1]
            text = b"".join(sent.text for sent in ahead)
            cut = choose.randrange(len(text))
            connection.sendall(text[:cut])
            connection.sendall(text[cut:])
            for sent in ahead:
                check(read(received), sent)


def read(received: IO[bytes]) -> RawAnswer:
    head = b"".join(iter(received.readline, b"\r\n"))
    (answer,) = answers(head + b"\r\n", to_head=True)
    return replace(answer, body=received.read(int(answer.headers["content-length"])))


def check(answer: RawAnswer, sent: Sent) -> None:
    assert answer.status == (200 if sent.is_known else 404), answer
    if not sent.is_known:
        return
    length = int(answer.headers.get(LENGTH.lower(), len(answer.body)))
    content = json.loads(answer.body[:length])
    assert content["id"] == sent.name
    (output,) = content["outputs"]
    values = output["data"] if "data" in output else np.frombuffer(answer.body[length:], np.float32)
    found = np.array(values, np.float32).reshape(output["shape"])
    np.testing.assert_array_equal(found, sent.rows)


def test_answers_are_not_mixed(server: ServerProcess) -> None:
    """Each request gets the answer to its own rows, whatever the others send."""
    assert server.rest is not None
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for each in [pool.submit(converse, server.rest, number) for number in range(CONNECTIONS)]:
            each.result()
