"""What loads are expected to take, from earlier ones and from the size of files."""

import json
import os

import pytest

from inferd.config.settings import ModelSettings
from inferd.models.load_meter import Measured
from inferd.models.repository import resolve
from inferd.models.residency import Memory
from inferd.models.sizes import ModelSizes, size_key

_MIB = 2**20


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "models" / "m" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(1000))
    return file


@pytest.fixture
def key(tmp_path, path):
    def make(**batching):
        settings = ModelSettings.model_validate(
            {"runtime": {"verdict_cache": tmp_path / "verdicts"}, "batching": batching}
        )
        (source,) = resolve([path.parents[2]])
        return size_key(source, settings)

    return make


def measured(steady: int, peak: int, *, load_s: float = 1.0, is_alone: bool = True) -> Measured:
    return Measured(steady=Memory(steady), peak=Memory(peak), is_alone=is_alone, load_s=load_s)


def test_estimates_a_model_that_was_never_loaded(key):
    """Its peak is estimated from its files."""
    size = ModelSizes().expected(key())
    assert (size.steady, size.peak, size.is_known) == (Memory(1000), Memory(2000 + 32 * _MIB), False)
    assert size.load_s == 0.0


def test_estimates_the_cache_of_a_language_model(path):
    """As it is set."""
    settings = ModelSettings.model_validate({"runtime": {"verdict_cache": None}, "generation": {"cache_bytes": _MIB}})
    (ordinary,) = resolve([path.parents[2]])
    assert ModelSizes().expected(size_key(ordinary, settings)).steady == Memory(1000)
    path.with_name("genai_config.json").write_bytes(b"")
    size = ModelSizes().expected(size_key(ordinary, settings))
    assert (size.steady, size.peak) == (Memory(1000 + _MIB), Memory(2000 + 33 * _MIB))


def test_median_counts(key):
    """Of the last five; and of the peaks, the least is certain once there are two."""
    sizes = ModelSizes()
    sizes.record(key(), measured(900, 9000, load_s=9.0))
    assert sizes.expected(key()).least_peak == Memory()
    for number in range(5):
        sizes.record(key(), measured(100 + number, 200 + number, load_s=1.0 + number))
    size = sizes.expected(key())
    assert (size.steady, size.peak, size.least_peak) == (Memory(102), Memory(202), Memory(200))
    assert (size.load_s, size.is_known) == (3.0, True)


def test_loads_beside_others_only_tell_the_time(key):
    """Their memory may be that of the others."""
    sizes = ModelSizes()
    sizes.record(key(), measured(100, 200, load_s=2.0, is_alone=False))
    size = sizes.expected(key())
    assert (size.is_known, size.load_s) == (False, 2.0)


def test_measured_size_is_remembered(key):
    """For the next process."""
    ModelSizes().record(key(), measured(100, 200))
    size = ModelSizes().expected(key())
    assert (size.steady, size.peak, size.is_known, size.load_s) == (Memory(100), Memory(200), True, 1.0)


def test_other_files_or_settings_have_another_size(key, path):
    """A changed file or batch size is measured again; a link to the file changes nothing."""
    sizes = ModelSizes()
    sizes.record(key(), measured(100, 200))
    os.link(path, path.parents[3] / "other")
    assert sizes.expected(key()).is_known
    assert not sizes.expected(key(max_batch_size=2)).is_known
    path.write_bytes(bytes(1001))
    assert not sizes.expected(key()).is_known


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"steady": [[1, 0]], "peak": [], "load_s": []}', '{"steady": 1}', "x"]
)
def test_damaged_file_is_ignored(key, content):
    """The next load is measured."""
    made = key()
    sizes = ModelSizes()
    sizes.record(made, measured(100, 200))
    (file,) = made.cache._folder.glob("*.json")
    assert json.loads(file.read_text())
    file.write_text(content)
    assert not ModelSizes().expected(made).is_known
