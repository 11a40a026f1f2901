"""Secrets are planted wherever they can enter, and searched for in all outputs."""

import base64
import http.client
import os
import re
import secrets
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from inferd.client import TLS, Client, InferdError
from inferd.security.authentication.bearer_tokens import StoredToken, format_entry, hash_token
from tests import onnx_models
from tests.certificates import LOCAL_NAMES, Authority, Files
from tests.load import add_model, connect, metric
from tests.patience import PATIENCE_S, eventually
from tests.server import BIN, ServerProcess, serving

#: Part of every planted secret, so that fragments are found as well.
MARK = f"plant{secrets.token_hex(8)}"
TOKEN = f"inferd_right-{MARK}"

#: Part of values that a model rejects.
PLANTED_NUMBER = 918273645192837

#: Both formats of the log contain it when a server is ready.
_PROPOSAL = re.compile(r"inferd models --address ([\d.:]+)")


def _jwt() -> str:
    parts = (f'{{"alg":"HS256","kid":"{MARK}"}}', f'{{"sub":"{MARK}"}}', MARK)
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


#: The search patterns: the mark, and its forms in base64.
TRACES = (MARK, base64.b64encode(MARK.encode()).decode(), *_jwt().split("."))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    Authority().save(folder)
    (folder / "tokens.yaml").write_text(format_entry(StoredToken(name="alice", sha256=hash_token(TOKEN))))
    return folder


@pytest.fixture(scope="module")
def files(folder) -> Files:
    authority = Authority()
    authority.save(folder)
    return authority.issue(*LOCAL_NAMES).save(folder)


@pytest.fixture(scope="module")
def server(folder, files) -> Iterator[ServerProcess]:
    """With all outputs enabled, and a secret in its environment."""
    settings = {
        "security.tls.cert_file": files.certificate,
        "security.tls.key_file": files.key,
        "security.metrics_tls": "false",
        "security.tokens_file": folder / "tokens.yaml",
        "log.level": "debug",
        "server.channelz": "true",
    }
    arguments = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    with serving(*arguments, environment={"INFERD_TOKEN": TOKEN}) as running:
        yield running


@pytest.fixture
def channel(server, folder) -> Iterator[grpc.Channel]:
    with grpc.secure_channel(server.grpc, grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes())) as channel:
        yield channel


def holds_none(output: object) -> bool:
    text = output.decode("latin-1") if isinstance(output, bytes) else str(output)
    return not any(trace in text for trace in TRACES)


def outcome(call: grpc.Call) -> str:
    """Wait for the end of a call, and return all that the caller gets."""
    return f"{call.initial_metadata()} {call.code()} {call.details()} {call.trailing_metadata()}"


def stream_outcome(stream: Iterable[object]) -> str:
    """Read a stream to its end, and return all that the caller gets."""
    answers = []
    with suppress(grpc.RpcError):
        answers.extend(stream)
    return f"{answers} {outcome(stream)}"


CREDENTIALS = {
    "right token": (("authorization", f"Bearer {TOKEN}"),),
    "wrong token": (("authorization", f"Bearer inferd_{MARK}"),),
    "JWT": (("authorization", f"Bearer {_jwt()}"),),
    "basic": (("authorization", f"Basic {base64.b64encode(MARK.encode()).decode()}"),),
    "not a scheme": (("authorization", MARK),),
    "two": (("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {MARK}")),
    "API key": (("x-api-key", MARK), ("authorization", f"Bearer {TOKEN}")),
    "API key alone": (("x-api-key", MARK),),
    "binary": (("x-secret-bin", MARK.encode()), ("cookie", f"session={MARK}"), ("authorization", f"Bearer {TOKEN}")),
}


@pytest.mark.parametrize("metadata", CREDENTIALS.values(), ids=CREDENTIALS)
def test_metadata(server, channel, metadata):
    """Of calls that are answered, rejected and invalid, to both services, unary and streaming."""
    lines = len(server.events("access"))
    own, open_inference = InferenceServiceStub(channel), GRPCInferenceServiceStub(channel)
    request = v1.InferRequest(model="digits")
    for call in (
        own.Infer.future(request, metadata=metadata, timeout=PATIENCE_S),
        own.ListModels.future(v1.ListModelsRequest(), metadata=metadata, timeout=PATIENCE_S),
        open_inference.ModelInfer.future(
            oip.ModelInferRequest(model_name="digits"), metadata=metadata, timeout=PATIENCE_S
        ),
    ):
        assert holds_none(outcome(call))
    messages = iter([v1.StreamInferRequest(requests=[request])])
    assert holds_none(stream_outcome(own.StreamInfer(messages, metadata=metadata, timeout=PATIENCE_S)))
    eventually(lambda: len(server.events("access")) >= lines + 4, "all four calls are in the log")
    assert holds_none(server.text)


