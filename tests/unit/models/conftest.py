"""The fixture of managers with a scripted loader."""

import pytest

from tests.patience import PATIENCE_S
from tests.unit.models.managed import Fixture
from tests.unit.models.model_files import touch


@pytest.fixture
def make(tmp_path):
    """Makes a fixture of a repository with files, and stops its manager after the test."""
    made: list[Fixture] = []

    def build(*files: str, **repository: object) -> Fixture:
        touch(tmp_path, *files)
        made.append(Fixture(tmp_path, **repository))
        return made[-1]

    yield build
    for each in made:
        for gate in each.loader.gates.values():
            gate.set()
        each.manager.stop(PATIENCE_S)
