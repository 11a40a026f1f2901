"""``inferd models`` against a fake server."""

import json

import pytest
from google.protobuf.duration_pb2 import Duration

from inferd._generated.inferd.v1 import inference_pb2 as pb
from tests.unit.client.fake_service import DIGITS


def test_table(inferd, server):
    """Name, version, state, tensors and batching of each model, and why it failed; no colors without a terminal."""
    result = inferd("models", "-a", server.address)
    head, _, digits, broken = (line.split("  ") for line in result.out.splitlines())
    assert result.exit_code == 0
    assert "\x1b" not in result.out
    assert [cell.strip() for cell in head if cell] == [
        "NAME", "VERSION", "STATE", "INPUTS", "OUTPUTS", "BATCHING", "RUN TIME", "MEMORY", "REASON",
    ]  # fmt: skip
    assert [cell.strip() for cell in digits if cell.strip()] == [
        "digits", "1", "READY", "X FP32 [batch, 64]", "label INT64 [batch]", "up to 64 rows, waits 1.5 ms",
        "1 row 3.1 ms, 64 rows 12 ms ± 8 %", "12 MiB, loaded in 0.25 s",
    ]  # fmt: skip
    assert [cell.strip() for cell in broken if cell.strip()] == ["broken", "3", "FAILED", "not an ONNX file"]


def test_dynamic_dimensions_and_no_batching(inferd, server, service):
    """A dimension without a name is a question mark. Without a failure, there is no column of reasons."""
    service.models = [
        pb.Model(
            name="m", version="1", state=pb.Model.STATE_READY,
            inputs=[
                pb.TensorInfo(name="a", datatype=pb.DATA_TYPE_FP32, shape=[-1, 2]),
                pb.TensorInfo(name="b", datatype=pb.DATA_TYPE_BYTES, shape=[1]),
            ],
        )
    ]  # fmt: skip
    out = inferd("models", "-a", server.address).out
    assert "a FP32 [?, 2]" in out
    assert "b BYTES [1]" in out
    assert "off" in out
    assert "REASON" not in out


@pytest.mark.parametrize(
    ("batching", "text"),
    [
        ({"verdict": pb.Batching.VERDICT_PROVEN, "enabled": True, "max_batch_size": 8}, "up to 8 rows"),
        ({"verdict": pb.Batching.VERDICT_PROVEN}, "off by settings"),
        ({"verdict": pb.Batching.VERDICT_CONTRADICTED}, "off, contradicted"),
        ({"verdict": pb.Batching.VERDICT_UNPROVEN}, "off, unproven"),
        (
            {"verdict": pb.Batching.VERDICT_CONTRADICTED, "enabled": True, "max_batch_size": 8},
            "up to 8 rows, although contradicted",
        ),
    ],
)
def test_verdicts(inferd, server, service, batching, text):
    """Batching with its verdict and the reason, also of a model without inputs."""
    reason = "" if batching["verdict"] == pb.Batching.VERDICT_PROVEN else 'output "y" differs'
    service.models = [
        pb.Model(name="m", state=pb.Model.STATE_READY, batching=pb.Batching(**batching, verdict_reason=reason))
    ]
    out = inferd("models", "-a", server.address).out
    assert [cell.strip() for cell in out.splitlines()[2].split("  ") if cell.strip()] == [
        "m", "READY", text, "-", "-", *([reason] if reason else []),
    ]  # fmt: skip
    assert ("REASON" in out) is bool(reason)


@pytest.mark.parametrize(
    ("seconds", "cost", "text"),
    [
        ([0.0000312], {"runs": 9, "error": 0.25}, "1 row 31 µs ± 25 %"),
        ([0.0009996, 0.00994], {"runs": 0}, "1 row 1.0 ms, 8 rows 9.9 ms, from warm-up"),
        ([0.00996, 1.25], {"runs": 1}, "1 row 10 ms, 8 rows 1.2 s"),
        ([], {}, "-"),
    ],
)
def test_predicted_run_time(inferd, server, service, seconds, cost, text):
    """Of one row and of a full batch, in three digits at most, with the error once it is known."""
    sizes = [pb.PredictedRun(rows=rows, duration=duration(each)) for rows, each in zip((1, 8), seconds, strict=False)]
    verdict = pb.Batching(verdict=pb.Batching.VERDICT_PROVEN)
    service.models = [
        pb.Model(name="m", state=pb.Model.STATE_READY, batching=verdict, run_cost=pb.RunCost(sizes=sizes, **cost))
    ]
    row = inferd("models", "-a", server.address).out.splitlines()[2]
    assert [cell.strip() for cell in row.split("  ") if cell.strip()][-2] == text


