"""Every operation of the REST form through a real server: as gRPC answers, and as the description says."""

import base64
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import grpc
import numpy as np
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families

from inferd._generated.inference import grpc_service_pb2 as pb
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from inferd._generated.inference.model_config_pb2 import ModelConfig
from inferd.api.openai.routes import PATHS as OPENAI_PATHS
from inferd.api.rest.routes import ABSENT, GENERATE, GENERATE_STREAM, PATHS, UNLOAD
from tests import onnx_models
from tests.patience import PATIENCE_S
from tests.server import ServerProcess, serving

_LABEL = "routing: {labels: {stable: 1}}\n"


@dataclass(frozen=True)
class Answer:
    """An answer: its status, its headers in lower case, and its body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        """The body, which is JSON."""
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


class Rest:
    """Asks over one connection."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, verb: str, path: str, content: object = None, headers: dict[str, str] | None = None) -> Answer:
        body = content if isinstance(content, bytes | None) else json.dumps(content)
        self._connection.request(verb, path, body, headers or {})
        response = self._connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())

    def get(self, path: str) -> Any:
        answer = self.ask("GET", path)
        assert answer.status == 200, answer
        return answer.content


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with two versions of a model with a label, one with another name than a path is likely to have."""
    folder = tmp_path_factory.mktemp("models")
    for version in ("1", "2"):
        onnx_models.save(onnx_models.linear(), folder / "linear" / version / "model.onnx")
    (folder / "linear" / "model.yaml").write_text(_LABEL)
    onnx_models.save(onnx_models.optional_scale(), folder / "a b" / "1" / "model.onnx")
    onnx_models.save(onnx_models.linear(), folder / "never" / "1" / "model.onnx")
    arguments = ("--model-control-mode", "explicit", "--load-model", "linear", "--load-model", "a b")
    with serving(folder, *arguments) as running:
        yield running


@pytest.fixture
def rest(server: ServerProcess) -> Iterator[Rest]:
    with Rest(server.rest) as connected:
        yield connected


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[Any]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield GRPCInferenceServiceStub(channel)


def _request(rows: int = 1) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": [rows, 3], "datatype": "FP32", "data": [[1, 2, 3]] * rows}]}


@pytest.mark.parametrize(
    ("path", "method", "query", "kind"),
    [
        ("/v2", "ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse),
        ("/v2/health/live", "ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse),
        ("/v2/health/ready", "ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse),
        ("/v2/models/linear", "ModelMetadata", pb.ModelMetadataRequest(name="linear"), pb.ModelMetadataResponse),
        (
            "/v2/models/a%20b/versions/1",
            "ModelMetadata",
            pb.ModelMetadataRequest(name="a b", version="1"),
            pb.ModelMetadataResponse,
        ),
        (
            "/v2/models/linear/versions/1/stats",
            "ModelStatistics",
            pb.ModelStatisticsRequest(name="linear", version="1"),
            pb.ModelStatisticsResponse,
        ),
        ("/v2/models/stats/", "ModelStatistics", pb.ModelStatisticsRequest(), pb.ModelStatisticsResponse),
    ],
)
def test_queries_are_answered_as_over_grpc(
    rest: Rest, stub: Any, path: str, method: str, query: Message, kind: type[Message]
) -> None:
    """Field by field: parsed back, the JSON is the message that gRPC brings; numbers and lists are there if empty."""
    found = rest.get(path)
    expected = getattr(stub, method)(query, timeout=PATIENCE_S)
    assert ParseDict(found, kind()) == expected
    assert _plain_fields(expected) <= found.keys()


@pytest.mark.parametrize("path", ["linear", "linear/versions/2", "a%20b", "linear/versions/stable"])
def test_configuration_is_that_of_grpc(rest: Rest, stub: Any, path: str) -> None:
    """Without a message around it, as Triton: with the names of enums, and numbers that are numbers."""
    name, _, version = path.replace("%20", " ").partition("/versions/")
    found = rest.get(f"/v2/models/{path}/config")
    expected = stub.ModelConfig(pb.ModelConfigRequest(name=name, version=version), timeout=PATIENCE_S).config
    assert ParseDict(found, ModelConfig()) == expected
    assert _plain_fields(expected) <= found.keys()
    assert found["input"][0]["data_type"] == "TYPE_FP32"
    if name == "linear":
        assert found["input"][0]["dims"] == [3]
        assert found["dynamic_batching"]["max_queue_delay_microseconds"] == 10_000
        assert "sequence_batching" not in found


def _plain_fields(message: Message) -> set[str]:
    return {field.name for field in message.DESCRIPTOR.fields if not field.has_presence}


def test_statistics_count_requests_of_both_protocols(rest: Rest, stub: Any) -> None:
    """As numbers."""

    def counted() -> int:
        (model,) = rest.get("/v2/models/linear/versions/2/stats")["model_stats"]
        count: int = model["inference_count"]
        return count

    before = counted()
    assert rest.ask("POST", "/v2/models/linear/versions/2/infer", _request(2)).status == 200
    x = pb.ModelInferRequest.InferInputTensor(name="x", shape=[1, 3], datatype="FP32")
    raw = [np.ones((1, 3), np.float32).tobytes()]
    stub.ModelInfer(pb.ModelInferRequest(model_name="linear", inputs=[x], raw_input_contents=raw), timeout=PATIENCE_S)
    assert counted() == before + 3


def test_inference_by_version_and_label(rest: Rest) -> None:
    """The highest version, one by its number, and the one that a label names."""
    for path, version in (("", "2"), ("/versions/1", "1"), ("/versions/02", "2"), ("/versions/stable", "1")):
        answer = rest.ask("POST", f"/v2/models/linear{path}/infer", {"id": "mine", **_request()})
        assert answer.status == 200, answer
        assert answer.content == {
            "model_name": "linear",
            "model_version": version,
            "id": "mine",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [3, 5, 7]}],
        }


def test_ready_is_a_status(rest: Rest) -> None:
    """200 or 400, as Triton, with a body as KServe; models that do not exist are not ready."""
    assert rest.get("/v2/health/ready") == {"ready": True}
    assert rest.get("/v2/models/linear/versions/stable/ready") == {"name": "linear", "ready": True}
    for path, name in (("never", "never"), ("nobody", "nobody"), ("linear/versions/7", "linear")):
        answer = rest.ask("GET", f"/v2/models/{path}/ready")
        assert (answer.status, answer.content) == (400, {"name": name, "ready": False})


def test_models_are_listed(rest: Rest) -> None:
    """Each once, as KServe lists them; what is neither true nor false as details is an error."""
    assert rest.get("/v2/models") == rest.get("/v2/models?details=false") == {"models": ["a b", "linear"]}
    answer = rest.ask("GET", "/v2/models?details=yes")
    assert (answer.status, answer.content["field"]) == (400, "details")
    assert answer.content["error"] == 'details: expected true or false, got "yes"'


def test_index(rest: Rest) -> None:
    """As Triton: of a model that was never loaded, only the name is told."""
    listed = rest.ask("POST", "/v2/repository/index").content
    assert {"name": "never"} in listed
    assert {"name": "linear", "version": "1", "state": "READY"} in listed
    ready = rest.ask("POST", "/v2/repository/index", {"ready": True}).content
    assert {model["name"] for model in ready} == {"linear", "a b"}


def test_load_and_unload(rest: Rest) -> None:
    """A model answers when its load has ended; a configuration and files may come with the load."""
    load, unload = "/v2/repository/models/never/load", "/v2/repository/models/never/unload"
    answer = rest.ask("POST", load)
    assert (answer.status, answer.content) == (200, {})
    assert rest.get("/v2/models/never")["versions"] == ["1"]
    file = base64.b64encode(onnx_models.linear().SerializeToString()).decode()
    # Long enough to be read apart from the rest.
    other = base64.b64encode(bytes(100_000)).decode()
    config = json.dumps({"backend": "onnxruntime", "max_batch_size": 6})
    parameters = {"config": config, "file:3/other": other, "file:3/model.onnx": file}
    assert rest.ask("POST", load, {"parameters": parameters}).status == 200
    assert rest.get("/v2/models/never")["versions"] == ["3"]
    assert rest.get("/v2/models/never/config")["max_batch_size"] == 6
    assert rest.ask("POST", unload, {"parameters": {"unload_dependents": True}}).status == 200
    assert rest.ask("GET", "/v2/models/never/ready").status == 400
    assert rest.ask("POST", "/v2/models/never/infer", _request()).status == 503


@pytest.mark.parametrize(
    ("path", "content", "field", "text"),
    [
        ("index", {"ready": 1}, "ready", "ready: expected a boolean, got a number"),
        ("models/x/load", [], None, "expected a JSON object, got an array"),
        ("models/x/load", b"{", None, "not valid JSON"),
        ("models/x/load", {"parameters": "a"}, "parameters", "expected an object, got a string"),
        ("models/x/load", {"parameters": {"a": "b"}}, 'parameters["a"]', "unrecognized load parameter 'a'."),
        ("models/x/load", {"parameters": {"config": 1}}, 'parameters["config"]', "expected string_param."),
        ("models/x/load", {"parameters": {"config": None}}, 'parameters["config"]', "got null"),
        (
            "models/x/load",
            {"parameters": {"config": "x" * 99_999}},
            'parameters["config"]',
            "expected JSON, or a short",
        ),
        ("models/x/load", {"parameters": {"file:1/a": "x%" * 99_999}}, 'parameters["file:1/a"]', "file in base64: "),
        ("models/x/load", {"parameters": {"file:1/a": 2}}, 'parameters["file:1/a"]', "in base64, got a number"),
        ("models/x/load", {"parameters": {"file:1/a": "a=b"}}, 'parameters["file:1/a"]', "the file in base64: "),
        ("models/x/load", {"parameters": {"file:/a": "YQ=="}}, 'parameters["file:/a"]', "VERSION/NAME"),
        ("models/x/unload", {"parameters": {"a": True}}, 'parameters["a"]', "unrecognized unload parameter 'a'."),
        ("models/x/unload", {"parameters": {"unload_dependents": 2**80}}, None, "64 bits, got a number"),
        ("models/a%2Fb/load", {}, "model_name", 'expected the name of a model, got "a/b"'),
    ],
)
def test_invalid_commands(rest: Rest, path: str, content: object, field: str | None, text: str) -> None:
    """The field, what was expected and what came."""
    answer = rest.ask("POST", f"/v2/repository/{path}", content)
    assert (answer.status, answer.content["reason"]) == (400, "INVALID_INPUT")
    assert text in answer.content["error"]
    if field is not None:
        assert answer.content["field"] == field


def test_failed_load_is_an_error_of_the_server(rest: Rest) -> None:
    """As Triton."""
    answer = rest.ask("POST", "/v2/repository/models/nobody/load")
    assert answer.status == 500
    assert answer.content["error"].startswith("failed to load 'nobody'")


@pytest.mark.parametrize(
    ("verb", "path", "status", "text"),
    [
        ("GET", "/v2/models/nobody", 404, "nobody"),
        ("GET", "/v2/models/linear/versions/7/config", 404, 'no version "7"'),
        ("POST", "/v2/models/nobody/infer", 404, "nobody"),
        ("GET", "/v2/model/linear", 404, 'nothing is at "/v2/model/linear"; the nearest are GET /v2/models/{model}'),
        ("GET", "/v3/models/linear:predict", 404, "nothing is at"),
        ("POST", "/v2/systemsharedmemory/region/a/register", 404, "send tensors in the body"),
        ("GET", "/v2/models/linear/trace/setting", 404, "tracing."),
    ],
)
def test_unknown_models_and_paths(rest: Rest, verb: str, path: str, status: int, text: str) -> None:
    """Models, paths, and what other servers have."""
    answer = rest.ask(verb, path, _request() if verb == "POST" else None)
    assert answer.status == status
    assert text in answer.content["error"]


def test_verbs(rest: Rest) -> None:
    """Another one than the operation's is refused with those that it has; HEAD is GET without the body."""
    answer = rest.ask("GET", "/v2/models/linear/infer")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    answer = rest.ask("DELETE", "/v2/models/linear")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    body = rest.ask("GET", "/v2/models/linear").body
    answer = rest.ask("HEAD", "/v2/models/linear")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, str(len(body)), b"")


