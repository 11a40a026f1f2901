"""Invalid requests of both protocols, by name.

Each has its status code and a pattern of the error message; the fields are those that google.rpc.BadRequest names.
"""

import grpc

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inference import grpc_service_pb2 as oip

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def x_input(**fields):
    return v1.Tensor(**{"name": "x", "shape": [1, 3], "raw": b"\0" * 12, **fields})


def _a(**fields):
    return v1.Tensor(**{"name": "a", "shape": [1, 2], "floats": [1, 2], **fields})


def _b(**fields):
    return v1.Tensor(**{"name": "b", "shape": [1, 2], "ints": [1, 2], **fields})


def linear(*inputs, **fields):
    return v1.InferRequest(model="linear", inputs=inputs, **fields)


def _two(*inputs):
    return v1.InferRequest(model="two", inputs=inputs)


V1_CASES = {
    "no model named": (v1.InferRequest(), INVALID, "model: expected one of broken, linear"),
    "unknown model": (v1.InferRequest(model="nobody"), grpc.StatusCode.NOT_FOUND, 'no model "nobody"'),
    "name without end": (v1.InferRequest(model="\N{GRINNING FACE}" * 1000), grpc.StatusCode.NOT_FOUND, "no model.*…$"),
    "unknown version": (linear(x_input(), version="7"), grpc.StatusCode.NOT_FOUND, 'no version "7"'),
    "version of letters": (linear(x_input(), version="new"), grpc.StatusCode.NOT_FOUND, 'no version "new"'),
    "model that failed": (v1.InferRequest(model="broken"), grpc.StatusCode.UNAVAILABLE, '"broken".*failed to load'),
    "no inputs": (linear(), INVALID, r'input "x": expected FP32 \[.*3\], got no such input'),
    "missing input": (_two(_a()), INVALID, 'input "b": expected INT64'),
    "unknown input": (linear(x_input(name="z")), INVALID, 'input "z": expected one of "x"'),
    "input without name": (linear(x_input(name="")), INVALID, 'input "": expected one of "x"'),
    "one input too many": (linear(x_input(), x_input(name="z")), INVALID, 'input "z"'),
    "duplicate input": (linear(x_input(), x_input()), INVALID, 'input "x": expected once'),
    "wrong datatype": (
        linear(x_input(datatype=v1.DATA_TYPE_INT64)),
        INVALID,
        'input "x": expected datatype FP32, got INT64',
    ),
    "datatype from nowhere": (linear(x_input(datatype=99)), INVALID, 'input "x": expected datatype FP32, got 99'),
    "wrong rank": (linear(x_input(shape=[3])), INVALID, r'input "x": expected 2 dimensions, got shape \[3\]'),
    "wrong dimension": (
        linear(x_input(shape=[1, 4], raw=b"\0" * 16)),
        INVALID,
        r'input "x": expected .*3\], got \[1,4\]',
    ),
    "too few bytes": (linear(x_input(raw=b"\0" * 11)), INVALID, 'input "x": expected 12 bytes .* got 11'),
    "too many bytes": (linear(x_input(raw=b"\0" * 13)), INVALID, 'input "x": expected 12 bytes .* got 13'),
    "no elements": (linear(x_input(raw=b"")), INVALID, 'input "x": expected 12 bytes .* got 0'),
    "negative dimension": (linear(x_input(shape=[-1, 3])), INVALID, r'input "x": expected dimensions of 0 or more'),
    "overflowing dimensions": (linear(x_input(shape=[2**62, 2**62])), INVALID, 'input "x": expected .* bytes'),
    "empty overflow": (linear(x_input(shape=[2**62, 2**62, 0], raw=b"")), INVALID, 'input "x": expected 2 dimensions'),
    "zero rows": (linear(x_input(shape=[0, 3], raw=b"")), INVALID, 'input "x": expected at least 1 row'),
    "more rows than the queue": (
        v1.InferRequest(model="tiny", inputs=[x_input(shape=[65, 2], raw=b"\0" * 130)]),
        INVALID,
        "65 rows.*64|64.*65",
    ),
    "raw and typed": (
        linear(x_input(floats=[1, 2, 3])),
        INVALID,
        'input "x": expected its elements in one field, got raw',
    ),
    "two typed lists": (
        linear(x_input(raw=b"", floats=[1, 2, 3], ints=[1])),
        INVALID,
        'input "x": expected its elements in one field, got ints, floats',
    ),
    "strings for numbers": (linear(x_input(raw=b"", strings=["a"])), INVALID, 'input "x": expected values of FP32'),
    "too few values": (linear(x_input(raw=b"", floats=[1])), INVALID, 'input "x": expected 3 elements'),
    "value out of range": (
        v1.InferRequest(model="tiny", inputs=[x_input(shape=[1, 2], raw=b"", ints=[0, 300])]),
        INVALID,
        'input "x": expected INT8 values from -128 to 127, got another as element 1',
    ),
    "rows disagree": (_two(_a(), _b(shape=[2, 2], ints=[1, 2, 3, 4])), INVALID, 'input "b": expected 1 rows'),
    "lengths disagree": (_two(_a(), _b(shape=[1, 3], ints=[1, 2, 3])), INVALID, 'input "b": expected length = 2'),
    "shape to be guessed": (_two(_a(shape=[]), _b()), INVALID, 'input "a": expected a shape'),
    "cut string": (
        v1.InferRequest(model="strings", inputs=[v1.Tensor(name="text", shape=[1, 2], raw=b"\5\0\0\0ab")]),
        INVALID,
        'input "text": expected 5 bytes for element 0, got 2',
    ),
    "not text": (
        v1.InferRequest(model="strings", inputs=[v1.Tensor(name="text", shape=[1, 2], bytes_values=[b"\xff", b""])]),
        INVALID,
        'input "text": expected .*UTF-8',
    ),
    "two rows for one": (
        v1.InferRequest(model="single", inputs=[x_input(shape=[2, 3], raw=b"\0" * 24)]),
        INVALID,
        r'input "x": expected .*\[1,3\], got \[2,3\]',
    ),
    "unknown output": (linear(x_input(), outputs=["q"]), INVALID, 'output "q": expected one of "y"'),
    "priority out of range": (linear(x_input(), priority=5), INVALID, r"priority: expected 1 \(first\) to 3.* got 5"),
    "timeout below nothing": (linear(x_input(), timeout={"seconds": -1}), INVALID, "timeout: expected 0 or more"),
    "run that fails": (
        v1.InferRequest(model="lookup", inputs=[v1.Tensor(name="index", ints=[99])]),
        grpc.StatusCode.INTERNAL,
        "^the model failed to run this request$",
    ),
}