def test_inputs(server, channel):
    """Neither valid nor invalid inputs are repeated anywhere."""
    stub = InferenceServiceStub(channel)
    right = CREDENTIALS["right token"]
    strings = v1.Tensor(name="X", shape=[1], strings=[MARK.encode()])
    call = stub.Infer.future(v1.InferRequest(model="digits", inputs=[strings]), metadata=right, timeout=PATIENCE_S)
    assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert holds_none(outcome(call))
    raw = v1.Tensor(name="X", shape=[1, 64], raw=(MARK.encode() * 16)[:256])
    stub.Infer(v1.InferRequest(model="digits", inputs=[raw]), metadata=right, timeout=PATIENCE_S)
    assert holds_none(server.text)


@pytest.fixture(scope="module", params=["json", "human"])
def failing(request, tmp_path_factory) -> Iterator[ServerProcess]:
    """With models that fail for some values, and all outputs enabled."""
    repository = tmp_path_factory.mktemp("failing")
    for model in (onnx_models.lookup, onnx_models.unknown_output_rank):
        add_model(repository, model.__name__, model())
    server = ServerProcess(repository, "--log-format", request.param, "--set", "log.level=debug")
    eventually(lambda: _PROPOSAL.search(server.text) is not None, "it is ready")
    server.grpc = _PROPOSAL.search(server.text)[1]
    yield server
    server.stop()


def test_values_of_failed_runs(failing):
    """ONNX Runtime's error quotes the value; the log names the node in the model, without the value."""
    good, bad = (v1.Tensor(name="index", shape=[1], ints=[index]) for index in (1, PLANTED_NUMBER))
    ones = v1.Tensor(name="x", shape=[1, 4], floats=[1] * 4)
    requests = [
        *(v1.InferRequest(model="lookup", inputs=[index]) for index in (good, bad, good)),
        v1.InferRequest(
            model="unknown_output_rank", inputs=[ones, v1.Tensor(name="shape", shape=[1], ints=[PLANTED_NUMBER])]
        ),
        # Rejected before it runs.
        v1.InferRequest(
            model="unknown_output_rank",
            inputs=[v1.Tensor(name="x", shape=[1, 4], floats=[1, 2, 3, float(PLANTED_NUMBER) ** 3]), good],
        ),
    ]
    with connect(failing.grpc) as channel:
        stub = InferenceServiceStub(channel)
        answers = stream_outcome(stub.StreamInfer(iter([v1.StreamInferRequest(requests=requests)]), timeout=PATIENCE_S))
        alone = [outcome(stub.Infer.future(request, timeout=PATIENCE_S)) for request in requests]
    assert str(PLANTED_NUMBER) not in f"{answers} {alone}"
    assert failing.stop() == 0
    assert "InvalidArgument in Gather" in failing.text
    assert "Fail in Reshape" in failing.text
    assert "running it again in parts" in failing.text
    assert str(PLANTED_NUMBER) not in failing.text


def test_http(server):
    """Headers and queries of all paths of the port, and of invalid requests."""
    for method, path, headers in [
        ("GET", "/metrics", {"Authorization": f"Bearer {TOKEN}", "Cookie": MARK}),
        ("GET", f"/readyz?verbose&token={MARK}", {"X-API-Key": MARK}),
        ("GET", f"/{MARK}", {}),
        ("POST", "/livez", {"Authorization": f"Basic {MARK}"}),
    ]:
        connection = http.client.HTTPConnection(server.http, timeout=PATIENCE_S)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        assert holds_none(response.getheaders())
        assert holds_none(response.read())
        connection.close()
    assert holds_none(server.text)


