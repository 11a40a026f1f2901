"""Calls that load, unload and list models, with a fake manager."""

import logging
import threading

import pytest

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd.errors import ModelLoadFailedError, ModelNotFoundError
from inferd.models.load_override import LoadOverride
from inferd.models.manager import IndexEntry
from inferd.models.states import ModelState
from tests.patience import PATIENCE_S
from tests.unit.api.repository_bench import (
    CODES,
    Bench,
    RefusingManager,
)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_load_ends_with_outcome(bench: Bench) -> None:
    """Only then, with the versions that there are, or with the error."""
    loaded, failed = bench.load(version="02"), bench.load()
    assert [(each.name, each.version, each.override) for each in bench.manager.asked] == [
        ("digits", "2", None),
        ("digits", "", None),
    ]
    assert (loaded.ended, failed.ended) == (None, None)
    bench.manager.asked[0].on_done(None)
    bench.manager.asked[1].on_done(ModelLoadFailedError("failed to load 'digits', no version is available"))
    assert loaded.ended[0] is CODES.OK
    assert v1.LoadModelResponse.FromString(loaded.sent[0]).models == [v1.Model(name="digits", version="2")]
    assert failed.ended == (CODES.INTERNAL, "failed to load 'digits', no version is available")


def test_overrides_of_both_protocols(bench: Bench) -> None:
    """The configuration, and files by version and name."""
    files = {"1/model.onnx": b"x", "1/model.onnx.data": b"y"}
    bench.load(config="{}", files=files)
    bench.triton_load(
        config={"string_param": "{}"}, **{f"file:{path}": {"bytes_param": content} for path, content in files.items()}
    )
    bench.triton_load(config={"string_param": "{}"})
    assert [each.override for each in bench.manager.asked] == [
        LoadOverride(config="{}", files=files),
        LoadOverride(config="{}", files=files),
        LoadOverride(config="{}", files={}),
    ]


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"other": {"string_param": ""}}, "unrecognized load parameter 'other'."),
        ({"config": {"bool_param": True}}, "invalid value type for load parameter 'config', expected string_param."),
        (
            {"config": {"string_param": "{}"}, "file:1/a": {"string_param": ""}},
            "invalid value type for load parameter 'file:1/a', expected bytes_param.",
        ),
        (
            {"file:1/model.onnx": {"bytes_param": b""}},
            "config: expected the model's configuration as JSON beside files",
        ),
    ],
)
def test_refuses_parameters_as_triton(bench: Bench, parameters: dict, text: str) -> None:
    """With its texts."""
    call = bench.triton_load(**parameters)
    assert call.ended[0] is CODES.INVALID_ARGUMENT
    assert call.ended[1].startswith(text)
    assert bench.manager.asked == []


@pytest.mark.parametrize(
    "path",
    [
        "model.onnx",
        "1/",
        "/1/model.onnx",
        "../1/model.onnx",
        "1/../../model.onnx",
        "1/..",
        "1/.hidden",
        "01/model.onnx",
        "1/a/b",
        "x/model.onnx",
        "1/a\0",
        "1/\u202e",
        f"1/{'a' * 256}",
        f"{'1' * 19}/model.onnx",
        "",
    ],
)
def test_refuses_paths_of_files(bench: Bench, path: str) -> None:
    """Anything but a version and a plain name, in both protocols."""
    triton = bench.triton_load(config={"string_param": "{}"}, **{f"file:{path}": {"bytes_param": b""}})
    assert triton.ended[0] is CODES.INVALID_ARGUMENT
    assert "expected file:VERSION/NAME, for example file:1/model.onnx" in triton.ended[1]
    own = bench.load(config="{}", files={path: b""})
    assert own.ended[0] is CODES.INVALID_ARGUMENT
    assert "expected VERSION/NAME, for example 1/model.onnx" in own.ended[1]
    assert bench.manager.asked == []


