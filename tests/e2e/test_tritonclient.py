"""Clients of Triton and KServe, unmodified and in their own environments."""

import csv
import os
import subprocess

import pytest

from inferd.dtypes import BY_NAME
from tests import onnx_models
from tests.decoder_models import write_tiny_decoder
from tests.patience import PATIENCE_S
from tests.server import ROOT, serving

TOOLS = ROOT / ".venv"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Small models with the types that the client speaks."""
    folder = tmp_path_factory.mktemp("models")
    models = {
        "linear": onnx_models.linear(),
        "strings": onnx_models.strings(),
        "optional": onnx_models.optional_scale(),
        "fp16": onnx_models.cast_sum(BY_NAME["FP16"]),
        "bf16": onnx_models.cast_sum(BY_NAME["BF16"]),
    }
    for name, model in models.items():
        onnx_models.save(model, folder / name / "1" / "model.onnx")
    write_tiny_decoder(folder / "story" / "1")
    return folder


@pytest.fixture(scope="module")
def server(repository):
    with serving(repository) as running:
        yield running


def _http(server):
    return server.rest


def _run(script, *arguments, environment="tritonclient"):
    """Run a script with the clients of an environment."""
    command = [TOOLS / environment / "bin/python", ROOT / "tests/e2e" / script, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_python_client(server):
    """Metadata, configuration, statistics, infer, streams, types and errors; see the script."""
    done = _run("tritonclient_script.py", server.grpc)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("held") == 7


def test_python_clients_of_a_language_model(server):
    """Streams, whole answers, tokens and errors, blocking and with asyncio; see the script."""
    done = _run("tritonclient_generation.py", server.grpc)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("held") == 5


def test_python_clients_over_http(server):
    """The same with the blocking client, its asynchronous requests, and that of asyncio; see the script."""
    done = _run("tritonclient_http_script.py", _http(server))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("held") == 15


def test_kserve_client(server):
    """Health and inference, in JSON and binary, with KServe's client over HTTP; see the script."""
    done = _run("kserve_script.py", f"http://{_http(server)}", environment="kserve")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("held") == 1


def test_python_client_of_models_on_demand(repository):
    """The same script: a client does not notice that the models are loaded when it asks for them."""
    with serving(repository, "--set", "repository.on_demand=true") as running:
        done = _run("tritonclient_script.py", running.grpc)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("held") == 7


def test_python_clients_control_models(tmp_path):
    """Index, load with and without overrides, and unload, blocking and with asyncio; see the script."""
    for path in ("linear/1", "linear/2", "never/1"):
        onnx_models.save(onnx_models.linear(), tmp_path / "models" / path / "model.onnx")
    broken = tmp_path / "models" / "broken" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"not a model")
    with serving(tmp_path / "models", "--set", "repository.mode=explicit") as running:
        done = _run("tritonclient_repository.py", running.grpc, tmp_path / "models/never/1/model.onnx")
        over_http = _run("tritonclient_http_script.py", _http(running), tmp_path / "models/never/1/model.onnx")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("held") == 8
    assert over_http.returncode == 0, over_http.stdout + over_http.stderr
    assert over_http.stdout.count("held") == 2


@pytest.mark.parametrize("protocol", ["grpc", "http", "streaming"])
def test_perf_analyzer_sweeps(server, tmp_path, protocol):
    """The load generator finishes a sweep of concurrencies and reads the server's statistics."""
    report = tmp_path / "report.csv"
    command = [str(TOOLS / "perf_analyzer/perf_analyzer"), "-m", "linear", "-a"]
    command += ["-u", _http(server), "-i", "http"] if protocol == "http" else ["-u", server.grpc, "-i", "grpc"]
    command += [
        "--concurrency-range",
        "1:5:4",
        "-p",
        "100",
        "-s",
        "999",
        "-r",
        "20",
        "--verbose-csv",
        "-f",
        str(report),
    ]
    command += ["--max-threads", "2", *(["--streaming"] if protocol == "streaming" else [])]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(TOOLS / "perf_analyzer")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Inference count" in done.stdout, "it read ModelStatistics"
    with report.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["Concurrency"] for row in rows} == {"1", "5"}, "the report is ordered by throughput"
    assert all(float(row["Inferences/Second"]) > 0 for row in rows)
