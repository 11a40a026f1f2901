"""`inferd infer`, `models` and `health` over HTTP, against a fake server."""

import json
import ssl
import subprocess
import sys

import numpy as np
import pytest

from tests.certificates import Authority
from tests.patience import PATIENCE_S
from tests.unit.cli.http_service import serving_http

LENGTH = "Inference-Header-Content-Length"

#: What `GET /v2/models?details=true` says of a model.
DIGITS = {
    "name": "digits",
    "version": "2",
    "state": "STATE_READY",
    "inputs": [
        {"name": "X", "datatype": "DATA_TYPE_FP32", "shape": [-1, 2], "dimension_names": ["rows", ""], "batch_axis": 0}
    ],
    "outputs": [{"name": "Y", "datatype": "DATA_TYPE_INT64", "shape": [-1], "batch_axis": 0}],
    "batching": {
        "enabled": True,
        "max_batch_size": 8,
        "max_wait": {"seconds": 0, "nanos": 2500000},
        "verdict": "VERDICT_PROVEN",
    },
    "residency": {"memory_bytes": 3145728, "load_duration": {"seconds": 1, "nanos": 500000000}},
    "newer": "ignored",
}
DESCRIBED = (200, {}, json.dumps({"models": [DIGITS]}).encode())


@pytest.fixture
def http():
    """A fake server."""
    with serving_http() as service:
        yield service


def _answer(outputs, raw=b"", **headers):
    content = json.dumps({"model_name": "digits", "model_version": "2", "outputs": outputs}).encode()
    return 200, {LENGTH: str(len(content)), **headers}, content + raw


def _failure(status, **content):
    return status, {"x-request-id": "abc"}, json.dumps(content).encode()


def test_infer_sends_and_reads_tensors_in_binary(inferd, http):
    """The type is the model's; the JSON says how long each tensor is."""
    output = {"name": "Y", "datatype": "INT64", "shape": [1], "parameters": {"binary_data_size": 8}}
    http.answers = [
        (200, {}, b"{}"),
        DESCRIBED,
        _answer([output], np.array([7]).tobytes(), **{"inferd-timing": "decode;dur=0.1, queue;dur=1.5, run;dur=2.25"}),
    ]
    done = inferd("infer", "digits", "-i", "X=[1, 2]", "-o", "Y", "-a", http.address)
    assert (done.exit_code, done.err) == (0, "")
    assert done.out == "Y  INT64 [1]\n  [7]\ndigits version 2: queued 1.50 ms, ran 2.25 ms\n"
    metadata, described, sent = http.requests
    assert (metadata.verb, metadata.path) == ("GET", "/v2/models/digits")
    assert described.path == "/v2/models?details=true&model=digits&version="
    assert (sent.verb, sent.path) == ("POST", "/v2/models/digits/infer")
    length = int(sent.headers[LENGTH.lower()])
    assert json.loads(sent.body[:length]) == {
        "inputs": [{"name": "X", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}],
        "outputs": [{"name": "Y"}],
        "parameters": {"binary_data_output": True},
    }
    assert sent.body[length:] == np.array([1, 2], np.float32).tobytes()
    assert 0 < int(sent.headers["x-request-timeout-ms"]) <= 30_000


def test_infer_names_version_and_quotes_names(inferd, http, tmp_path):
    """A .npy input needs no description of the model."""
    np.save(tmp_path / "x.npy", np.array(["a", "bc"]))
    http.answers = [_answer([])]
    done = inferd("infer", "a/ü", "--model-version", "3", "-i", f"X=@{tmp_path}/x.npy", "-a", f"{http.address}/prefix/")
    assert (done.exit_code, done.err) == (0, "")
    (sent,) = http.requests
    assert sent.path == "/prefix/v2/models/a%2F%C3%BC/versions/3/infer"
    length = int(sent.headers[LENGTH.lower()])
    assert json.loads(sent.body[:length])["inputs"][0]["datatype"] == "BYTES"
    assert sent.body[length:] == b"\x01\0\0\0a\x02\0\0\0bc"


