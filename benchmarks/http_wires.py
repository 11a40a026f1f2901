"""The Open Inference Protocol over HTTP, and an echo of the same sizes."""

import json
from pathlib import Path

import numpy as np

from benchmarks import check, wrk
from benchmarks.models import Model, Row
from benchmarks.process import Placement, Result
from benchmarks.wires import Answer, all_alike, ask
from inferd import dtypes

_NAMES = {dtype.numpy: dtype.name for dtype in dtypes.ALL}
JSON_LENGTH = "Inference-Header-Content-Length"


class Rest:
    """Inference over HTTP, with tensors in binary form or as JSON, on the port ``beside`` the server's own."""

    def __init__(self, *, binary: bool = True, beside: int = 1) -> None:
        self._binary = binary
        self._beside = beside

    def takes(self, model: Model) -> bool:
        """Return whether all requests have the same shapes, because wrk sends a single one."""
        return all_alike(model)

    def ask(self, model: Model, port: int, row: Row) -> Answer:
        """Send one request and return its answer."""
        headers, body = request_of(row, binary=self._binary)
        answer_headers, answer = ask(port + self._beside, path_of(model), body, headers)
        length = int(answer_headers.get(JSON_LENGTH, len(answer)))
        rest, arrays = memoryview(answer)[length:], {}
        for output in json.loads(answer[:length])["outputs"]:
            dtype, size = (
                dtypes.BY_NAME[output["datatype"]].numpy,
                (output.get("parameters") or {}).get("binary_data_size"),
            )
            if size is None:
                arrays[output["name"]] = np.array(output["data"], dtype)
            else:
                arrays[output["name"]] = np.frombuffer(rest[:size], dtype)
                rest = rest[size:]
        return arrays

    def load(self, model: Model, port: int, concurrency: int, placement: Placement, folder: Path) -> Result:
        """Keep connections busy with wrk."""
        headers, body = request_of(model.rows()[0], binary=self._binary)
        url = f"http://127.0.0.1:{port + self._beside}{path_of(model)}"
        return wrk.measure(url, body, headers, concurrency, placement, folder)


class Echo(Rest):
    """The same requests to a server that answers as many bytes as inferd, without looking at the request."""

    def __init__(self) -> None:
        super().__init__(beside=0)

    def ask(self, model: Model, port: int, row: Row) -> Answer:
        """Send one request; return the right answer if that which comes has its size."""
        headers, body = request_of(row, binary=True)
        _, answer = ask(port, path_of(model), body, headers)
        right = right_answer(model, row)
        if len(answer) != answer_bytes(model):
            raise ValueError(f"expected {answer_bytes(model)} bytes, got {len(answer)}")
        return right


def request_of(row: Row, *, binary: bool) -> tuple[dict[str, str], bytes]:
    """Return headers and body of a request for one row."""
    inputs = []
    for name, array in row.items():
        tensor = {"name": name, "shape": [1, *array.shape], "datatype": _NAMES[array.dtype]}
        inputs.append(
            tensor
            | ({"parameters": {"binary_data_size": array.nbytes}} if binary else {"data": array.ravel().tolist()})
        )
    request = {"inputs": inputs, "parameters": {"binary_data_output": True}} if binary else {"inputs": inputs}
    head = json.dumps(request, separators=(",", ":")).encode()
    if not binary:
        return {"Content-Type": "application/json"}, head
    headers = {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(head))}
    return headers, head + b"".join(array.tobytes() for array in row.values())


def path_of(model: Model) -> str:
    """Return the path of inference."""
    return f"/v2/models/{model.served_as}/infer"


def right_answer(model: Model, row: Row) -> Answer:
    """Return the outputs of ONNX Runtime."""
    session = check.load(model)
    names = [output.name for output in session.get_outputs()]
    results = session.run(names, {name: array[None] for name, array in row.items()})
    return dict(zip(names, results, strict=True))


def answer_bytes(model: Model) -> int:
    """Return the size of the body of inferd's answer to one row."""
    outputs, size = [], 0
    for name, array in right_answer(model, model.rows()[0]).items():
        tensor = {"name": name, "datatype": _NAMES[array.dtype], "shape": array.shape}
        outputs.append(tensor | {"parameters": {"binary_data_size": array.nbytes}})
        size += array.nbytes
    head = {"model_name": model.served_as, "model_version": "1", "outputs": outputs}
    return len(json.dumps(head, separators=(",", ":"))) + size
