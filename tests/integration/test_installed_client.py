"""The installed package, in an environment with only the client's requirements."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S
from tests.server import serving

_ROOT = Path(__file__).resolve().parents[2]
_PROGRAMS = _ROOT / "tests" / "data" / "typed_client"

#: The client's requirements in setup.cfg. Without ``grpc-stubs``, which few users have.
_NEEDED = ("google", "grpc", "ml_dtypes", "numpy", "typing_extensions")

#: Only the paths of that environment.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "MYPYPATH"}}

_BUILD = "from setuptools import setup; setup()"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with inferd installed without extras."""
    folder = tmp_path_factory.mktemp("installed")
    environment = folder / "venv"
    _run([sys.executable, "-m", "venv", "--without-pip", environment])
    (packages,) = environment.glob("lib/python*/site-packages")
    # Builds a wheel from setup.cfg, without a package index.
    _run([sys.executable, "-c", _BUILD, "-q", "egg_info", "--egg-base", packages, "build_py", "--build-lib", packages])
    for name in _NEEDED:
        found = importlib.util.find_spec(name)
        assert found is not None
        origin = Path(found.origin) if found.origin else Path(next(iter(found.submodule_search_locations or ())))
        installed = origin.parent if origin.name == "__init__.py" else origin
        (packages / installed.name).symlink_to(installed)
        for libraries in installed.parent.glob(f"{name}.libs"):
            (packages / libraries.name).symlink_to(libraries)
    return environment / "bin" / "python"


def _run(command: list[object], folder: Path = _ROOT, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=check,
    )


def test_types_of_client_in_user_programs(python, tmp_path):
    """With ``mypy --strict``: a correct program has no errors, and each error of a wrong one is found."""
    # In another directory, because mypy would find inferd in the parents of the file.
    shutil.copytree(_PROGRAMS, tmp_path, dirs_exist_ok=True)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-incremental"]
    checked = _run([*command, "--python-executable", python, "right.py", "wrong.py"], tmp_path, check=False)
    errors = re.findall(r"^(\S+):(\d+): error: .*\[([\w-]+)\]$", checked.stdout, re.MULTILINE)
    expected = [
        ("wrong.py", str(number), line.rpartition("  # ")[2])
        for number, line in enumerate((_PROGRAMS / "wrong.py").read_text().splitlines(), 1)
        if "  # " in line
    ]
    assert sorted(errors) == sorted(expected), checked.stdout


def test_client_runs_without_server_packages(python):
    """The same program runs, and imports nothing of the server."""
    with serving() as server:
        ran = _run([python, _PROGRAMS / "right.py", server.grpc], check=False)
    assert (ran.stderr, ran.stdout) == ("MODEL_NOT_FOUND(True, 'THEIRS', False)", "[(None, 64)]")