def test_infer_reads_json_of_other_servers(inferd, http):
    """They may not know the binary form."""
    outputs = [
        {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "ü"]},
        {"name": "flat", "datatype": "FP32", "shape": [2, 1], "data": [1, 2.5]},
    ]
    http.answers = [(200, {}, json.dumps({"outputs": outputs}).encode())]
    done = inferd("infer", "m", "-a", http.address, "--json")
    content = json.loads(done.out)
    assert content["outputs"]["text"] == {"datatype": "BYTES", "shape": [2], "data": ["a", "ü"]}
    assert content["outputs"]["flat"] == {"datatype": "FP32", "shape": [2, 1], "data": [[1.0], [2.5]]}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            _answer([{"name": "Y", "datatype": "INT64", "shape": [1], "parameters": {"binary_data_size": 8}}], b"1234"),
            'output "Y": 4 bytes do not hold INT64 of shape [1]',
        ),
        ((200, {LENGTH: "99"}, b"{}"), f"{LENGTH}: expected at most 2, the length of the answer, got 99"),
        ((200, {}, b"<html>"), "expected an answer of the Open Inference Protocol, got other content"),
        (
            (200, {}, b'{"outputs": [{"name": "Y"}]}'),
            "expected an answer of the Open Inference Protocol, got other content: 'shape'",
        ),
    ],
)
def test_infer_refuses_answers_that_contradict_themselves(inferd, http, answer, text):
    """As the client over gRPC does."""
    http.answers = [answer]
    done = inferd("infer", "m", "-a", http.address)
    assert done.exit_code == 1
    assert done.err.startswith(f"inferd: INTERNAL: {text}")


def test_errors_are_those_of_grpc(inferd, http):
    """The name of the status, the server's text, its hint and the request's id."""
    http.answers = [_failure(400, error='input "X": expected FP32', reason="X", field="inputs[0]")]
    done = inferd("infer", "m", "-a", http.address)
    assert (done.exit_code, done.err) == (1, 'inferd: INVALID_ARGUMENT: input "X": expected FP32 (request abc)\n')


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            (404, {"Content-Type": "text/html"}, b"<html>"),
            "NOT_FOUND: expected an answer of the Open Inference Protocol, got HTTP status 404 with text/html",
        ),
        (
            (302, {"Location": "http://127.0.0.1:1/"}, b""),
            "UNKNOWN: expected an answer of the Open Inference Protocol, got HTTP status 302 with no content type",
        ),
        (
            (200, {"Content-Type": "text/plain"}, b"hello"),
            "UNKNOWN: expected an answer of the Open Inference Protocol, got HTTP status 200 with text/plain",
        ),
        ((502, {}, b"\x1b[31m"), "UNAVAILABLE: expected"),
    ],
)
def test_errors_of_other_servers(inferd, http, answer, text):
    """What answers at an address may be a proxy or something else; redirects are not followed."""
    http.answers = [answer]
    done = inferd("models", "-a", http.address)
    assert done.exit_code == 1
    assert done.err.startswith(f"inferd: {text}")
    assert len(http.requests) == 1


def test_models_are_listed_as_over_grpc(inferd, http):
    """From the descriptions, in which newer servers may have more."""
    http.answers = [DESCRIBED]
    done = inferd("models", "-a", http.address)
    assert (done.exit_code, done.err) == (0, "")
    for text in (
        "digits",
        "READY",
        "X FP32 [rows, 2]",
        "Y INT64 [?]",
        "up to 8 rows, waits 2.5 ms",
        "3 MiB, loaded in 1.5 s",
    ):
        assert text in done.out
    assert http.requests[0].path == "/v2/models?details=true"