#: The field in google.rpc.BadRequest for each error that has one.
V1_FIELDS = {
    "no model named": "model",
    "no inputs": "inputs",
    "missing input": "inputs",
    "unknown input": "inputs[0].name",
    "input without name": "inputs[0].name",
    "one input too many": "inputs[1].name",
    "duplicate input": "inputs[1].name",
    "wrong datatype": "inputs[0].datatype",
    "datatype from nowhere": "inputs[0].datatype",
    "wrong rank": "inputs[0].shape",
    "wrong dimension": "inputs[0].shape",
    "too few bytes": "inputs[0].raw",
    "too many bytes": "inputs[0].raw",
    "no elements": "inputs[0].raw",
    "negative dimension": "inputs[0].shape",
    "overflowing dimensions": "inputs[0].raw",
    "empty overflow": "inputs[0].shape",
    "zero rows": "inputs[0].shape",
    "more rows than the queue": "inputs",
    "raw and typed": "inputs[0].floats",
    "two typed lists": "inputs[0].ints",
    "strings for numbers": "inputs[0].strings",
    "too few values": "inputs[0].floats",
    "value out of range": "inputs[0].ints",
    "rows disagree": "inputs[1].shape",
    "lengths disagree": "inputs[1].shape",
    "shape to be guessed": "inputs[0].shape",
    "cut string": "inputs[0].raw",
    "not text": "inputs[0].bytes_values",
    "two rows for one": "inputs[0].shape",
    "unknown output": "outputs[0]",
    "priority out of range": "priority",
    "timeout below nothing": "timeout",
}


