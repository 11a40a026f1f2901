"""Settings from the sources that a test gives only."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from inferd.config.loading import load_settings
from inferd.config.settings import Settings
from inferd.config.validation import SettingsError

Load = Callable[..., Settings]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Load:
    """Load settings from the given YAML, flags and environment only."""
    for variable in list(os.environ):
        if variable.upper().startswith("INFERD_"):
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)

    def _load(yaml: str | None = None, flags: dict[str, object] | None = None, **environment: str) -> Settings:
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        file = Path("inferd.yaml") if yaml is not None else None
        if file is not None:
            file.write_text(yaml or "")
        return load_settings(config_file=file, flags=flags or {})

    return _load


@pytest.fixture
def problems(load: Load) -> Callable[..., list[str]]:
    """Load invalid settings and return a line for each problem."""

    def _problems(*arguments: object, **environment: str) -> list[str]:
        with pytest.raises(SettingsError) as caught:
            load(*arguments, **environment)
        return [str(problem) for problem in caught.value.problems]

    return _problems
