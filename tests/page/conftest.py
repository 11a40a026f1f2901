"""A server with a few models, load on it, and browsers."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
import urllib3

from inferd import demo
from tests import onnx_models
from tests.patience import PATIENCE_S
from tests.server import ServerProcess, serving

#: The name of a model that would be an element, were it not shown as text.
HOSTILE = "<img src=x onerror=document.title='broken'>"


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """Digits in two versions, a model with a hostile name, a broken one, and one that is not loaded."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(demo.repository(), folder / "digits")
    shutil.copytree(folder / "digits/1", folder / "digits/2")
    for name in (HOSTILE, "spare"):
        (folder / name / "1").mkdir(parents=True)
        onnx_models.save(onnx_models.linear(), folder / name / "1" / "model.onnx")
    (folder / "broken/1").mkdir(parents=True)
    (folder / "broken/1/model.onnx").write_text("not a model")
    return folder


@pytest.fixture(scope="session")
def server(models) -> Iterator[ServerProcess]:
    loaded = orjson.dumps(["digits", HOSTILE, "broken"]).decode()
    settings = ("repository.mode=explicit", f"repository.load={loaded}", "repository.readiness=any")
    with serving(models, *(f"--set={setting}" for setting in settings)) as running:
        yield running


@contextmanager
def load(address: str, pause_s: float = 0.0, threads: int = 2) -> Iterator[None]:
    """Classify digits, one after another in each of ``threads``, until this ends."""
    images = demo.samples().inputs
    stopping = threading.Event()

    def run() -> None:
        with urllib3.PoolManager(timeout=PATIENCE_S) as http:
            number = 0
            while not stopping.wait(pause_s):
                number = (number + 1) % len(images)
                tensor = {"name": "X", "datatype": "FP32", "shape": [1, 64], "data": images[number].tolist()}
                http.request("POST", f"http://{address}/v2/models/digits/infer", json={"inputs": [tensor]})

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in running:
            thread.join()
