"""Messages in JSON, as Triton writes them, and their schemas."""

import json

import pytest
from google.protobuf.json_format import ParseDict
from jsonschema import Draft202012Validator

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inference import grpc_service_pb2 as pb
from inferd._generated.inference import model_config_pb2 as config_pb
from inferd.api.json_messages import as_json, json_answer, read_body
from inferd.api.json_schema import message_schemas, reference
from inferd.api.json_text import kind_of, shown
from inferd.errors import InvalidInputError
from inferd.http.messages import HttpMessage

_CONFIG = config_pb.ModelConfig(
    name="größe",
    max_batch_size=8,
    input=[config_pb.ModelInput(name="x", data_type=config_pb.TYPE_FP32, dims=[-1, 2**40])],
    parameters={"a": config_pb.ModelParameter(string_value="b")},
    dynamic_batching=config_pb.ModelDynamicBatching(
        max_queue_delay_microseconds=2**63,
        priority_queue_policy={3: config_pb.ModelQueuePolicy(max_queue_size=5)},
    ),
    version_policy=config_pb.ModelVersionPolicy(all=config_pb.ModelVersionPolicy.All()),
)


def test_writes_names_and_numbers():
    """Its names, enums by name, large numbers as numbers, keys of maps as text, a set message without fields."""
    content = as_json(_CONFIG)
    assert (content["name"], content["max_batch_size"]) == ("größe", 8)
    assert content["input"][0]["data_type"] == "TYPE_FP32"
    assert content["input"][0]["dims"] == [-1, 2**40]
    assert content["parameters"] == {"a": {"string_value": "b"}}
    batching = content["dynamic_batching"]
    assert batching["max_queue_delay_microseconds"] == 2**63
    assert batching["priority_queue_policy"]["3"]["max_queue_size"] == 5
    assert content["version_policy"] == {"all": {}}
    assert ParseDict(json.loads(json_answer(content)), config_pb.ModelConfig()) == _CONFIG


def test_leaves_out_what_is_not_set():
    """Numbers, texts and lists are there all the same; messages and members of a choice are not."""
    content = as_json(config_pb.ModelConfig())
    assert content["max_batch_size"] == 0
    assert content["input"] == []
    assert content["parameters"] == {}
    assert content["platform"] == ""
    assert {"dynamic_batching", "ensemble_scheduling", "version_policy", "optimization"}.isdisjoint(content)
    assert as_json(pb.ModelRepositoryParameter(bool_param=False)) == {"bool_param": False}
    assert as_json(pb.ModelRepositoryParameter(bytes_param=b"\0")) == {"bytes_param": "AA=="}


def test_unknown_enum_is_a_number():
    """A number, as in protobuf's own JSON."""
    assert as_json(config_pb.ModelInput(data_type=99))["data_type"] == 99


@pytest.mark.parametrize("message", [_CONFIG, config_pb.ModelConfig(), v1.Model(), pb.ModelStatisticsResponse()])
def test_schemas_are_of_what_is_written(message):
    """Strictly: without other names, and with all that must be there."""
    schemas = {}
    name = message_schemas(message.DESCRIPTOR, schemas)
    validator = Draft202012Validator({"components": {"schemas": schemas}, **reference(name)})
    content = as_json(message)
    validator.validate(content)
    assert not validator.is_valid({**content, "other": 1})
    for required in schemas[name]["required"]:
        assert not validator.is_valid({key: value for key, value in content.items() if key != required})


def test_bodies():
    """An object, or nothing."""
    assert read_body(HttpMessage(b"")) == {}
    assert read_body(HttpMessage(b'{"a": [1]}')) == {"a": [1]}


@pytest.mark.parametrize("body", [b"[]", b"1", b"{", b'{"a": nan}', b"\xff", b"[" * 5000])
def test_malformed_bodies(body):
    """They are invalid requests."""
    with pytest.raises(InvalidInputError):
        read_body(HttpMessage(body))


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "null"), (True, "a boolean"), (1, "a number"), (1.5, "a number"), ("", "a string"), ([], "an array")],
)
def test_kinds(value, kind):
    """As JSON calls them."""
    assert kind_of(value) == kind


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (False, "false"),
        (1.5, "1.5"),
        ("high", '"high"'),
        ("user\n", '"user\\x0a"'),
        ("", '""'),
        ("o" * 99, f'"{"o" * 80}…"'),
        ("what was asked", "a string"),
        ([1], "an array"),
    ],
)
def test_values_in_errors(value, text):
    """Long or nested ones, and texts of several words, are not quoted."""
    assert shown(value) == text