@pytest.mark.parametrize("name", ["", "..", ".git", "a/b", "a" * 256, "a\n"])
def test_refuses_names(bench: Bench, name: str) -> None:
    """Those that no directory of a model has."""
    assert bench.load(name).ended[0] is CODES.INVALID_ARGUMENT
    assert bench.triton_load(name).ended[1].startswith("model_name: expected the name of a model, got")


@pytest.mark.parametrize("version", ["latest", "-1", "1.0", "1" * 19])
def test_refuses_versions(bench: Bench, version: str) -> None:
    """Those that are no numbers."""
    assert bench.load(version=version).ended == (CODES.INVALID_ARGUMENT, f'version: expected a number, got "{version}"')


def test_refuses_repository_name(bench: Bench) -> None:
    """As Triton, whose clients do not send it."""
    for method, kind in (
        ("RepositoryIndex", oip.RepositoryIndexRequest),
        ("RepositoryModelLoad", oip.RepositoryModelLoadRequest),
        ("RepositoryModelUnload", oip.RepositoryModelUnloadRequest),
    ):
        call = bench.call(method, kind(repository_name="r"))
        assert call.ended == (CODES.INVALID_ARGUMENT, "'repository_name' specification is not supported")


def test_refuses_too_many_files_unparsed(bench: Bench) -> None:
    """A message of many tiny parameters would hold the interpreter for long."""
    files = b"".join(v1.LoadModelRequest(files={f"1/{number}": b""}).SerializeToString() for number in range(300))
    call = bench.call("LoadModel", files)
    assert call.ended == (CODES.INVALID_ARGUMENT, "files: expected at most 256, got more")
    assert bench.call("LoadModel", b"\xff").ended[0] is CODES.INVALID_ARGUMENT


def test_large_message_is_read_by_another_thread(bench: Bench) -> None:
    """And refused if too many wait for it."""
    files = {"1/model.onnx": bytes(20_000)}
    bench.load(config="{}", files=files)
    assert bench.manager.asked == []
    bench.large.work.run()
    assert bench.manager.asked[0].override.files == files
    bench.large.full = True
    assert bench.load(config="{}", files=files).ended[0] is CODES.RESOURCE_EXHAUSTED


def test_unload(bench: Bench) -> None:
    """Of one version or all; for Triton's clients a model that is not there is unloaded."""
    parameters = {"unload_dependents": oip.ModelRepositoryParameter(bool_param=True)}
    request = oip.RepositoryModelUnloadRequest(model_name="digits", parameters=parameters)
    calls = [
        bench.call("UnloadModel", v1.UnloadModelRequest(model="digits", version="2")),
        bench.call("UnloadModel", v1.UnloadModelRequest(model="none")),
        bench.call("RepositoryModelUnload", request),
        bench.call("RepositoryModelUnload", request),
    ]
    missing, left = ModelNotFoundError("there is no model"), ModelLoadFailedError("failed to unload")
    for asked, outcome in zip(bench.manager.asked, (None, missing, missing, left), strict=True):
        asked.on_done(outcome)
    assert [(each.action, each.name, each.version) for each in bench.manager.asked] == [
        ("unload", "digits", "2"), ("unload", "none", ""), ("unload", "digits", ""), ("unload", "digits", ""),
    ]  # fmt: skip
    assert [call.ended[0] for call in calls] == [CODES.OK, CODES.NOT_FOUND, CODES.OK, CODES.INTERNAL]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("other", {"bool_param": True}, "unrecognized unload parameter 'other'."),
        (
            "unload_dependents",
            {"string_param": "true"},
            "invalid value type for 'unload_dependents' parameter, expected bool_param.",
        ),
    ],
)
def test_refuses_unload_parameters(bench: Bench, name: str, value: dict, text: str) -> None:
    """Unknown ones, and those of another type."""
    parameters = {name: oip.ModelRepositoryParameter(**value)}
    request = oip.RepositoryModelUnloadRequest(model_name="digits", parameters=parameters)
    assert bench.call("RepositoryModelUnload", request).ended == (CODES.INVALID_ARGUMENT, text)


