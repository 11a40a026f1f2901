"""``inferd bench`` against a served model, and against a server of another kind."""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest

from inferd import demo
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference import grpc_service_pb2_grpc
from inferd.cli import main
from inferd.security.authentication.bearer_tokens import StoredToken, format_entry, hash_token
from tests.server import serving

#: So short that a run takes about a second, most of it to start the process that sends the load.
_SHORT = ("--duration", "0.303", "--warmup", "0.1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tokens of two principals, and requests."""
    folder = tmp_path_factory.mktemp("bench")
    names = ("alice", "bob")
    for name in names:
        (folder / f"{name}.token").write_text(f"inferd_{name}\n")
    entries = [StoredToken(name=name, sha256=hash_token(f"inferd_{name}"), expires=None) for name in names]
    (folder / "tokens.yaml").write_text("".join(map(format_entry, entries)))
    (folder / "trace.csv").write_text("seconds,rows\n5.0,3\n5.1,\n5.2,7\n")
    np.savez(folder / "requests.npz", X=np.ones((5, 64), np.float32))
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with serving(demo.repository(), "--set", f"security.tokens_file={folder}/tokens.yaml") as running:
        yield running


@pytest.fixture
def bench(server, folder, capsys):
    """Run the command and return its report."""

    def run(*arguments):
        token = ("--token-file", folder / "alice.token")
        assert main(["bench", server.grpc, "digits", *map(str, (*token, *_SHORT, *arguments)), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_checked_answers_from_two_processes(bench):
    """Every answer equals that of its input asked alone; what the server counted is beside."""
    report = bench("--rate", 100, "--arrivals", "constant", "--check", "--processes", 2)
    (step,) = report["steps"]
    assert report["target"]["server"]["name"] == "inferd"
    assert report["generator"]["engine"] == "Python, grpc.aio"
    assert step["requests"] == step["ok"] == 31
    assert step["wrong"] == 0
    assert step["latency_ms"]["p50"] <= step["latency_ms"]["p99"] <= step["latency_ms"]["max"]
    assert step["server"]["digits"].keys() >= {"rows", "runs", "mean_ms", "batches"}


def test_mix_of_rows_and_principals(bench, folder, server):
    """Each class is counted apart, and the server knows its principal."""
    report = bench(
        *("--rate", 200, "--arrivals", "constant", "--objective", 100_000, "--principal", f"bob={folder}/bob.token"),
        *("--mix", "name=one,rows=1,weight=2", "--mix", "name=four,rows=4,principal=bob,priority=1"),
    )
    (step,) = report["steps"]
    one, four = step["classes"]
    assert step["requests"] == one["requests"] + four["requests"] == 61
    assert step["goodput"]["share"] == 1.0
    assert 0 < four["ok"] < one["ok"]
    assert "inferd_bob" not in json.dumps(report)


def test_trace_with_rows(bench, folder):
    """Times count from the first; rows are those of the file, or else of the option."""
    step = bench("--trace", folder / "trace.csv", "--rows", 2)["steps"][0]
    assert step["load"] == {"kind": "trace", "requests": 3}
    assert (step["requests"], step["ok"]) == (3, 3)


def test_recorded_requests_and_saved_reports(bench, folder, capsys):
    """Requests of a file; reports are written, drawn and compared."""
    json_file, page = folder / "a.json", folder / "a.html"
    report = bench("--input", folder / "requests.npz", "--save", json_file, "--save", page, "--concurrency", "1,2")
    step, other = report["steps"]
    assert step["most_in_flight"] <= 1
    assert other["most_in_flight"] <= 2
    assert step["requests"] == step["ok"]
    assert step["rows_per_s"] == pytest.approx(5 * step["throughput_per_s"])
    assert "<svg" in page.read_text()
    assert main(["bench", "--compare", str(json_file), str(json_file)]) == 0
    out = capsys.readouterr().out
    assert "1 in flight" in out
    assert "throughput" in out


def test_interrupted_sweep_keeps_complete_steps(server, folder, capsys, monkeypatch):
    """Ctrl-C in the second step: the first one is reported, and the exit code says why it is the only one."""

    def show(self, live):
        if live.load["concurrency"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("inferd.cli.bench_output.LiveView.show", show)
    arguments = ("--token-file", f"{folder}/alice.token", "--concurrency", "1,2,3", "--json", *_SHORT)
    assert main(["bench", server.grpc, "digits", *arguments]) == 130
    report = json.loads(capsys.readouterr().out)
    assert report["interrupted"]
    assert [step["load"]["concurrency"] for step in report["steps"]] == [1]


def test_server_that_ends_during_a_sweep_is_not_saturated(capsys, monkeypatch):
    """The steps until then are reported, and the exit code and the message say why there are no others."""
    with _other_server(alone=1_000_000) as (address, server):

        def show(self, live):
            if live.load["concurrency"] == 2:
                server.stop(None)

        monkeypatch.setattr("inferd.cli.bench_output.LiveView.show", show)
        assert main(["bench", address, "double", "--concurrency", "1,2,4", "--json", *_SHORT]) == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["saturation"] is None
    assert [step["load"]["concurrency"] for step in report["steps"]] == [1, 2]
    assert report["steps"][0]["outage"] is None
    assert re.search(r"the server answered nothing from \d\.\d s on: UNAVAILABLE: ", err)
    assert report["steps"][1]["outage"]["text"] in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shape", "X:63"), "--shape X: expected sizes for [64], the shape without the rows, got [63]"),
        (("--shape", "Y:64"), '--shape Y: model "digits" has no such input, it has X'),
        (("--rate", "1", "--concurrency", "1"), "expected one of --concurrency, --rate and --trace, got"),
        (("--mix", "principal=carol"), '--mix principal: expected one of --principal (none), got "carol"'),
        (("--save", "report.txt"), "--save report.txt: expected a file .json or .html"),
        (("--save", "/none/a.json"), "--save /none/a.json: expected a directory that exists, got /none"),
        (("--input", "x.npz", "--rows", "2"), "expected --input or rows, got both"),
        (("--trace", "/does/not/exist"), "No such file"),
        (("--to-saturation", "--concurrency", "1,2"), "--to-saturation: expected one level"),
    ],
)
def test_invalid_arguments(server, folder, capsys, arguments, message):
    """Which option, what was expected and what came; before any load."""
    code = main(["bench", server.grpc, "digits", "--token-file", f"{folder}/alice.token", *arguments])
    assert code == 2
    assert message in capsys.readouterr().err


def test_failures_before_the_load(server, folder, capsys):
    """An unknown model, no address and no token."""
    assert main(["bench", server.grpc, "nope", "--token-file", f"{folder}/alice.token"]) == 1
    assert 'NOT_FOUND: there is no model "nope"' in capsys.readouterr().err
    assert main(["bench", server.grpc, "digits"]) == 1
    assert "UNAUTHENTICATED" in capsys.readouterr().err
    assert main(["bench"]) == 2
    assert "ADDRESS: expected one, got none" in capsys.readouterr().err


class _OtherServer(grpc_service_pb2_grpc.GRPCInferenceServiceServicer):
    """Doubles a number. Of the requests after the first ``alone`` ones it refuses one, and answers the next wrongly."""

    def __init__(self, alone):
        self._alone = alone
        self._lock = threading.Lock()
        self._calls = 0

    def ModelMetadata(self, request, context):  # noqa: N802  (the protocol's name)
        inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}]
        return oip.ModelMetadataResponse(name=request.name, inputs=inputs)

    def ModelInfer(self, request, context):  # noqa: N802  (as above)
        with self._lock:
            self._calls += 1
            number = self._calls - self._alone
        if number == 1:
            context.set_trailing_metadata([("grpc-retry-pushback-ms", "0")])
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        x = np.frombuffer(request.raw_input_contents[0], np.float32)
        y = 2 * x + (number == 2)
        outputs = [{"name": "y", "datatype": "FP32", "shape": [len(y), 1], "contents": {"fp32_contents": y}}]
        return oip.ModelInferResponse(outputs=outputs)


@contextmanager
def _other_server(alone):
    server = grpc.server(ThreadPoolExecutor(4))
    grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_OtherServer(alone), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", server
    finally:
        server.stop(None).wait()


def test_server_of_another_kind(folder, capsys):
    """No statistics, no reasons, typed answers: the report says what there is. Retries follow the hint."""
    (folder / "two.csv").write_text("0\n0\n")
    arguments = ("--trace", folder / "two.csv", "--check", "--retries", 1, "--json")
    with _other_server(alone=16) as (address, _):
        assert main(["bench", address, "double", *map(str, arguments)]) == 0
    (step,) = json.loads(capsys.readouterr().out)["steps"]
    assert "UNIMPLEMENTED" in step["server"]["double"]["unavailable"]
    assert (step["requests"], step["ok"], step["wrong"]) == (2, 1, 1)
    (retried,) = step["retried"]
    assert (retried["code"], retried["reason"], retried["count"]) == ("RESOURCE_EXHAUSTED", "", 1)
