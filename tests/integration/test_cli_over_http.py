"""The commands over HTTP and over gRPC, against one server: the same output, and the same errors."""

import json
import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from inferd.cli import main
from tests import onnx_models
from tests.server import ServerProcess, serving

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with two versions of a model, one with strings, and one that is not loaded."""
    folder = tmp_path_factory.mktemp("models")
    for version in ("1", "2"):
        onnx_models.save(onnx_models.linear(), folder / "linear" / version / "model.onnx")
    onnx_models.save(onnx_models.linear(), folder / "never" / "1" / "model.onnx")
    arguments = ("--model-control-mode", "explicit", "--load-model", "linear")
    with serving(folder, *arguments) as running:
        yield running


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process: exit code, output and errors."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def addresses(server: ServerProcess) -> tuple[str, str]:
    """Of gRPC and of HTTP."""
    return server.grpc, f"http://{server.events('ready')[0]['http']}"


def _both(run: Run, addresses: tuple[str, str], *arguments: object) -> list[tuple[int, str, str]]:
    """Return what the command says over gRPC and over HTTP, without what differs by time or is an id."""
    ended = [run(*arguments, "--address", address) for address in addresses]
    ids = re.compile(r" \(request [0-9a-f-]+\)")
    return [(code, out, ids.sub("", err)) for code, out, err in ended]


INFER = ("infer", "linear", "--input", "x=[[1, 2, 3], [4, 5, 6]]")


@pytest.mark.parametrize(
    "arguments",
    [
        ("models", "--json"),
        ("models", "index", "--json"),
        ("models", "index", "--ready"),
        ("models", "load", "never", "--timeout", "60"),
        ("models", "unload", "never"),
        ("models", "load", "nobody"),
        ("health",),
        ("health", "--service", "liveness"),
        ("health", "--service", "linear"),
        ("health", "--service", "linear/1"),
        ("infer", "nobody", "--input", "x=[1]"),
        ("infer", "linear", "--model-version", "7", "--input", "x=[1]"),
        (*INFER, "--output", "nothing"),
        ("infer", "linear", "--input", "y=[1]"),
    ],
    ids=" ".join,
)
def test_same_as_over_grpc(run: Run, addresses: tuple[str, str], arguments: tuple[str, ...]) -> None:
    """Exit code, output and error."""
    over_grpc, over_http = _both(run, addresses, *arguments)
    assert _stable(over_grpc) == _stable(over_http)


def _stable(ended: tuple[int, str, str]) -> tuple[int, str, str]:
    """Leave out load times, sizes and predictions, which change from one load or call to the next."""
    code, out, err = ended
    out = re.sub(r"[0-9.]+ (MiB|s|ms|µs)\b", r"N \1", out)
    out = re.sub(r'"(memory_bytes|load_s|seconds|p95_s|error|runs|checks)": [0-9.e+-]+', r'"\1": N', out)
    return code, out, re.sub(r"\S*(127\.0\.0\.1:[0-9]+): ", "", err)


def test_same_outputs(run: Run, addresses: tuple[str, str], tmp_path) -> None:
    """Bit for bit; the timing has what REST says of it."""
    arrays = []
    for number, address in enumerate(addresses):
        file = tmp_path / f"{number}.npy"
        code, out, err = run(*INFER, "--save", f"y={file}", "--json", "--address", address)
        assert (code, err) == (0, "")
        content = json.loads(out)
        assert (content["model"], content["version"]) == ("linear", "2")
        assert content["timing"]["run_s"] > 0
        arrays.append(np.load(file))
    assert arrays[0].dtype == arrays[1].dtype
    assert arrays[0].tobytes() == arrays[1].tobytes()


def test_invalid_input_is_named(run: Run, addresses: tuple[str, str], tmp_path) -> None:
    """By the server, in the words of both protocols."""
    np.save(tmp_path / "x.npy", np.zeros((1, 3), np.int64))
    over_grpc, over_http = _both(run, addresses, "infer", "linear", "--input", f"x=@{tmp_path}/x.npy")
    assert over_grpc[0] == over_http[0] == 1
    for _, _, err in (over_grpc, over_http):
        assert err.startswith('inferd: INVALID_ARGUMENT: input "x"')


def test_model_without_answer_is_unavailable(run: Run, addresses: tuple[str, str]) -> None:
    """A health check of it, and a request."""
    for address in addresses:
        code, _, err = run("health", "--service", "never", "--address", address)
        assert code == 1
        assert "NOT_SERVING" in err