def test_cancelled_call_gives_its_load_up(bench: Bench) -> None:
    """Whatever the load comes to."""
    call, other = bench.load(), bench.load()
    call.terminated()
    first, second = bench.manager.asked
    assert (first.cancelled, second.cancelled) == (True, False)
    first.on_done(ModelLoadFailedError("cancelled"))
    second.on_done(None)
    assert other.ended[0] is CODES.OK


def test_load_that_ends_before_it_could_be_given_up() -> None:
    """The manager may call back at once. A client that retries would get the same answer, so it is told not to."""
    call = Bench(manager=RefusingManager()).load()
    assert call.ended == (CODES.UNAVAILABLE, "not allowed")
    assert call.terminated is None
    assert call.trailing[b"grpc-retry-pushback-ms"] == b"-1"


def test_drain_gives_loads_up(bench: Bench) -> None:
    """Unloads go on; later calls are refused, and a late outcome has no effect."""
    load, unload = bench.load(), bench.call("UnloadModel", v1.UnloadModelRequest(model="digits"))
    bench.control.drain()
    refused = (CODES.UNAVAILABLE, "the server is draining")
    assert load.ended == refused
    assert bench.manager.asked[0].cancelled
    bench.manager.asked[0].on_done(None)
    bench.manager.asked[1].on_done(None)
    assert load.sent == []
    assert unload.ended[0] is CODES.OK
    assert bench.load().ended == refused


def _own_index(bench: Bench) -> list[tuple[str, str, str, str]]:
    call = bench.call("IndexModels", v1.IndexModelsRequest())
    assert call.has_ended.wait(PATIENCE_S)
    models = v1.IndexModelsResponse.FromString(call.sent[0]).models
    return [(each.name, each.version, v1.Model.State.Name(each.state), each.reason) for each in models]


def _triton_index(bench: Bench, *, ready: bool = False) -> list[tuple[str, str, str, str]]:
    call = bench.call("RepositoryIndex", oip.RepositoryIndexRequest(ready=ready))
    assert call.has_ended.wait(PATIENCE_S)
    models = oip.RepositoryIndexResponse.FromString(call.sent[0]).models
    return [(each.name, each.version, each.state, each.reason) for each in models]


def test_index_of_both_protocols(bench: Bench) -> None:
    """The same lines: Triton's states are fewer, and of models that were never loaded it has only the name."""
    assert _own_index(bench) == [
        ("broken", "1", "STATE_FAILED", "not an ONNX file"),
        ("cold", "1", "STATE_ON_DEMAND", ""),
        ("digits", "2", "STATE_READY", ""),
        ("digits", "1", "STATE_WARMING", ""),
        ("new", "", "STATE_UNAVAILABLE", ""),
    ]
    assert _triton_index(bench) == [
        ("broken", "1", "UNAVAILABLE", "not an ONNX file"),
        ("cold", "1", "UNAVAILABLE", "the next request loads it"),
        ("digits", "2", "READY", ""),
        ("digits", "1", "LOADING", ""),
        ("new", "", "", ""),
    ]


def test_index_of_ready_versions(bench: Bench) -> None:
    """Only those that answer requests."""
    assert _triton_index(bench, ready=True) == [("digits", "2", "READY", "")]


def test_every_state_has_a_name_in_each_protocol(bench: Bench) -> None:
    """So that no state can break the index."""
    bench.manager.entries = [IndexEntry("m", "1", state) for state in ModelState]
    assert len({state for _, _, state, _ in _own_index(bench)}) == len(ModelState)
    assert {state for _, _, state, _ in _triton_index(bench)} == {"READY", "LOADING", "UNLOADING", "UNAVAILABLE"}


