"""The locked requirements of images match setup.cfg."""

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

_ROOT = Path(__file__).resolve().parents[2]


def _required(extra):
    setup = configparser.ConfigParser()
    setup.read(_ROOT / "setup.cfg", encoding="utf-8")
    lines = [setup["options"]["install_requires"], *(setup["options.extras_require"][each] for each in extra)]
    return [
        Requirement(line)
        for line in "\n".join(lines).splitlines()
        if line and not line.startswith("#") and not line.startswith("inferd[")
    ]


def _locked(name):
    """Return the locked versions of each package, which may differ by Python version."""
    locked = {}
    for line in (_ROOT / "requirements" / f"{name}.txt").read_text().splitlines():
        if found := re.match(r"([a-z0-9-]+)==(\S+)", line):
            locked.setdefault(found[1], []).append(found[2])
    return locked


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_requirements_are_locked(variant):
    """Within the ranges of setup.cfg. If not, run `make lock`."""
    locked = _locked(variant)
    for requirement in _required([variant, "server", "terminal", "batch", "otel", "remote", "text"]):
        versions = locked[re.sub(r"[._]", "-", requirement.name.lower())]
        assert all(requirement.specifier.contains(version) for version in versions), requirement


@pytest.mark.parametrize("name", ["build", "cpu", "gpu"])
def test_locks_have_hashes_and_no_urls(name):
    """Hashes are valid for every mirror."""
    text = (_ROOT / "requirements" / f"{name}.txt").read_text()
    assert "://" not in text
    assert all("--hash=sha256:" in package for package in re.split(r"\n(?=[a-z])", text)[1:])
