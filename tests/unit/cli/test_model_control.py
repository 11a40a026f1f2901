"""``inferd models load``, ``unload`` and ``index`` against a fake server."""

import json

import grpc
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as pb


def _cells(line):
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_load(inferd, server, service):
    """Prints what is loaded, as `inferd models`; sends nothing but the name."""
    result = inferd("models", "load", "digits", "-a", server.address)
    assert result.exit_code == 0
    assert _cells(result.out.splitlines()[2])[:3] == ["digits", "1", "READY"]
    assert service.commands == [pb.LoadModelRequest(model="digits")]
    (model,) = json.loads(inferd("models", "load", "digits", "--json", "-a", server.address).out)
    assert (model["name"], model["state"]) == ("digits", "READY")


def test_load_with_overrides(inferd, server, service, tmp_path):
    """The configuration as it is, or a config.pbtxt as JSON, and files."""
    (tmp_path / "config.json").write_text('{"max_batch_size": 4}')
    (tmp_path / "config.pbtxt").write_text("max_batch_size: 8")
    (tmp_path / "new.onnx").write_bytes(b"\x00\xff")
    for name in ("config.json", "config.pbtxt"):
        options = ("--version", "2", "--config", tmp_path / name, "--file", f"2/model.onnx={tmp_path / 'new.onnx'}")
        assert inferd("models", "load", "digits", *options, "-a", server.address).exit_code == 0
    assert [(each.version, dict(each.files)) for each in service.commands] == [("2", {"2/model.onnx": b"\x00\xff"})] * 2
    assert [json.loads(each.config) for each in service.commands] == [{"max_batch_size": 4}, {"max_batch_size": 8}]


def test_unload(inferd, server, service):
    """A sentence, or JSON."""
    assert inferd("models", "unload", "digits", "-a", server.address).out == "unloaded digits\n"
    one = ("--version", "1", "-a", server.address)
    assert inferd("models", "unload", "digits", *one).out == "unloaded digits version 1\n"
    assert json.loads(inferd("models", "unload", "digits", "--json", *one).out) == {
        "unloaded": "digits",
        "version": "1",
    }
    assert service.commands[:2] == [
        pb.UnloadModelRequest(model="digits"),
        pb.UnloadModelRequest(model="digits", version="1"),
    ]


def test_index(inferd, server):
    """With models that were never loaded, and why one failed; or those that serve."""
    head, _, *lines = inferd("models", "index", "-a", server.address).out.splitlines()
    assert _cells(head) == ["NAME", "VERSION", "STATE", "REASON"]
    assert list(map(_cells, lines)) == [
        ["digits", "1", "READY"],
        ["broken", "3", "FAILED", "not an ONNX file"],
        ["new", "UNAVAILABLE"],
    ]
    ready = inferd("models", "index", "--ready", "--json", "-a", server.address)
    assert json.loads(ready.out) == [{"name": "digits", "version": "1", "state": "READY", "reason": ""}]


def test_index_without_models(inferd, server, service):
    """A sentence instead of an empty table."""
    service.models = service.never_loaded = []
    assert inferd("models", "index", "-a", server.address).out == "The repositories have no models.\n"
    assert inferd("models", "index", "--ready", "-a", server.address).out == "The repositories have no such models.\n"


@pytest.mark.parametrize("command", ["load", "unload"])
def test_failure(inferd, server, service, command):
    """One line on stderr, and exit code 1."""
    service.refusal = (
        grpc.StatusCode.INTERNAL,
        "failed to load 'digits', no version is available",
        "MODEL_LOAD_FAILED",
    )
    result = inferd("models", command, "digits", "-a", server.address)
    assert (result.exit_code, result.out) == (1, "")
    assert result.err == "inferd: INTERNAL: failed to load 'digits', no version is available\n"


def test_refuses_arguments(inferd, tmp_path):
    """Exit code 2, with what was expected, before anything is sent."""
    (tmp_path / "bad.pbtxt").write_text("max_batch_size: TEN")
    (tmp_path / "bad.json").write_bytes(b"\xff")
    for arguments, text in (
        (("--file", "1/model.onnx=x"), "--file: expected --config beside it"),
        (("--config", "model.yaml"), "--config: expected FILE.json or FILE.pbtxt, got model.yaml"),
        (("--config", tmp_path / "none.json"), "none.json: cannot be read: there is no such file or directory"),
        (("--config", tmp_path / "bad.json"), "bad.json: cannot be read: expected UTF-8 text"),
        (("--config", tmp_path / "bad.pbtxt"), "bad.pbtxt line 1"),
    ):
        result = inferd("models", "load", "digits", *arguments)
        assert result.exit_code == 2
        assert text in result.err


def test_refuses_files(inferd, tmp_path):
    """Each has a name and can be read."""
    config = tmp_path / "config.json"
    config.write_text("{}")
    for files, text in (
        (["model.onnx"], '--file: expected VERSION/NAME=FILE, got "model.onnx"'),
        ([f"1/model.onnx={tmp_path / 'none'}"], "none: cannot be read: there is no such file or directory"),
        ([f"1/model.onnx={config}"] * 2, "--file: expected each name once"),
    ):
        options = [part for file in files for part in ("--file", file)]
        result = inferd("models", "load", "digits", "--config", config, *options)
        assert result.exit_code == 2
        assert text in result.err


def test_options_belong_after_the_command(inferd):
    """Before it they would have no effect."""
    result = inferd("models", "--address", "127.0.0.1:1", "load", "digits")
    assert (result.exit_code, result.err) == (2, "inferd: expected options after load: inferd models load …\n")
