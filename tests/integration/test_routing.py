"""Labels, weights and shadows over sockets: which version answers, and what metrics and errors say."""

import json
import time
import urllib.request
from collections import Counter

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from inferd.cli.entry import run
from inferd.client import Client, InvalidInput, NotFound, Routing, Shadow
from tests import onnx_models
from tests.patience import PATIENCE_S
from tests.server import serving

X = np.full((1, 3), 2, np.float32)

REQUESTS = 10_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A model whose versions 1 and 2 give equal answers, and version 3 others; and one whose file has its routing."""
    root = tmp_path_factory.mktemp("models")
    for model in ("linear", "routed"):
        for number in "12":
            onnx_models.save(onnx_models.linear(), root / model / number / "model.onnx")
    onnx_models.save(onnx_models.linear(factor=3.0), root / "linear" / "3" / "model.onnx")
    (root / "routed" / "model.yaml").write_text("routing:\n  labels: {stable: 1}\n  weights: {stable: 1}\n")
    with serving(root) as running:
        yield running


@pytest.fixture
def client(server):
    """A client; the routing is reset after the test."""
    with Client(server.grpc, coalesce=True) as made:
        yield made
        made.set_routing("linear", Routing())


def metrics(server, name: str, by: str = "version") -> dict[str, float]:
    """Return the values of a metric of the model by one of its labels."""
    with urllib.request.urlopen(f"http://{server.http}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {sample.labels[by]: sample.value for sample in samples if sample.labels["model"] == "linear"}


def versions(client, requests: int) -> Counter:
    return Counter(each.result().version for each in client.stream("linear", ({"x": X} for _ in range(requests))))


def test_highest_version_by_default(client):
    """Without routing."""
    assert client.routing("linear") == Routing()
    assert versions(client, 10) == {"3": 10}


def test_canary(client, server):
    """It gets its share of 10,000 requests within two percentage points; rollback is one call."""
    routing = Routing(labels={"stable": "1", "canary": "3"}, weights={"stable": 90, "canary": 10})
    assert client.set_routing("linear", routing) == routing
    counted = versions(client, REQUESTS)
    assert set(counted) == {"1", "3"}
    assert abs(counted["3"] / REQUESTS - 0.1) < 0.02
    assert metrics(server, "inferd_model_share") == {"3": 0.1, "2": 0.0, "1": 0.9}
    assert metrics(server, "inferd_model_label", by="label") == {"canary": 1.0, "stable": 1.0}
    assert run(["models", "route", "linear", "--address", server.grpc, "--weight", "stable=1"]) == 0
    assert versions(client, 100) == {"1": 100}


def test_labels_in_place_of_versions(client):
    """In every call that takes a version; one that is not there is NOT_FOUND."""
    client.set_routing("linear", Routing(labels={"stable": "1"}))
    assert client.infer("linear", {"x": X}, version="stable").version == "1"
    assert client.infer("linear", {"x": X}).version == "3"
    assert client.model("linear", version="stable").version == "1"
    with pytest.raises(NotFound, match='no version "canary"'):
        client.infer("linear", {"x": X}, version="canary")


@pytest.mark.parametrize(
    ("routing", "message"),
    [
        (Routing(labels={"canary": "9"}), "label canary: expected a version that is ready"),
        (Routing(weights={"canary": 1}), "expected the number of a version or one of the labels, got canary"),
        (Routing(weights={"1": -1}), r"routing\.weights\.1: .*greater than or equal to 0"),
        (Routing(labels={"1": "1"}), "labels that are not numbers"),
        (Routing(shadow=Shadow("1", share=2.0)), r"routing\.shadow\.share"),
    ],
)
def test_invalid_routing(client, routing, message):
    """Nothing changes."""
    with pytest.raises(InvalidInput, match=message):
        client.set_routing("linear", routing)
    assert client.routing("linear") == Routing()


@pytest.mark.parametrize(("number", "outcome"), [("2", "equal"), ("3", "different")])
def test_shadow(number, outcome, server, client):
    """Copies are compared and counted; callers get the answers of the version that they asked for."""
    before = Counter(metrics(server, "inferd_shadow_requests_total", by="outcome"))
    client.set_routing("linear", Routing(weights={"1": 1}, shadow=Shadow(number)))
    for _ in range(20):
        assert client.infer("linear", {"x": X}).version == "1"
    counted: Counter[str] = Counter()
    ends_at = time.monotonic() + PATIENCE_S
    while counted.total() < 20 and time.monotonic() < ends_at:
        counted = Counter(metrics(server, "inferd_shadow_requests_total", by="outcome")) - before
    assert counted == {outcome: 20}


def test_command_line(client, server, capsys):
    """It shows the routing, and changes the parts that are given."""
    command = ["models", "route", "linear", "--address", server.grpc]
    assert run([*command, "--label", "stable=1", "--weight", "stable=3", "--weight", "2=1", "--shadow", "3=0.5"]) == 0
    assert capsys.readouterr().out == (
        "label stable: version 1\nweight of 2: 1 (25.0%)\nweight of stable: 3 (75.0%)\n"
        "shadow: version 3, 50.0% of the requests\n"
    )
    assert run([*command, "--shadow", "3=0", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"labels": {"stable": "1"}, "weights": {"2": 1.0, "stable": 3.0}, "shadow": None}
    assert run([*command, "--clear"]) == 0
    assert "highest ready version" in capsys.readouterr().out
    assert run([*command, "--weight", "many"]) == 2
    assert run([*command, "--weight", "1=many"]) == 2


def test_routing_of_a_model_yaml(client):
    """It applies from the start, before a request can find another version."""
    assert client.routing("routed") == Routing(labels={"stable": "1"}, weights={"stable": 1.0})
    assert client.infer("routed", {"x": X}).version == "1"
