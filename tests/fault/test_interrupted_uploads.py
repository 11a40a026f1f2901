"""Uploads in poll mode that are interrupted anywhere: no version is served that is not completely there."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from inferd.client import Client
from inferd.config.settings import ModelSettings, Settings
from inferd.models.catalog import Catalog
from inferd.models.fingerprint import Fingerprint, fingerprint_of
from inferd.models.model_source import ModelSource
from inferd.models.poller import Poller
from inferd.models.repository import resolve
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.external_weights import find_weights
from inferd.runtime.onnx_file import read_model_file
from inferd.runtime.opening import open_runtime_session
from tests import onnx_models, uploads
from tests.fakes import FakeClock
from tests.patience import PATIENCE_S, eventually
from tests.server import serving

INTERRUPTIONS = 300
INTERVAL_S = 15.0
ONE_THREAD = ModelSettings.model_validate({"runtime": {"intra_op_threads": 1}})


class Repository:
    """A repository that is polled when the test says so, and the models that were loaded from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = FakeClock()
        self._tick = root / ".tick"
        catalog = Catalog(Settings(), [root])
        self._poller = Poller(catalog, interval_s=INTERVAL_S, clock=self.clock, wall_clock=time.time)
        self.served: dict[str, int] = {}
        self._loaded: dict[str, Fingerprint] = {}
        self.loads = self.failures = 0

    def folder(self, version: int) -> Path:
        return self.root / "m" / str(version)

    def poll(self) -> None:
        """Poll, and load what is complete, as the server does."""
        for versions in self._poller.poll().values():
            for version in self.served.keys() - versions.keys():
                del self.served[version]
            for version, source in versions.items():
                files = fingerprint_of(source)
                if self._poller.is_complete(source) and self._loaded.get(version) != files:
                    self._load(version, source)
                    self._loaded[version] = files
        self.clock.advance(INTERVAL_S)
        self._wait_for_next_tick()

    def _load(self, version: str, source: ModelSource) -> None:
        try:
            self.served[version] = number_of(source)
            self.loads += 1
        except ModelLoadError:
            self.failures += 1

    def _wait_for_next_tick(self) -> None:
        """Wait until what is written has later times: their resolution is a few milliseconds."""
        self._tick.touch()
        first = self._tick.stat().st_ctime_ns
        while self._tick.stat().st_ctime_ns == first:
            self._tick.touch()


def number_of(source: ModelSource) -> int:
    """Open the model; fail unless all its weights are those of one upload. Raises `ModelLoadError`."""
    weights = find_weights(source.path, read_model_file(source.path).external_files)
    session = open_runtime_session(source.path, ONE_THREAD, weights)
    y, number = session.run(None, {"x": np.zeros((1, 64), np.float32)})
    assert set(y.ravel().tolist()) == set(number.tolist())
    return int(number[0])


def interrupted(draw: random.Random, repository: Repository, way: uploads.Way, folder: Path, number: int) -> bool:
    """Upload with one interruption, for some looks or for good; return whether the upload has ended."""
    steps = way(draw, folder, number)
    is_safe = way in uploads.SAFE
    looks, is_aborted = draw.randrange(1, 4 if is_safe else 2), is_safe and draw.random() < 0.3
    for _ in islice(steps, draw.randrange(12)):
        pass
    for _ in range(looks):
        repository.poll()
    if is_aborted:
        steps.close()
        return False
    for _ in steps:
        pass
    return True


def test_loads_no_interrupted_upload(tmp_path: Path) -> None:
    """300, each in one of seven ways, interrupted after a random step, for some looks or for good."""
    draw = random.Random(16)
    repository = Repository(tmp_path)
    complete: dict[str, int] = {}
    for number in range(1, INTERRUPTIONS + 1):
        version = draw.randrange(1, 4)
        way = draw.choice([*uploads.SAFE, uploads.without_truncation])
        complete.pop(str(version), None)
        if interrupted(draw, repository, way, repository.folder(version), number):
            complete[str(version)] = number
        for _ in range(draw.choice([0, 1, 2])):
            repository.poll()
    for _ in range(2):
        repository.poll()
    assert complete.items() <= repository.served.items()
    assert repository.loads > INTERRUPTIONS / 4
    assert repository.failures > INTERRUPTIONS / 20


def test_serves_complete_versions_while_uploads_are_interrupted(tmp_path: Path) -> None:
    """A real server that looks every 0.1 s; uploads pause after a step, for longer than that, or end for good."""
    draw = random.Random(16)
    for _ in uploads.in_pieces(draw, tmp_path / "m/1", 1):
        pass
    arguments = (tmp_path, "--set", "repository.mode=poll", "--set", "repository.poll_interval_s=0.1")
    with serving(*arguments, environment={"XDG_CACHE_HOME": str(tmp_path / ".cache")}) as server:
        uploaded, served = threading.Event(), [0]
        with ThreadPoolExecutor(1) as thread:
            caller = thread.submit(call_until, uploaded, server.grpc, served)

            def wait_served(number: int) -> None:
                eventually(lambda: served[-1] == number or caller.done(), f"upload {number} is served")

            try:
                wait_served(1)
                for number in range(2, 14):
                    folder = tmp_path / "m" / str(draw.randrange(2, 5))
                    end = draw.choice([1, 5, 100])
                    for _ in islice(draw.choice(uploads.SAFE)(draw, folder, number), end):
                        time.sleep(draw.choice([0.0, 0.0, 0.0, 0.15]))
                # Higher versions than the others, so that these are served at last.
                for number in (14, 15):
                    for _ in uploads.in_pieces(draw, tmp_path / "m" / str(number), number):
                        pass
                    wait_served(number)
            finally:
                uploaded.set()
            caller.result(PATIENCE_S)
    assert {1, 14, 15} <= set(served)
    assert served[-1] == 15


def call_until(ended: threading.Event, address: str, served: list[int]) -> None:
    """Call the model again and again, and add the number of each answer; fail unless it is that of one upload."""
    x = np.zeros((1, 64), np.float32)
    with Client(address, timeout_s=PATIENCE_S) as client:
        while not ended.is_set():
            answer = client.infer("m", {"x": x})
            assert set(answer["y"].ravel().tolist()) == set(answer["number"].ravel().tolist())
            served.append(int(answer["number"].ravel()[0]))


def test_rejects_every_truncation(tmp_path: Path) -> None:
    """What is left of an upload that has ended for good cannot be opened, wherever it was truncated.

    The operator sets come last; a model that lacks only those that it does not use is none the worse.
    """
    (tmp_path / "m.onnx").touch()
    (source,) = resolve([tmp_path / "m.onnx"])
    model = onnx_models.numbered(7)
    del model.opset_import[1:]
    content = model.SerializeToString()
    for length in range(len(content)):
        source.path.write_bytes(content[:length])
        with pytest.raises(ModelLoadError):
            number_of(source)
    source.path.write_bytes(content)
    assert number_of(source) == 7
