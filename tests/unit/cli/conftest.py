"""A fake server, and a fixture that runs commands."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from inferd.cli import main
from tests.unit.client.fake_service import BROKEN, DIGITS, FakeService, Serving, serving


@dataclass(frozen=True)
class Completed:
    """A finished command."""

    exit_code: int
    out: str
    err: str


@pytest.fixture
def inferd(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Completed]:
    """Run a command in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Completed:
        exit_code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Completed(exit_code, out, err)

    return run


@pytest.fixture
def service() -> FakeService:
    return FakeService(DIGITS, BROKEN)


@pytest.fixture
def server(service: FakeService) -> Iterator[Serving]:
    with serving(service) as running:
        yield running
