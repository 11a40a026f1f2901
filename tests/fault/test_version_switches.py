"""Versions are switched under constant load: every request is answered, by the version that it says."""

import itertools
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from inferd.client import Client, ModelState
from tests import onnx_models
from tests.patience import PATIENCE_S, eventually
from tests.server import serving

SWITCHES = 15
MODELS = ("a", "b")
X = np.full((1, 3), 2, np.float32)


class Caller(threading.Thread):
    """Calls a model again and again, and checks each answer against the versions that may serve at the time.

    Version N computes N * x + 1. ``loaded`` is the last version whose load had ended, ``loading`` the last one whose
    load had begun.
    """

    def __init__(self, call: Callable[[str], object], model: str) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._model = model
        self._stopping = threading.Event()
        self.loaded = self.loading = 1
        self.answers = 0
        self.versions: set[int] = set()
        self.problems: list[str] = []

    def run(self) -> None:
        while not self._stopping.is_set():
            oldest = self.loaded
            try:
                result = self._call(self._model)
            except Exception as error:  # noqa: BLE001  (a failed request is what the test looks for)
                self.problems.append(repr(error))
                return
            version = int(result.version)
            if not oldest <= version <= self.loading:
                self.problems.append(f"version {version}, expected {oldest} to {self.loading}")
            if result["y"].tolist() != [[version * 2 + 1] * 3]:
                self.problems.append(f"version {version} answered {result['y'].tolist()}")
            self.answers += 1
            self.versions.add(version)

    def stop(self) -> None:
        self._stopping.set()
        self.join(PATIENCE_S)


def _wait(callers: Iterable[Caller], condition: Callable[[Caller], bool], what: str) -> None:
    """Wait until ``condition`` holds of each caller, or there is a problem."""
    eventually(lambda: all(condition(caller) or caller.problems for caller in callers), what)


def upload(root: Path, model: str, version: int) -> None:
    """Add a version in one step."""
    staged = root / f".{model}-{version}"
    onnx_models.save(onnx_models.linear(factor=float(version)), staged / "model.onnx")
    (root / model).mkdir(exist_ok=True)
    staged.rename(root / model / str(version))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    for model in MODELS:
        upload(path, model, 1)
    return path


def test_switches_under_load(root):
    """Only the newest version is left at the end; unary calls and streams."""
    flags = ("--model-control-mode", "explicit", "--load-model", "*", "--set", "repository.versions.latest=1")
    with serving(root, *flags) as server, Client(server.grpc) as unary, Client(server.grpc, coalesce=True) as packed:
        calls = [
            lambda model: unary.infer(model, {"x": X}),
            lambda model: packed.infer(model, {"x": X}),
        ]
        callers = {model: [Caller(call, model) for call in calls] for model in MODELS}
        everybody = list(itertools.chain.from_iterable(callers.values()))
        for caller in everybody:
            caller.start()
        _wait(everybody, lambda caller: bool(caller.versions), "the first version has answered")
        for version in range(2, SWITCHES + 2):
            for model in MODELS:
                upload(root, model, version)
                for caller in callers[model]:
                    caller.loading = version
                unary.load_model(model)
                for caller in callers[model]:
                    caller.loaded = version
        _wait(everybody, lambda caller: caller.answers > SWITCHES and len(caller.versions) > 1, "another has answered")
        for caller in everybody:
            caller.stop()
            assert caller.problems == []
        ready = [(each.name, each.version) for each in unary.models() if each.state is ModelState.READY]
        assert ready == [(model, str(SWITCHES + 1)) for model in MODELS]