def test_models_are_loaded_and_unloaded(inferd, http, tmp_path):
    """By Triton's repository extension, with files in base64."""
    (tmp_path / "config.json").write_text('{"backend": "onnxruntime"}')
    (tmp_path / "new.onnx").write_bytes(b"\x00\xff")
    http.answers = [(200, {}, b"{}"), DESCRIBED, (200, {}, b"{}")]
    override = ("--config", tmp_path / "config.json", "--file", f"1/model.onnx={tmp_path}/new.onnx")
    done = inferd("models", "load", "digits", *override, "--json", "-a", http.address)
    assert (done.exit_code, json.loads(done.out)[0]["version"]) == (0, "2")
    assert inferd("models", "unload", "digits", "-a", http.address).out == "unloaded digits\n"
    load, described, unload = http.requests
    assert load.path == "/v2/repository/models/digits/load"
    assert json.loads(load.body) == {
        "parameters": {"config": '{"backend": "onnxruntime"}', "file:1/model.onnx": "AP8="}
    }
    assert 590_000 < int(load.headers["x-request-timeout-ms"]) <= 600_000
    assert described.path == "/v2/models?details=true&model=digits"
    assert (unload.path, unload.body) == ("/v2/repository/models/digits/unload", b"{}")


def test_index_has_the_states_of_triton(inferd, http):
    """A model that was never loaded has only a name."""
    entries = [{"name": "a", "version": "1", "state": "READY"}, {"name": "b"}]
    http.answers = [(200, {}, json.dumps(entries).encode())]
    done = inferd("models", "index", "--ready", "--json", "-a", http.address)
    assert json.loads(done.out) == [
        {"name": "a", "version": "1", "state": "READY", "reason": ""},
        {"name": "b", "version": "", "state": "UNAVAILABLE", "reason": ""},
    ]
    assert json.loads(http.requests[0].body) == {"ready": True}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("models", "route", "digits"), 'the routing of model "digits" is read and changed over gRPC only'),
        (("models", "route", "digits", "--clear"), 'the routing of model "digits" is read and changed over gRPC only'),
        (("models", "load", "digits", "--version", "1"), "a version is loaded by itself over gRPC only"),
        (("models", "unload", "digits", "--version", "1"), "a version is unloaded by itself over gRPC only"),
        (("health", "--service", "startup"), "--service startup: over gRPC only"),
    ],
)
def test_says_what_rest_lacks(inferd, http, arguments, text):
    """Nothing is sent."""
    done = inferd(*arguments, "-a", http.address)
    assert (done.exit_code, http.requests) == (2, [])
    assert done.err.startswith(f"inferd: {text}")


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ("", "/v2/health/ready"),
        ("readiness", "/v2/health/ready"),
        ("liveness", "/v2/health/live"),
        ("digits", "/v2/models/digits/ready"),
        ("digits/2", "/v2/models/digits/versions/2/ready"),
    ],
)
def test_health(inferd, http, service, path):
    """Of the server and of models; not ready is no error of the call."""
    http.answers = [(200, {}, b'{"ready": true}'), (400, {}, b'{"ready": false}'), _failure(404, error="no such model")]
    arguments = ("health", "--service", service, "-a", http.address)
    assert inferd(*arguments).out == "SERVING\n"
    assert inferd(*arguments).err == f"inferd: {http.address}: NOT_SERVING\n"
    assert inferd(*arguments).err == f"inferd: {http.address}: NOT_FOUND: unknown service {service!r}\n"
    assert [request.path for request in http.requests] == [path] * 3


def test_health_is_checked_once(inferd, http):
    """A probe that waited would hide an overload."""
    http.answers = [_failure(429, error="too many calls", retry_after_ms=1)]
    done = inferd("health", "-a", http.address)
    assert (done.exit_code, done.err) == (1, f"inferd: {http.address}: RESOURCE_EXHAUSTED: too many calls\n")
    assert len(http.requests) == 1


def test_port_of_grpc(inferd, server):
    """Its bytes are not printed; the likely mistake is."""
    done = inferd("models", "-a", f"http://{server.address}")
    assert done.exit_code == 1
    assert done.err.endswith(
        ": expected HTTP, got other bytes; is it the port of gRPC, which is given without http://?\n"
    )