def _validator(description: dict[str, Any], operation: str, status: int) -> Draft202012Validator:
    verb, _, path = operation.partition(" ")
    response = description["paths"][path][verb.lower()]["responses"][str(status)]
    reference = response.get("$ref")
    if reference is not None:
        response = description["components"]["responses"][reference.rpartition("/")[2]]
    schema = response["content"]["application/json"]["schema"]
    # Its references begin at the root.
    return Draft202012Validator({"components": description["components"], **schema})


def test_description_is_valid_and_true(rest: Rest) -> None:
    """OpenAPI 3.1 with every path; answers, good and bad ones, are as it says."""
    description = rest.get("/openapi.json")
    validate(description)
    assert {*description["paths"]} == {path for paths in PATHS.values() for path in paths}.union(OPENAI_PATHS.values())
    assert not {*description["paths"]} & {*ABSENT}
    checked = set()
    # Unloading last.
    # Those that generate need a language model: see test_openai.py.
    operations = {*PATHS} - {GENERATE, GENERATE_STREAM}
    for operation in sorted(operations, key=UNLOAD.__eq__):
        verb, _, template = operation.partition(" ")
        content = _request() if operation.endswith("/infer") else None
        for model in ("linear", "nobody"):
            answer = rest.ask(verb, template.replace("{model}", model), content)
            _validator(description, operation, answer.status).validate(answer.content)
            checked.add((operation, answer.status))
    rest.ask("POST", "/v2/repository/models/linear/load")
    assert {operation for operation, status in checked if status == 200} == operations
    assert ("GET /v2/models/{model}/ready", 400) in checked
    assert ("POST /v2/models/{model}/infer", 404) in checked


