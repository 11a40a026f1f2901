"""The model configuration against the descriptors that Triton's own client carries."""

import subprocess

from google.protobuf import descriptor_pb2

from inferd._generated.inference import model_config_pb2
from tests.patience import PATIENCE_S
from tests.server import ROOT

_SCRIPT = """
import sys
from tritonclient.grpc import model_config_pb2
sys.stdout.buffer.write(model_config_pb2.DESCRIPTOR.serialized_pb)
"""


def test_is_tritons_field_by_field():
    """All messages, fields, numbers, types, oneofs and enum values are the same, and there are no others."""
    python = ROOT / ".venv/tritonclient/bin/python"
    done = subprocess.run([str(python), "-c", _SCRIPT], capture_output=True, timeout=PATIENCE_S, check=True)
    theirs = _facts(descriptor_pb2.FileDescriptorProto.FromString(done.stdout))
    ours = _facts(descriptor_pb2.FileDescriptorProto.FromString(model_config_pb2.DESCRIPTOR.serialized_pb))
    assert len(theirs) > 200
    assert ours == theirs


def _facts(file):
    """Return what a reader or writer of the messages depends on, by full name."""
    facts = {}
    for enum in file.enum_type:
        _add_enum(facts, enum, "")
    for message in file.message_type:
        _add_message(facts, message, "")
    return facts


def _add_message(facts, message, outer):
    path = f"{outer}{message.name}"
    facts[path] = "map entry" if message.options.map_entry else "message"
    for field in message.field:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
        facts[f"{path}.{field.name}"] = (field.number, field.label, field.type, field.type_name, oneof)
    for enum in message.enum_type:
        _add_enum(facts, enum, f"{path}.")
    for nested in message.nested_type:
        _add_message(facts, nested, f"{path}.")


def _add_enum(facts, enum, outer):
    facts[f"{outer}{enum.name}"] = {value.name: value.number for value in enum.value}
