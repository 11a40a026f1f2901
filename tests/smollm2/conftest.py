"""SmolLM2-135M-Instruct in two forms, built once and cached, and a server with both."""

from collections.abc import Iterator

import pytest

from scripts import build_smollm2
from scripts.llama_graph import GraphForm
from tests.server import ROOT, ServerProcess, serving

#: The models by name, and the weights of each.
MODELS = {"smollm2": "int8", "smollm2-fp32": "fp32"}


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """Serve both models."""
    folder = ROOT / ".cache" / "models"
    arguments: list[str] = []
    for name, weights in MODELS.items():
        built = build_smollm2.build(folder / f"smollm2-{weights}", GraphForm(weights=weights))
        arguments += ["--model", f"{name}={built}"]
    with serving(*arguments) as running:
        yield running
