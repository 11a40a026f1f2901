"""The one module that knows grpcio's private names."""

import ast
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

import inferd.rpc
from inferd.rpc import core


def test_missing_names_are_found():
    """A grpcio that has lost a name is told from one that has them all."""
    complete = SimpleNamespace(**dict.fromkeys(core._NAMES))
    assert core.missing_names(complete) == []
    del complete.CompletionQueue
    assert core.missing_names(complete) == ["CompletionQueue"]


def test_the_names_checked_are_the_names_used():
    """The check at import covers everything that is used of cygrpc."""
    tree = ast.parse(Path(core.__file__).read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cygrpc"
    }
    assert used == set(core._NAMES)


def test_no_other_module_knows_private_names():
    """``cygrpc`` and grpcio's private modules are imported in one place only."""
    package = Path(inferd.rpc.__file__).parent
    importers = {path.name for path in package.glob("*.py") if "import cygrpc" in path.read_text()}
    importers |= {path.name for path in package.glob("*.py") if "grpc._" in path.read_text()}
    assert importers == {"core.py"}


def test_the_error_names_the_installed_and_the_tested_versions():
    """Who reads it knows what to install."""
    text = str(core.IncompatibleGrpcioError("lacks X"))
    assert text == f"grpcio {grpc.__version__} lacks X; this package works with grpcio 1.76 to 1.85"


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_code_has_its_number(code):
    """Codes go to the core as the numbers of the protocol."""
    assert core._CODE_NUMBERS[code] == code.value[0]