def test_metrics_and_log_tell_operations_apart(rest: Rest, server: ServerProcess) -> None:
    """By the method, which has neither the model nor the version, so that callers cannot make series."""
    for path in ("linear", "linear/versions/1", "nobody"):
        rest.ask("POST", f"/v2/models/{path}/infer", _request())
    rest.ask("GET", "/v2/nope")
    with Rest(server.http) as monitoring:
        metrics = monitoring.ask("GET", "/metrics").body.decode()
    (requests,) = (each for each in text_string_to_metric_families(metrics) if each.name == "inferd_requests")
    found = {
        tuple(sample.labels[name] for name in ("method", "model", "version", "code")) for sample in requests.samples
    }
    method = "POST /v2/models/{model}/infer"
    assert {(method, "linear", "1", "OK"), (method, "linear", "2", "OK"), (method, "", "", "NOT_FOUND")} <= found
    assert ("unknown", "", "", "NOT_FOUND") in found
    assert "nope" not in metrics
    line = next(line for line in server.events("access") if line["method"] == "POST /v2/models/{model}/infer")
    assert line["http_status"] == 200


def test_pages_of_other_websites(rest: Rest) -> None:
    """They change nothing, and cannot pass for the server's own by giving their name the address of this machine."""
    unload = "/v2/repository/models/linear/unload"
    for headers in (
        {"Origin": "https://evil.example", "Content-Type": "text/plain"},
        {"Origin": "http://evil.example", "Host": "evil.example", "Sec-Fetch-Site": "same-origin"},
    ):
        answer = rest.ask("POST", unload, {}, headers)
        assert (answer.status, list(answer.content)) == (403, ["error"])
    for path in ("/", "/v2/models", "/page/status"):
        assert rest.ask("GET", path, headers={"Host": "evil.example"}).status == 403
    assert rest.get("/v2/models")["models"]
