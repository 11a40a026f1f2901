"""The one module that imports private names of grpcio."""

import ast
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

import inferd.rpc
from inferd.rpc import core


def test_finds_missing_names():
    """A grpcio release that lacks a name is detected."""
    complete = SimpleNamespace(**dict.fromkeys(core._NAMES))
    assert core.missing_names(complete) == []
    del complete.CompletionQueue
    assert core.missing_names(complete) == ["CompletionQueue"]


def test_checks_the_names_in_use():
    """The check at import covers all names of cygrpc in use."""
    tree = ast.parse(Path(core.__file__).read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cygrpc"
    }
    assert used == set(core._NAMES)


def test_no_other_module_imports_private_names():
    """``cygrpc`` and grpcio's private modules are imported in one place."""
    package = Path(inferd.rpc.__file__).parent
    importers = {path.name for path in package.glob("*.py") if "import cygrpc" in path.read_text()}
    importers |= {path.name for path in package.glob("*.py") if "grpc._" in path.read_text()}
    assert importers == {"core.py"}


def test_error_names_the_installed_and_the_tested_releases():
    """So that the reader knows which release to install."""
    text = str(core.IncompatibleGrpcioError("lacks X"))
    assert text == f"grpcio {grpc.__version__} lacks X; this package works with grpcio 1.76 to 1.85"


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_code_has_its_number(code):
    """The core takes codes as the numbers of the protocol."""
    assert core._CODE_NUMBERS[id(code)] == code.value[0]