def oip_x(**fields):
    return oip.ModelInferRequest.InferInputTensor(**{"name": "x", "datatype": "FP32", "shape": [1, 3], **fields})


def oip_request(*inputs, raw=(b"\0" * 12,), **fields):
    return oip.ModelInferRequest(**{"model_name": "linear", "inputs": inputs, "raw_input_contents": raw, **fields})


def _parameter(**value):
    return oip.InferParameter(**value)


_CONTENTS = oip.InferTensorContents(fp32_contents=[1, 2, 3])

OIP_CASES = {
    "unknown model": (oip_request(model_name="nobody"), grpc.StatusCode.NOT_FOUND, "nobody"),
    "wrong datatype": (oip_request(oip_x(datatype="INT64")), INVALID, 'input "x": expected datatype FP32, got "INT64"'),
    "no datatype": (oip_request(oip_x(datatype="")), INVALID, 'input "x": expected datatype FP32, got ""'),
    "wrong rank": (oip_request(oip_x(shape=[3])), INVALID, 'input "x": expected 2 dimensions'),
    "too few bytes": (oip_request(oip_x(), raw=[b"\0"]), INVALID, 'input "x": expected 12 bytes .* got 1'),
    "no contents": (oip_request(oip_x(), raw=[]), INVALID, 'input "x": expected 3 elements .* got 0'),
    "raw beside contents": (
        oip_request(oip_x(contents=_CONTENTS)),
        INVALID,
        'input "x": expected no contents beside raw',
    ),
    "one raw too many": (
        oip_request(oip_x(), raw=[b"", b""]),
        INVALID,
        "raw_input_contents: expected one entry for each of 1",
    ),
    "wrong list": (
        oip_request(oip_x(contents=oip.InferTensorContents(int_contents=[1, 2, 3])), raw=[]),
        INVALID,
        'input "x": expected FP32 in fp32_contents, got int_contents',
    ),
    "shared memory": (
        oip_request(oip_x(parameters={"shared_memory_region": _parameter(string_param="r")})),
        INVALID,
        'input "x": parameter "shared_memory_region" is not supported',
    ),
    "classification": (
        oip_request(
            oip_x(),
            outputs=[{"name": "y", "parameters": {"classification": _parameter(int64_param=-3)}}],
        ),
        INVALID,
        'output "y": parameter "classification": expected 1 class or more, got -3',
    ),
    "priority as text": (
        oip_request(oip_x(), parameters={"priority": _parameter(string_param="high")}),
        INVALID,
        'parameter "priority": expected an integer, got a string',
    ),
    "priority out of range": (
        oip_request(oip_x(), parameters={"priority": _parameter(uint64_param=2**63)}),
        INVALID,
        "priority: expected 1",
    ),
    "state": (oip_request(oip_x(), parameters={"sequence_id": _parameter(int64_param=1)}), INVALID, "state"),
    "reserved parameter": (
        oip_request(oip_x(), parameters={"triton_x": _parameter(bool_param=True)}),
        INVALID,
        "triton_x",
    ),
    "unknown output": (oip_request(oip_x(), outputs=[{"name": "q"}]), INVALID, 'output "q": expected one of "y"'),
    "state of a wrong type": (
        oip_request(oip_x(), parameters={"sequence_start": _parameter(int64_param=0)}),
        INVALID,
        'parameter "sequence_start": expected a boolean, got an integer',
    ),
}

OIP_FIELDS = {
    "wrong datatype": "inputs[0].datatype",
    "no datatype": "inputs[0].datatype",
    "wrong rank": "inputs[0].shape",
    "too few bytes": "raw_input_contents[0]",
    "no contents": "inputs[0].contents",
    "raw beside contents": "inputs[0].contents",
    "one raw too many": "raw_input_contents",
    "wrong list": "inputs[0].contents.int_contents",
    "shared memory": 'inputs[0].parameters["shared_memory_region"]',
    "classification": 'outputs[0].parameters["classification"]',
    "priority as text": 'parameters["priority"]',
    "priority out of range": 'parameters["priority"]',
    "state": 'parameters["sequence_id"]',
    "state of a wrong type": 'parameters["sequence_start"]',
    "reserved parameter": 'parameters["triton_x"]',
    "unknown output": "outputs[0].name",
}