def test_unreachable_server(inferd):
    """The address and the reason."""
    done = inferd("health", "-a", "http://127.0.0.1:1")
    assert done.exit_code == 1
    assert (
        done.err == "inferd: http://127.0.0.1:1: UNAVAILABLE: no connection to http://127.0.0.1:1: Connection refused\n"
    )


def test_health_imports_little():
    """Neither gRPC nor the client, nor the server's packages."""
    code = (
        "import sys; from inferd.cli import main; main(['health', '-a', 'http://127.0.0.1:1'])\n"
        "heavy = {'grpc', 'numpy', 'google.protobuf', 'onnxruntime', 'inferd.client', 'inferd.config'}\n"
        "print('HEAVY', heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert "HEAVY set()" in done.stdout


def test_over_tls(inferd, tmp_path):
    """The CA is required; the name may be another; a client's certificate is shown."""
    authority, clients = Authority(), Authority()
    ca = authority.save(tmp_path)
    server = authority.issue("inferd.test").save(tmp_path)
    client = clients.issue("client").save(tmp_path, "client")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    context.load_verify_locations(clients.save(tmp_path, "clients"))
    context.verify_mode = ssl.CERT_REQUIRED
    shown = ("--certificate", client.certificate, "--key", client.key)
    with serving_http(context) as http:
        command = ("health", "-a", http.address)
        assert inferd(*command, "--ca", ca, "--server-name", "inferd.test", *shown).out == "SERVING\n"
        assert "UNAVAILABLE" in inferd(*command, "--ca", ca, "--server-name", "inferd.test").err
        assert "certificate verify failed" in inferd(*command, "--ca", ca, *shown).err
        assert "certificate verify failed" in inferd(*command, "--server-name", "inferd.test", *shown).err
        assert len(http.requests) == 1


def test_proxies_of_the_environment(inferd, http, monkeypatch):
    """As curl and gRPC: for other machines, and not for those in no_proxy."""
    monkeypatch.setenv("http_proxy", http.address)
    monkeypatch.setenv("no_proxy", "")
    assert inferd("health", "-a", "http://inferd.example:8000").out == "SERVING\n"
    assert http.requests[0].path == "http://inferd.example:8000/v2/health/ready"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert inferd("health", "-a", http.address).out == "SERVING\n"
    assert http.requests[1].path == "/v2/health/ready"


def test_token_is_sent(inferd, http, monkeypatch):
    """To this machine, or over TLS, or if that is allowed."""
    monkeypatch.setenv("INFERD_TOKEN", "secret")
    inferd("health", "-a", http.address)
    assert http.requests[0].headers["authorization"] == "Bearer secret"
    done = inferd("health", "-a", "http://inferd.example:8000")
    assert done.exit_code == 2
    assert 'the token would travel to "http://inferd.example:8000" for everyone on the way to read' in done.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ("-a", "ftp://inferd"),
            'address is "ftp://inferd", expected http://HOST:PORT or https://HOST:PORT, got the scheme ftp',
        ),
        (("-a", "http://"), "got no host"),
        (("-a", "http://a:0"), "got port 0"),
        (("-a", "http://a:x"), "got Port could not be cast"),
        (("-a", "http://me:pw@a"), "got a user; the token comes from --token-file"),
        (("-a", "http://a/?x=1"), "got a query or fragment"),
        (("-a", "http://a\u202e"), "got a character that cannot be seen"),
        (("-a", "http://a", "--ca", "ca.pem"), "TLS options: expected an address with https://, got http://a"),
        (("-a", "https://a", "--ca", "/no/such.pem"), "ca: No such file or directory"),
        (("-a", "https://a", "--key", "key.pem"), "certificate and key: expected both or none"),
        (("-a", "http://a", "--timeout", "nan"), "--timeout: expected at least 0 seconds, got nan"),
    ],
)
def test_invalid_options_are_usage_errors(inferd, arguments, text):
    """Exit code 2, and the reason."""
    done = inferd("health", *arguments)
    assert (done.exit_code, done.out) == (2, "")
    assert text in done.err
