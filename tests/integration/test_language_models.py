"""Language models beside ordinary ones, over real sockets: found, loaded, described, switched, unloaded."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from inferd.cli import main
from inferd.client import Client, InvalidInput, ModelState, Routing, Shadow
from tests import onnx_models
from tests.decoder_models import write_tiny_decoder
from tests.patience import PATIENCE_S
from tests.server import ServerProcess, serving

_PROMPT = "The capital of France"
_TOKEN_BYTES = 512

_VLLM = """
backend: "vllm"
instance_group [{ count: 1 kind: KIND_MODEL }]
model_transaction_policy { decoupled: True }
max_batch_size: 4
parameters { key: "REPORT_CUSTOM_METRICS" value { string_value: "yes" } }
"""


def _settings(folder: Path, name: str, text: str) -> None:
    (folder / name / "model.yaml").write_text(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("language_models")
    models = made / "models"
    onnx_models.save(onnx_models.linear(), models / "linear" / "1" / "model.onnx")
    for version in ("1", "2"):
        write_tiny_decoder(models / "story" / version, context=128 * int(version))
    _settings(models, "story", "versions: all\ngeneration: {max_sequences: 3}\nrouting: {labels: {stable: 1}}\n")
    write_tiny_decoder(models / "switched" / "1", context=2048)
    write_tiny_decoder(models / "demanded" / "1")
    _settings(models, "demanded", "on_demand: true\n")
    # Several files, of which the configuration names the decoder.
    described = models / "described" / "1"
    write_tiny_decoder(described)
    (described / "model.onnx").rename(described / "decoder.onnx")
    onnx_models.save(onnx_models.linear(), described / "embedding.onnx")
    config = json.loads((described / "genai_config.json").read_text())
    config["model"]["decoder"]["filename"] = "decoder.onnx"
    (described / "genai_config.json").write_text(json.dumps(config))
    write_tiny_decoder(models / "triton" / "1")
    (models / "triton" / "config.pbtxt").write_text(_VLLM)
    # What is refused.
    write_tiny_decoder(models / "aside" / "1")
    _settings(models, "aside", "queue: {policy: caller_runs}\n")
    write_tiny_decoder(models / "foreign" / "1")
    onnx_models.save(onnx_models.linear(), models / "foreign" / "1" / "model.onnx")
    write_tiny_decoder(models / "garbled" / "1")
    (models / "garbled" / "1" / "tokenizer.json").write_text("{}")
    # As the builder writes it, under another name than its directory has.
    write_tiny_decoder(made / "build-17", weights="int8")
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    paths = (folder / "models", f"small={folder / 'build-17'}")
    with serving(*paths, "--set", "repository.mode=explicit", "--load-model", "*") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.grpc, timeout_s=PATIENCE_S, retry=None) as connected:
        yield connected


def _text(client: Client, model: str, **options: Any) -> str:
    return client.generate(model, _PROMPT, **{"max_tokens": 8, **options}).result().text


def test_description(client: Client) -> None:
    """Limits, cache and what it takes, in place of inputs and outputs; a full cache counts as its memory."""
    model = client.model("story", version="2")
    assert (model.state, model.inputs, model.outputs) == (ModelState.READY, (), ())
    assert (model.batching.verdict, model.batching.max_batch_size) == ("proven", 3)
    found = model.generation
    assert found is not None
    assert (found.context_length, found.vocabulary_size, found.max_sequences) == (256, 384, 3)
    assert (found.cache_bytes_per_token, found.cache_bytes) == (_TOKEN_BYTES, 3 * 256 * _TOKEN_BYTES)
    assert (found.cache_bytes_in_use, found.default_max_tokens) == (0, 256)
    assert (found.has_tokenizer, found.has_chat_template) == (True, True)
    assert model.residency is not None
    assert model.residency.memory_bytes >= found.cache_bytes
    assert model.residency.load_s > 0
    assert client.model("linear").generation is None


def test_forms_in_a_repository(client: Client) -> None:
    """Version directories, a directory of the builder under another name, and a decoder among several files."""
    assert all(_text(client, name) for name in ("story", "small", "described", "triton"))


def test_load_generator(server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Measures whole answers to recorded requests; without these it says what it needs."""
    command = ["bench", server.grpc, "story", "--duration", "0.3", "--warmup", "0", "--json"]
    assert main(command) == 2
    assert '"story" may give several answers to a request, as language models do' in capsys.readouterr().err
    requests = [{"text_input": [_PROMPT], "sampling_parameters": ['{"max_tokens": 2}']}, {"input_ids": [1, 2, 3]}]
    (tmp_path / "prompts.json").write_text(json.dumps(requests))
    assert main([*command, "--input", str(tmp_path / "prompts.json")]) == 0
    (step,) = json.loads(capsys.readouterr().out)["steps"]
    assert (step["failed"], step["rows_per_s"]) == (0, step["throughput_per_s"])


