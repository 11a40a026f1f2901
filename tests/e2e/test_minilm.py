"""A transformer with real weights beside the digits model: variable lengths, batched, the same answers."""

import grpc
import numpy as np
import onnxruntime
import pytest

from inferd import demo
from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from scripts import build_minilm
from tests.patience import PATIENCE_S
from tests.server import serving

WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "rain", "fell", "over", "hills", "and", "people", "spoke"] * 2
LENGTHS = [1, 2, 3, 5, 8, 13, 16]


@pytest.fixture(scope="module")
def folder():
    """MiniLM as an ONNX file, built once and cached."""
    return build_minilm.build()


@pytest.fixture(scope="module")
def server(folder):
    """Both models in one server."""
    with serving(folder, demo.repository()) as running:
        yield running


@pytest.fixture(scope="module")
def sentences(folder):
    """Tokenized sentences of several lengths, a few of each."""
    tokenizer = build_minilm.load_tokenizer(folder)
    texts = [" ".join(WORDS[start : start + length]) for length in LENGTHS for start in range(4)]
    return [build_minilm.encode(tokenizer, [text]) for text in texts]


def _request(model, inputs, number):
    return v1.InferRequest(
        model=model,
        request_id=str(number),
        inputs=[v1.Tensor(name=name, shape=array.shape, raw=array.tobytes()) for name, array in inputs.items()],
    )


def _outputs(response):
    dtypes = {v1.DATA_TYPE_FP32: np.float32, v1.DATA_TYPE_INT64: np.int64}
    return {t.name: np.frombuffer(t.raw, dtypes[t.datatype]).reshape(t.shape) for t in response.outputs}


def test_batched_answers_equal_single_ones(server, folder, sentences):
    """All sentences at once, several times: batches form among equal lengths and change no answer."""
    session = onnxruntime.InferenceSession(next(folder.rglob("*.onnx")), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    expected = [dict(zip(names, session.run(names, inputs), strict=True)) for inputs in sentences]
    name = folder.name
    digits = demo.samples()
    with grpc.insecure_channel(server.grpc) as channel:
        stub = InferenceServiceStub(channel)
        calls = [
            (number, stub.Infer.future(_request(name, inputs, number), timeout=PATIENCE_S))
            for _ in range(3)
            for number, inputs in enumerate(sentences)
        ]
        beside = [
            stub.Infer.future(_request("digits", {"X": digits.inputs[row : row + 1]}, row), timeout=PATIENCE_S)
            for row in range(10)
        ]
        rows = []
        for number, call in calls:
            response = call.result()
            rows.append(response.timing.batch_rows)
            for output, array in _outputs(response).items():
                np.testing.assert_allclose(array, expected[number][output], atol=2e-5)
        labels = [int(_outputs(call.result())["label"][0]) for call in beside]
    assert max(rows) > 1, "sentences of one length shared a batch"
    assert labels == digits.labels.tolist(), "the other model answered meanwhile"


def test_embeddings_are_close_for_similar_sentences(server, folder):
    """The published example of this model: eating is near eating, and far from cheetahs."""
    texts = ["A man is eating food.", "A man is eating a piece of bread.", "A cheetah is running behind its prey."]
    tokenizer = build_minilm.load_tokenizer(folder)
    with grpc.insecure_channel(server.grpc) as channel:
        response = InferenceServiceStub(channel).Infer(
            _request(folder.name, build_minilm.encode(tokenizer, texts), 0), timeout=PATIENCE_S
        )
    food, bread, cheetah = _outputs(response)["sentence_embedding"]
    assert food @ bread > 0.7
    assert food @ cheetah < 0.25
