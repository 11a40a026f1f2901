"""Requests over HTTP: their JSON, their binary tensors, and what is wrong with them."""

import json

import numpy as np
import pytest

from inferd.api.codec import RAW
from inferd.api.rest.decoder import RestDecoder
from inferd.api.wire_scanner import MAX_DIMENSIONS, MAX_PARAMETERS, MAX_TENSORS, MessageLimits
from inferd.errors import InvalidInputError
from inferd.http.messages import HttpMessage
from tests.unit.api.rest.bench import BINARY, BYTES, IN_JSON, MODEL, Model, X, decode, message


def _changed(**members):
    return {"inputs": [{**IN_JSON, **members}]}


def _error(sent, model=MODEL, limits=None):
    with pytest.raises(InvalidInputError) as refused:
        decode(sent, model, limits=limits)
    return refused.value


def test_whole_request():
    """With an id, parameters, outputs, and members that the protocol does not know."""
    content = {
        "id": "a",
        "model_name": "other",
        "parameters": {"timeout": 1_500_000, "priority": 1, "mine": [{}]},
        "inputs": [{**IN_JSON, "unknown": 1}],
        "outputs": [{"name": "t"}, {"name": "y", "parameters": {"binary_data": False, "mine": None}}],
    }
    incoming, request = decode(message(content, version="3"), MODEL)
    assert (incoming.name, incoming.version, incoming.request_id) == ("m", "3", "a")
    assert request.inputs["x"].tolist() == [[1, 2]]
    assert (request.outputs, request.priority, request.deadline) == (("t", "y"), 1, 1.5)


def test_null_members_count_as_absent():
    """Some clients write every field they know."""
    content = {"id": None, "parameters": None, "inputs": [{**IN_JSON, "parameters": None}], "outputs": None}
    incoming, request = decode(message(content), MODEL)
    assert (incoming.request_id, request.outputs) == ("", ("y", "t"))


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_binary_tensors_are_views(kind):
    """Of the body, in the order of the inputs, mixed with data in JSON; nobody writes into them."""
    model = Model(a=("INT8", 1), b=("FP32", 1), c=("BYTES", 1))
    inputs = [
        {"name": "c", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 11}},
        {"name": "a", "datatype": "INT8", "shape": [3], "data": [1, 2, 3]},
        {"name": "b", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}},
    ]
    sent = message({"inputs": inputs}, b"\2\0\0\0ab\1\0\0\0c", np.float32(0.5).tobytes())
    sent = HttpMessage(kind(sent.body), sent.path, sent.json_length)
    _, request = decode(sent, model)
    assert {name: array.tolist() for name, array in request.inputs.items()} == {
        "a": [1, 2, 3],
        "b": [0.5],
        "c": [b"ab", b"c"],
    }
    array = request.inputs["b"]
    assert not array.flags.writeable
    assert np.shares_memory(array, np.frombuffer(sent.body, np.uint8))


def test_empty_binary_tensors():
    """Triton's client sends no bytes for them, and says so."""
    content = {"inputs": [{**X, "shape": [0, 2], "parameters": {"binary_data_size": 0}}]}
    sent = message(content, b"")
    assert decode(sent, MODEL)[1].inputs["x"].shape == (0, 2)


@pytest.mark.parametrize(
    ("parameters", "outputs", "expected"),
    [
        ({}, [], (True, [])),
        ({"binary_data_output": True}, [], None),
        ({"binary_data_output": False}, [], (True, [])),
        ({}, [{}], (True, [])),
        ({}, [{"binary_data": True}], None),
        ({}, [{"binary_data": False}], (True, [])),
        ({"binary_data_output": True}, [{}, {}], None),
        ({"binary_data_output": True}, [{"binary_data": False}, {}], (True, ["o1"])),
        ({}, [{"binary_data": True}, {}], (True, ["o0"])),
    ],
)
def test_form_of_answers(parameters, outputs, expected):
    """JSON, unless the request or an output says otherwise; the output takes precedence."""
    content = {
        "inputs": [IN_JSON],
        "parameters": parameters,
        "outputs": [{"name": f"o{number}", "parameters": each} for number, each in enumerate(outputs)],
    }
    form = RestDecoder().parse(message(content)).form
    if expected is None:
        assert form is RAW
    else:
        assert (form.as_lists, sorted(form.raw)) == expected