def test_bounds_waiting_searches(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow directories do not collect calls."""
    goes_on = threading.Event()
    monkeypatch.setattr(bench.manager, "index", lambda: goes_on.wait(PATIENCE_S) and [])
    calls = [bench.call("IndexModels", v1.IndexModelsRequest()) for _ in range(100)]
    refused = [call for call in calls if call.ended is not None]
    assert {call.ended[0] for call in refused} == {CODES.RESOURCE_EXHAUSTED}
    assert len(calls) - len(refused) in {64, 65}, "one may be searching"
    goes_on.set()
    assert all(call.has_ended.wait(PATIENCE_S) for call in calls)


def test_admin_of_some_models() -> None:
    """Others can be neither loaded nor unloaded, whether or not they exist; the index has those that are visible."""
    bench = Bench(
        {"models": ["digits*"], "methods": ["admin"]},
        {"models": ["broken"], "methods": ["metadata"]},
        {"models": ["new"], "methods": ["infer"]},
    )
    bench.load("digits-2")
    assert [each.name for each in bench.manager.asked] == ["digits-2"]
    for call in (
        bench.load("broken"),
        bench.triton_load("none"),
        bench.call("UnloadModel", v1.UnloadModelRequest(model="broken")),
        bench.call("RepositoryModelUnload", oip.RepositoryModelUnloadRequest(model_name="new")),
    ):
        assert call.ended[0] is CODES.PERMISSION_DENIED
        assert call.ended[1].endswith("no rule allows this caller to call its admin methods")
    assert len(bench.manager.asked) == 1
    assert [line[:2] for line in _triton_index(bench)] == [("broken", "1"), ("digits", "2"), ("digits", "1")]


def test_charges_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call, whatever comes of it."""
    monkeypatch.setattr("inferd.api.admission.monotonic", lambda: 0.0)
    for ask in (
        lambda bench: bench.load(),
        lambda bench: bench.load(""),
        lambda bench: bench.load("other"),
        lambda bench: bench.call("UnloadModel", v1.UnloadModelRequest(model="digits")),
        lambda bench: bench.call("IndexModels", v1.IndexModelsRequest()),
        lambda bench: bench.call("RepositoryIndex", b"\xff"),
    ):
        bench = Bench({"models": ["digits"], "methods": ["admin"], "quota": {"requests_per_s": 1}})
        ask(bench)
        assert ask(bench).ended == (CODES.RESOURCE_EXHAUSTED, "the quota of 1 requests a second is used up")


def test_logs_who_did_what(caplog: pytest.LogCaptureFixture) -> None:
    """One line for each call, with its outcome."""
    caplog.set_level(logging.INFO, logger="inferd.api.repository")
    bench = Bench({"models": ["digits"], "methods": ["admin"]})
    bench.load(version="1")
    bench.load("other")
    bench.call("UnloadModel", v1.UnloadModelRequest(model="digits"))
    bench.load(config="{}")
    for asked, error in zip(bench.manager.asked, (None, None, ModelLoadFailedError("bad file")), strict=True):
        asked.on_done(error)
    lines = [
        (line.levelname, line.action, line.principal, line.model, line.version, line.overridden, line.outcome)
        for line in caplog.records
    ]
    assert lines == [
        ("WARNING", "load", "token:ann", "other", "", False, "PERMISSION_DENIED"),
        ("INFO", "load", "token:ann", "digits", "1", False, "OK"),
        ("INFO", "unload", "token:ann", "digits", "", False, "OK"),
        ("WARNING", "load", "token:ann", "digits", "", True, "INTERNAL"),
    ]
    assert caplog.records[-1].reason == "bad file"


def test_unexpected_error_ends_call(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Without internals in its status, and without an exception in the thread of the manager."""
    bench.registry.versions = None
    call = bench.load()
    bench.manager.asked[0].on_done(None)
    assert call.ended == (CODES.INTERNAL, "internal error")
    assert "NoneType" in caplog.text
