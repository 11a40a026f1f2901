"""What images are built from agrees with what setup.cfg asks for."""

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

_ROOT = Path(__file__).resolve().parents[2]


def _wanted(extra):
    setup = configparser.ConfigParser()
    setup.read(_ROOT / "setup.cfg", encoding="utf-8")
    lines = [setup["options"]["install_requires"], *(setup["options.extras_require"][each] for each in extra)]
    return [
        Requirement(line)
        for line in "\n".join(lines).splitlines()
        if line and not line.startswith("#") and not line.startswith("inferd[")
    ]


def _locked(name):
    """Return the versions of each package; some have several, for different versions of Python."""
    locked = {}
    for line in (_ROOT / "requirements" / f"{name}.txt").read_text().splitlines():
        if found := re.match(r"([a-z0-9-]+)==(\S+)", line):
            locked.setdefault(found[1], []).append(found[2])
    return locked


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_every_requirement_is_locked_within_its_range(variant):
    """Whoever changes setup.cfg also runs `make lock`."""
    locked = _locked(variant)
    for wanted in _wanted([variant, "server", "cli", "otel"]):
        versions = locked[re.sub(r"[._]", "-", wanted.name.lower())]
        assert all(wanted.specifier.contains(version) for version in versions), wanted


@pytest.mark.parametrize("name", ["build", "cpu", "gpu"])
def test_locks_name_hashes_and_no_address(name):
    """Each package has hashes, which hold for every mirror."""
    text = (_ROOT / "requirements" / f"{name}.txt").read_text()
    assert "://" not in text
    assert all("--hash=sha256:" in package for package in re.split(r"\n(?=[a-z])", text)[1:])