def test_outputs_may_be_named_again_in_the_same_form():
    """They are returned once, as in Triton."""
    binary = {"name": "y", "parameters": {"binary_data": True}}
    content = {"inputs": [IN_JSON], "outputs": [binary, {"name": "y"}], "parameters": {"binary_data_output": True}}
    incoming, request = decode(message(content), MODEL)
    assert incoming.form is RAW
    assert request.outputs == ("y",)


@pytest.mark.parametrize(
    ("content", "field", "said"),
    [
        ({"inputs": IN_JSON}, "inputs", "inputs: expected an array of objects, got an object"),
        ({"inputs": [1]}, "inputs[0]", "inputs[0]: expected an object, got an integer"),
        ({"inputs": [], "id": 5}, "id", "id: expected a string, got an integer"),
        (_changed(name=None), "inputs[0].name", "inputs[0].name: expected a string, got null"),
        ({"inputs": [{}]}, "inputs[0].name", "inputs[0].name: expected a string, got nothing"),
        (_changed(datatype=1), "inputs[0].datatype", "inputs[0].datatype: expected a string, got an integer"),
        (_changed(datatype="INT8"), "inputs[0].datatype", 'input "x": expected datatype FP32, got "INT8"'),
        (_changed(shape=2), "inputs[0].shape", "inputs[0].shape: expected an array of integers, got an integer"),
        (_changed(shape=[1, 2.5]), "inputs[0].shape", "expected integers from 0 to 9223372036854775807, got 2.5"),
        (_changed(shape=[-1, 2]), "inputs[0].shape", "expected integers from 0 to 9223372036854775807, got -1"),
        (
            _changed(shape=[True, 2]),
            "inputs[0].shape",
            "expected integers from 0 to 9223372036854775807, got a boolean",
        ),
        (_changed(shape=[2]), "inputs[0].shape", 'input "x": expected 2 dimensions, got shape [2]'),
        (_changed(shape=[1] * (MAX_DIMENSIONS + 1)), "inputs[0].shape", "expected at most 64 dimensions, got 65"),
        (_changed(shape=[0, 2**62], data=[]), "inputs[0].shape", "is too large"),
        (_changed(parameters=[]), "inputs[0].parameters", "inputs[0].parameters: expected an object, got an array"),
        (_changed(data=None), "inputs[0].data", "expected data, or binary data and the parameter binary_data_size"),
        ({"inputs": [IN_JSON, IN_JSON]}, "inputs[1].name", 'input "x": expected once, got it again'),
        ({"inputs": [{**IN_JSON, "name": "z"}]}, "inputs[0].name", 'input "z": expected one of "x"'),
        ({"inputs": []}, "inputs", 'input "x": '),
        ({"inputs": [{}] * (MAX_TENSORS + 1)}, "inputs", f"expected at most {MAX_TENSORS}, got {MAX_TENSORS + 1}"),
        ({"inputs": [IN_JSON], "outputs": [{}]}, "outputs[0].name", "outputs[0].name: expected a string, got nothing"),
        ({"inputs": [IN_JSON], "outputs": [{"name": "z"}]}, "outputs[0].name", 'output "z": expected one of'),
        (
            {"inputs": [IN_JSON], "parameters": {"priority": "1"}},
            'parameters["priority"]',
            "expected an integer, got a",
        ),
        ({"inputs": [IN_JSON], "parameters": {"priority": True}}, 'parameters["priority"]', "got a boolean"),
        ({"inputs": [IN_JSON], "parameters": {"priority": 99}}, 'parameters["priority"]', "priority: expected 1"),
        ({"inputs": [IN_JSON], "parameters": {"timeout": -1}}, 'parameters["timeout"]', "expected 0 or more micro"),
        ({"inputs": [IN_JSON], "parameters": {"timeout": 1e3}}, 'parameters["timeout"]', "expected an integer"),
        ({"inputs": [IN_JSON], "parameters": {"sequence_id": 7}}, 'parameters["sequence_id"]', "models with state"),
        ({"inputs": [IN_JSON], "parameters": {"triton_x": 7}}, 'parameters["triton_x"]', "no such reserved parameter"),
        (
            {"inputs": [IN_JSON], "parameters": {"binary_data_output": 1}},
            'parameters["binary_data_output"]',
            "expected a boolean, got an integer",
        ),
        (
            {"inputs": [IN_JSON], "parameters": {str(number): 1 for number in range(MAX_PARAMETERS + 1)}},
            "parameters",
            f"expected at most {MAX_PARAMETERS}, got {MAX_PARAMETERS + 1}",
        ),
        (
            _changed(parameters={"shared_memory_region": "r"}, data=None),
            'inputs[0].parameters["shared_memory_region"]',
            'parameter "shared_memory_region" is not supported',
        ),
        (
            _changed(parameters={"shared_memory_region": "r"}),
            'inputs[0].parameters["shared_memory_region"]',
            'parameter "shared_memory_region" is not supported',
        ),
        (
            {"inputs": [IN_JSON], "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]},
            'outputs[0].parameters["binary_data"]',
            'output "y": parameter "binary_data": expected a boolean, got a string',
        ),
        (
            {"inputs": [IN_JSON], "outputs": [{"name": "y", "parameters": {"classification": 1.5}}]},
            'outputs[0].parameters["classification"]',
            "expected an integer, got a number with a fraction",
        ),
        (
            {"inputs": [IN_JSON], "outputs": [{"name": "y"}, {"name": "y", "parameters": {"binary_data": True}}]},
            'outputs[1].parameters["binary_data"]',
            'output "y": parameter "binary_data": expected false, as the first time, got true',
        ),
        (
            {"inputs": [IN_JSON], "outputs": [{"name": "y", "parameters": {"classification": 2}}, {"name": "y"}]},
            'outputs[1].parameters["classification"]',
            'output "y": parameter "classification": expected 2, as the first time, got 0',
        ),
        (
            {"inputs": [IN_JSON], "parameters": {"timeout": 2**70}},
            'parameters["timeout"]',
            "expected an integer, got a number beyond 64 bits",
        ),
    ],
)
def test_names_the_invalid_field(content, field, said):
    """With what was expected and what came, in the words of gRPC where the same thing is wrong."""
    error = _error(message(content))
    assert error.field == field
    assert said in error.message


@pytest.mark.parametrize(
    ("size", "tensors", "field", "said"),
    [
        (4, [BYTES], "inputs", "expected 4 bytes after the JSON, the sum of the binary_data_size of its inputs"),
        (8, [BYTES, b"x"], "inputs", "inputs, got 9"),
        (2**70, [BYTES], 'inputs[0].parameters["binary_data_size"]', "expected an integer of 0 or more"),
        (
            7,
            [BYTES[:7]],
            'inputs[0].parameters["binary_data_size"]',
            "expected 8 bytes for shape [1, 2] of FP32, got 7",
        ),
        (-1, [BYTES], 'inputs[0].parameters["binary_data_size"]', "expected an integer of 0 or more, got -1"),
        ("8", [BYTES], 'inputs[0].parameters["binary_data_size"]', "expected an integer of 0 or more, got a string"),
        (True, [BYTES], 'inputs[0].parameters["binary_data_size"]', "expected an integer of 0 or more, got a boolean"),
    ],
)
def test_sizes_of_binary_data(size, tensors, field, said):
    """Agree with the shapes and with the body, to the byte."""
    error = _error(message({"inputs": [{**X, "parameters": {"binary_data_size": size}}]}, *tensors))
    assert error.field == field
    assert said in error.message


def test_data_and_binary_data_exclude_each_other():
    """Else one of them would be ignored."""
    error = _error(message({"inputs": [{**BINARY, "data": [1, 2]}]}, BYTES))
    assert (error.field, error.message) == (
        'inputs[0].parameters["binary_data_size"]',
        'input "x": expected data or a binary_data_size, got both',
    )


JSON = json.dumps({"inputs": [BINARY]}).encode()


@pytest.mark.parametrize(
    ("body", "given", "said"),
    [
        (
            JSON + BYTES,
            None,
            f"expected {len(JSON)}, the length in bytes of the JSON that the",
        ),
        (JSON + BYTES, len(JSON) - 1, f"expected {len(JSON)}, the length in bytes of the JSON that the body"),
        (JSON + BYTES, len(JSON) + 8, f"expected {len(JSON)}, the length in bytes of the JSON that the body"),
        (JSON + BYTES, 1000, f"expected at most {len(JSON) + 8}, the length of the body in bytes, got 1000"),
        (JSON, None, 'expected the length of the JSON in bytes, because input "x" has a binary_data_size'),
    ],
)
def test_wrong_length_of_json(body, given, said):
    """The header that people forget, or count in characters: errors say the right value."""
    error = _error(HttpMessage(body, {"model": "m"}, given))
    assert error.field == "Inference-Header-Content-Length"
    assert error.message.startswith(f"Inference-Header-Content-Length: {said}")


DEEP = b'{"a":' * 900 + b"1" + b"}" * 900


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "it is empty (byte 0)"),
        (b" \n", "it is empty"),
        (b"[]", "expected a JSON object"),
        (b"null", "expected a JSON object"),
        (b"{", "is not valid JSON"),
        (b'{"a":1} x', "not valid JSON|length in bytes"),
        (b'{"a":[NaN,inf]}', "is not valid JSON"),
        (b'{"a":[NaN,1e999]}', "is not valid JSON"),
        (b'{"a":[NaN,1' + b"0" * 400 + b"]}", "is not valid JSON"),
        (b'{"a":[NaN],"b":"\\ud800"}', "is not valid JSON"),
        (b'{"a":[NaN],"b":"\xff"}', "is not valid JSON"),
        (b'{"a":[NaN],"a":1}', 'expected the name "a" once in an object'),
        (b'{"a":[NaN,' + b"[" * 5000, "is not valid JSON"),
        (b'{"a":1e999}', "number is infinity when parsed as double (byte 5)"),
        (b'{"a":"\\ud800"}', "is not valid JSON"),
        (b'{"a":"\xff"}', "is not valid JSON"),
        (b"[" * 5000, "depth limit exceeded"),
        (b'{"inputs":[],"inputs":[]}', 'expected the name "inputs" once in an object, got it again'),
        (b'{"inputs":[{"name":"x","n\\u0061me":"y"}]}', 'expected the name "name" once in an object'),
        (b'{"a":[1,{"b":1,"b" : 2}]}', 'expected the name "b" once in an object'),
        (DEEP[:-1] + b',"a":1}', 'expected the name "a" once in an object|nested too deep'),
        (
            b'{"inputs":[' + b"{}," * 1_000_000 + b"{}]}",
            "expected at most 65536 bytes of JSON beside the data of inputs",
        ),
        (b'{"a":"' + b"a" * 1_000_000 + b'"}', "expected at most 65536 bytes of JSON"),
        (b'{"inputs":[{"data":[' + b"1," * 100_000, "unexpected end of data"),
        (b"[" * 1_000_000, "unexpected end of data"),
        (b"]" * 1_000_000, "expected at most 65536 bytes"),
        (b'{"inputs":[{"name":[' + b"1," * 100_000 + b"1]}]}", "inputs[0].name: expected a string, got an array"),
    ],
)
def test_hostile_json(body, said):
    """Each is refused for what is wrong with it."""
    error = _error(message(body))
    assert any(each in error.message for each in said.split("|")), error.message


def test_equal_names_in_different_objects_are_no_duplicates():
    """Nor are colons in strings, or names that look like others."""
    content = {**_changed(), "note": ['":', "a:b", '"inputs":'], "other": {"inputs": {"inputs": []}}}
    decode(message(content), MODEL)


def test_elements_in_json_are_limited():
    """In all inputs together, and before they are parsed; binary tensors are not."""
    model = Model(x=("FP32", 2), z=("FP32", 1))
    content = {"inputs": [IN_JSON, {"name": "z", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}
    decode(message(content), model, limits=MessageLimits(elements=4))
    error = _error(message(content), model, MessageLimits(elements=3))
    assert error.field == "inputs[1].data"
    assert "expected at most 3 elements in the data of all inputs, got more; send the tensor as binary" in error.message
    decode(message({"inputs": [BINARY]}, BYTES), MODEL, limits=MessageLimits(elements=1))