def test_memory_on_devices(inferd, server, service):
    """Beside that of the host."""
    residency = pb.Residency(memory_bytes=300 * 2**20, device_memory_bytes=2 * 2**30, load_duration=duration(12.3))
    verdict = pb.Batching(verdict=pb.Batching.VERDICT_PROVEN)
    service.models = [pb.Model(name="m", state=pb.Model.STATE_READY, batching=verdict, residency=residency)]
    assert "300 MiB, 2048 MiB on devices, loaded in 12 s" in inferd("models", "-a", server.address).out


def duration(seconds):
    made = Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made


@pytest.mark.parametrize(
    ("text", "takes", "gives"),
    [
        ({"has_tokenizer": True, "has_chat_template": True}, "text, chat or token ids, up to 2048 tokens", "text"),
        ({"has_tokenizer": True}, "text or token ids, up to 2048 tokens", "text"),
        ({}, "token ids, up to 2048 tokens", "token ids"),
    ],
)
def test_language_model(inferd, server, service, text, takes, gives):
    """What it takes, and its cache in place of batches."""
    generation = pb.Generation(
        context_length=2048, max_sequences=32, cache_bytes=64 * 2**20, cache_bytes_in_use=3 * 2**20, **text
    )
    verdict = pb.Batching(verdict=pb.Batching.VERDICT_CONTRADICTED)
    residency = pb.Residency(memory_bytes=80 * 2**20, load_duration=duration(0.5))
    service.models = [pb.Model(name="lm", version="1", generation=generation, batching=verdict, residency=residency)]
    *_, row = inferd("models", "-a", server.address).out.splitlines()
    assert [cell.strip() for cell in row.split("  ") if cell.strip()] == [
        "lm",
        "1",
        "UNSPECIFIED",
        takes,
        gives,
        "up to 32 sequences, although contradicted, cache 3 of 64 MiB",
        "-",
        "80 MiB with a full cache, loaded in 0.5 s",
    ]


def test_optional_inputs_are_marked(inferd, server, service):
    """After the shape."""
    scale = pb.TensorInfo(name="scale", datatype=pb.DATA_TYPE_FP32, optional=True)
    service.models = [pb.Model(name="m", inputs=[scale, pb.TensorInfo(name="x", datatype=pb.DATA_TYPE_FP32)])]
    out = inferd("models", "-a", server.address).out
    assert "scale FP32 [] (optional)" in out
    assert out.count("(optional)") == 1


def test_lines_are_not_truncated_in_a_pipe(inferd, server, service, monkeypatch):
    """Whatever the width of the terminal."""
    monkeypatch.setenv("COLUMNS", "20")
    service.models = [pb.Model(name="m" * 200)]
    assert "m" * 200 in inferd("models", "-a", server.address).out


def test_json(inferd, server, service):
    """The fields of the client's `ModelInfo`."""
    service.models = [DIGITS]
    (model,) = json.loads(inferd("models", "--json", "-a", server.address).out)
    assert (model["name"], model["state"]) == ("digits", "READY")
    assert model["inputs"] == [
        {"name": "X", "datatype": "FP32", "shape": ["batch", 64], "batch_axis": 0, "optional": False}
    ]
    assert model["batching"]["max_batch_size"] == 64
    verdict = {name: model["batching"][name] for name in ("verdict", "verdict_reason", "checks", "mismatches")}
    assert verdict == {"verdict": "proven", "verdict_reason": "", "checks": 12, "mismatches": 0}
    assert model["run_cost"] == {
        "sizes": [{"rows": 1, "seconds": 0.0031, "p95_s": 0.004}, {"rows": 64, "seconds": 0.0123, "p95_s": 0.015}],
        "error": 0.08,
        "runs": 250,
    }


def test_server_without_models(inferd, server, service):
    """A sentence instead of an empty table."""
    service.models = []
    assert inferd("models", "-a", server.address).out == "The server has no models.\n"


def test_unreachable_server(inferd):
    """One line on stderr, and exit code 1."""
    result = inferd("models", "-a", "127.0.0.1:1")
    assert result.exit_code == 1
    assert result.err.startswith("inferd: UNAVAILABLE: ")
    assert result.err.count("\n") == 1