def test_invalid_private_key(server, files):
    """Half of a valid key: neither its lines nor errors of a library about it are logged."""
    key = files.key.read_text()
    half = key[: len(key) // 2]
    failures = metric(server, "inferd_file_reload_failures_total", file="tls")
    for broken in (half, f"{key}{MARK}", f"-----BEGIN PRIVATE KEY-----\n{MARK}\n-----END PRIVATE KEY-----\n"):
        files.key.write_text(broken)
        failures += broken != f"{key}{MARK}"
        eventually(
            lambda expected=failures: metric(server, "inferd_file_reload_failures_total", file="tls") == expected,
            "it is refused",
        )
    assert holds_none(server.text)
    assert not any(line in server.text for line in key.splitlines()[1:-1])
    files.key.write_text(key)


@pytest.mark.parametrize(
    "content",
    [f'- name: bob\n  sha256: "{MARK}"\n', f"{MARK}", f"- {{token: {MARK}}}\n", f'"{MARK}: [', f"bob: {MARK}\n"],
    ids=["hash", "only", "field", "not yaml", "mapping"],
)
def test_token_in_place_of_its_hash(server, folder, content):
    """The error about the token file does not quote it."""
    failures = metric(server, "inferd_file_reload_failures_total", file="tokens")
    good = (folder / "tokens.yaml").read_text()
    (folder / "tokens.yaml").write_text(content)
    eventually(lambda: metric(server, "inferd_file_reload_failures_total", file="tokens") > failures, "it is refused")
    assert holds_none(server.text)
    (folder / "tokens.yaml").write_text(good)


def test_server_state(server, channel):
    """Metrics, command line, and channelz, which lists every connection."""
    connection = http.client.HTTPConnection(server.http, timeout=PATIENCE_S)
    connection.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text"})
    assert holds_none(connection.getresponse().read())
    connection.close()
    assert holds_none(Path(f"/proc/{server.process.pid}/cmdline").read_bytes())
    right = CREDENTIALS["right token"]
    for method in ("GetServers", "GetTopChannels"):
        shown = channel.unary_unary(f"/grpc.channelz.v1.Channelz/{method}")(b"", metadata=right, timeout=PATIENCE_S)
        assert holds_none(shown)


def run(*command: str, **environment: str) -> str:
    """Run ``inferd`` and return all its output."""
    done = subprocess.run(
        [BIN / "inferd", *command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.stdout + done.stderr
    return done.stdout + done.stderr


def test_command_line(server, folder, files):
    """Calls that succeed and fail, with the token from the environment or from a file; and the settings."""
    ca = ("--address", server.grpc, "--ca", str(folder / "ca.pem"))
    token = folder / "token"
    token.write_text(TOKEN)
    url = f"https://user:{MARK}@issuer.example/jwks"
    jwt = {"INFERD_SECURITY__JWT__ISSUER": "issuer", "INFERD_SECURITY__JWT__AUDIENCE": "inferd"}
    with ThreadPoolExecutor(2) as pool:
        outputs = [
            pool.submit(run, *command, **environment)
            for command, environment in (
                (("models", *ca), {"INFERD_TOKEN": TOKEN}),
                (("models", *ca, "--token-file", str(token)), {}),
                (("models", *ca), {"INFERD_TOKEN": f"{MARK}\n{MARK}"}),
                (("models", "--address", "10.0.0.1:1"), {"INFERD_TOKEN": TOKEN}),
                (("config",), {"INFERD_TOKEN": TOKEN}),
                (("config",), {"INFERD_SECURITY__JWT__JWKS_URL": url, **jwt}),
                (("config",), {"INFERD_SECURITY__JWT": f'{{"jwks_url": "{url}"}}', **jwt}),
                (("config",), {"INFERD_SECURITY__JWT__SECRET": MARK}),
                (
                    ("serve", "--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"),
                    {"INFERD_SECURITY__JWT__JWKS_URL": url, **jwt},
                ),
            )
        ]
    assert all(holds_none(output.result()) for output in outputs)


def test_objects_of_client(folder):
    """Printing a client or its errors does not show its token."""
    with Client("127.0.0.1:1", token=TOKEN, tls=TLS(ca=folder / "ca.pem"), retry=None, timeout_s=5) as client:
        assert holds_none(repr(client))
        with pytest.raises(InferdError) as error:
            client.models()
    assert holds_none(f"{error.value!r} {error.value}")
