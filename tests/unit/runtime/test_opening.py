"""Falling back from one provider to the next, with a stand-in for ONNX Runtime's sessions."""

from pathlib import Path
from typing import ClassVar

import onnxruntime
import pytest

from inferd.config.settings import ModelSettings
from inferd.runtime import opening, providers
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.opening import open_runtime_session
from inferd.runtime.providers import CPU, CUDA


class FakeSession:
    """Opens with ``opens`` whatever it is asked for; an exception is raised instead."""

    opens: ClassVar[dict[str, list[str] | Exception]] = {}
    options: ClassVar[list[onnxruntime.SessionOptions]] = []

    def __init__(self, path, *, sess_options, providers, enable_fallback) -> None:
        assert enable_fallback == 0
        FakeSession.options.append(sess_options)
        self._opened = FakeSession.opens[providers[0][0]]
        if isinstance(self._opened, Exception):
            raise self._opened

    def get_providers(self) -> list[str]:
        assert not isinstance(self._opened, Exception)
        return self._opened


@pytest.fixture
def gpu_build(monkeypatch):
    """A build of ONNX Runtime with CUDA, whose sessions are the stand-in's."""
    preloaded: list[bool] = []
    monkeypatch.setattr(providers, "built_in", lambda: [CUDA, CPU])
    monkeypatch.setattr(providers, "preload_cuda", lambda: preloaded.append(True))
    monkeypatch.setattr(opening.onnxruntime, "InferenceSession", FakeSession)
    FakeSession.options = []
    return preloaded


def opened(providers: str | list[str] = "auto") -> list[str]:
    settings = ModelSettings.model_validate({"runtime": {"providers": providers}})
    return open_runtime_session(Path("model.onnx"), settings).get_providers()


def test_auto_takes_cuda_where_a_device_opens(gpu_build):
    """With its libraries loaded first, and one thread on the CPU."""
    FakeSession.opens = {CUDA: [CUDA, CPU]}
    assert opened() == [CUDA, CPU]
    assert gpu_build == [True]
    assert FakeSession.options[0].intra_op_num_threads == 1


@pytest.mark.parametrize("cuda", [RuntimeError("no CUDA-capable device is detected"), [CPU]])
@pytest.mark.usefixtures("gpu_build")
def test_auto_takes_the_cpu_where_none_does(cuda, caplog):
    """Whether ONNX Runtime says so or quietly leaves CUDA out; the log tells."""
    FakeSession.opens = {CUDA: cuda, CPU: [CPU]}
    assert opened() == [CPU]
    assert f"{CUDA} " in caplog.text
    assert "taking the next provider" in caplog.text


@pytest.mark.parametrize(
    ("cuda", "message"),
    [
        (
            RuntimeError("no CUDA-capable device is detected"),
            "cannot load model.onnx: no CUDA-capable device is detected",
        ),
        ([CPU], "cannot load model.onnx: expected providers .*CUDA.*, ONNX Runtime opened .*CPU"),
    ],
)
@pytest.mark.usefixtures("gpu_build")
def test_an_explicit_provider_that_does_not_open_is_an_error(cuda, message):
    """Nobody is served by a GPU that is a CPU."""
    FakeSession.opens = {CUDA: cuda}
    with pytest.raises(ModelLoadError, match=message):
        opened(["cuda"])


def test_the_cpu_needs_no_cuda_libraries(gpu_build):
    """They are large, and may not be there."""
    FakeSession.opens = {CPU: [CPU]}
    opened(["cpu"])
    assert gpu_build == []


def test_idle_threads_do_not_spin_unless_told(gpu_build):
    """Each would keep a core busy."""
    FakeSession.opens = {CPU: [CPU]}
    opened(["cpu"])
    assert FakeSession.options[0].get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert FakeSession.options[0].get_session_config_entry("session.inter_op.allow_spinning") == "0"