def test_settings_of_the_vllm_backend(server: ServerProcess, client: Client) -> None:
    """Fields without a meaning are named in one warning."""
    assert client.model("triton").state is ModelState.READY
    (warning,) = [line for line in server.log if "model triton: fields of config.pbtxt" in line]
    assert "without a meaning here: max_batch_size, parameters.REPORT_CUSTOM_METRICS" in warning


def test_labels(client: Client) -> None:
    """As for other models."""
    assert client.generate("story", _PROMPT, max_tokens=1, version="stable").result().version == "1"
    assert client.generate("story", _PROMPT, max_tokens=1).result().version == "2"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("aside", "queue.policy: expected reject, block or shed_oldest for a language model, got caller_runs"),
        ("foreign", "model.onnx is a language model that cannot be served: "),
        ("garbled", "tokenizer.json: expected the file of a tokenizer: "),
    ],
)
def test_refused_models(client: Client, name: str, reason: str) -> None:
    """They have failed, with a sentence that says why, and the others are served."""
    model = client.model(name)
    assert model.state is ModelState.FAILED
    assert model.reason.startswith(reason)


def test_requests_with_tensors(server: ServerProcess, client: Client) -> None:
    """Are told what to call instead, whatever the protocol."""
    with pytest.raises(InvalidInput, match='model "story" is a language model, which takes no tensors: call Gen'):
        client.infer("story", {"x": np.ones((1, 3), np.float32)})
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}
    request = urllib.request.Request(
        f"http://{server.rest}/v2/models/story/infer", data=json.dumps({"inputs": [tensor]}).encode()
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=PATIENCE_S)
    assert caught.value.code == 400
    assert "/v2/models/story/generate" in caught.value.read().decode()


def test_open_inference_protocol(server: ServerProcess) -> None:
    """The names of Triton's vLLM backend, decoupled; statistics count steps."""
    with grpc.insecure_channel(server.grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        metadata = stub.ModelMetadata(oip.ModelMetadataRequest(name="small"))
        config = stub.ModelConfig(oip.ModelConfigRequest(name="small")).config
        ready = stub.ModelReady(oip.ModelReadyRequest(name="small")).ready
        listed = stub.ModelStatistics(oip.ModelStatisticsRequest()).model_stats
    assert ready
    assert {"text_input", "stream", "sampling_parameters", "exclude_input_in_output"} <= {
        tensor.name for tensor in metadata.inputs
    }
    assert "text_output" in {tensor.name for tensor in metadata.outputs}
    assert (config.max_batch_size, config.model_transaction_policy.decoupled) == (0, True)
    assert [tensor.name for tensor in config.input] == [tensor.name for tensor in metadata.inputs]
    (statistics,) = [each for each in listed if each.name == "small"]
    assert (statistics.batch_verdict, statistics.model_loads) == ("proven", 1)
    assert statistics.memory_usage[0].byte_size > 0


def test_no_shadow(client: Client) -> None:
    """Answers of language models are not compared."""
    with pytest.raises(InvalidInput, match="shadow: expected none for a language model"):
        client.set_routing("story", Routing(shadow=Shadow("2")))


def test_loaded_on_demand(client: Client) -> None:
    """The first request loads it, and waits."""
    assert client.model("demanded").state is ModelState.ON_DEMAND
    assert _text(client, "demanded")
    assert client.model("demanded").state is ModelState.READY


def test_reload_and_unload_while_it_generates(folder: Path, client: Client) -> None:
    """Each answer is finished by the version that began it, and new requests get the new one."""
    whole = _text(client, "switched", max_tokens=400, ignore_end_tokens=True)
    first = _Begun(client)
    _settings(folder / "models", "switched", "generation: {max_context_tokens: 1600}\n")
    client.load_model("switched")
    found = client.model("switched").generation
    assert found is not None
    assert found.context_length == 1600
    second = _Begun(client)
    client.unload_model("switched")
    assert first.text() == second.text() == whole
    assert client.model("switched").state is ModelState.UNAVAILABLE


class _Begun:
    """An answer of which the first part has come."""

    def __init__(self, client: Client) -> None:
        self._stream = client.generate("switched", _PROMPT, max_tokens=400, ignore_end_tokens=True)
        self._first = next(self._stream)

    def text(self) -> str:
        """Return all of it."""
        return "".join([self._first.text, *(delta.text for delta in self._stream)])
