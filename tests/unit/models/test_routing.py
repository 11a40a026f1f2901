"""Labels, weights and which version a request gets."""

import itertools
from collections import Counter

import pytest
from pydantic import ValidationError

from inferd.config.routing import RoutingSettings
from inferd.errors import InvalidInputError, ModelNotFoundError, ModelUnavailableError
from inferd.models.registry import ModelRegistry
from inferd.models.router import Router
from inferd.models.routing import Routes, require_ready
from inferd.models.states import ModelState
from tests.unit.models.versions import version


def evenly():
    """Numbers from 0 to below 1, evenly spread."""
    numbers = itertools.cycle(range(100))
    return lambda: next(numbers) / 100


def registry(routing: dict, *versions) -> ModelRegistry:
    made = ModelRegistry()
    for each in versions:
        made.add(each)
    made.route("m", Routes(RoutingSettings.model_validate(routing), evenly()))
    return made


def shares(models: ModelRegistry) -> dict[str, int]:
    return dict(Counter(models.get("m").version for _ in range(100)))


def test_weights():
    """By number or label, in any unit."""
    routing = {"labels": {"canary": 2}, "weights": {"1": 9, "canary": 1}}
    assert shares(registry(routing, version("m", "1"), version("m", "2"), version("m", "3"))) == {"1": 90, "2": 10}


def test_weight_of_a_version_that_is_not_ready():
    """The others take its share; with none of them, the highest ready version takes all."""
    loading = version("m", "2", ModelState.LOADING)
    assert shares(registry({"weights": {"1": 1, "2": 9}}, version("m", "1"), loading)) == {"1": 100}
    assert shares(registry({"weights": {"2": 1}}, version("m", "1"), loading)) == {"1": 100}


def test_weights_are_for_requests_without_a_version():
    """A number and a label decide themselves."""
    models = registry({"labels": {"stable": 1}, "weights": {"2": 1}}, version("m", "1"), version("m", "2"))
    assert models.get("m", "1").version == "1"
    assert models.get("m", "stable").version == "1"
    assert models.find("m", "stable").version == "1"
    assert models.get("m").version == "2"


def test_label_of_a_version_that_is_not_ready():
    """The error names the version; an unknown label is no version."""
    models = registry({"labels": {"canary": 2}}, version("m", "1"), version("m", "2", ModelState.LOADING))
    with pytest.raises(ModelUnavailableError, match='version "2" is loading'):
        models.get("m", "canary")
    with pytest.raises(ModelNotFoundError, match='no version "stable"'):
        models.get("m", "stable")


def test_other_models_are_not_affected():
    """Routing is by model."""
    models = registry({"weights": {"1": 1}}, version("m", "1"), version("n", "1"), version("n", "2"))
    assert models.get("n").version == "2"


@pytest.mark.parametrize(
    ("routing", "message"),
    [
        ({"labels": {"7": 1}}, "labels that are not numbers"),
        ({"labels": {"stable": "new"}}, "expected the number of a version for stable, got new"),
        ({"weights": {"1": 0}}, "at least one weight above 0"),
        ({"weights": {"1": -1}}, "greater than or equal to 0"),
        ({"weights": {"stable": 1}}, "number of a version or one of the labels, got stable"),
        ({"shadow": {"version": "canary"}}, "number of a version or one of the labels, got canary"),
        ({"shadow": {"version": 1, "share": 0}}, "greater than 0"),
    ],
)
def test_invalid_settings(routing, message):
    """Each names what is wrong."""
    with pytest.raises(ValidationError, match=message):
        RoutingSettings.model_validate(routing)


@pytest.mark.parametrize(
    ("routing", "message"),
    [
        ({"labels": {"canary": 2}}, r"label canary: expected a version that is ready \(1\), got 2"),
        ({"weights": {"1": 1, "2": 1}}, "weight of 2: expected a version that is ready"),
        ({"shadow": {"version": 3}}, "shadow: expected a version that is ready"),
    ],
)
def test_calls_may_name_ready_versions_only(routing, message):
    """Whatever leads to another one is refused."""
    versions = [version("m", "1"), version("m", "2", ModelState.LOADING)]
    with pytest.raises(InvalidInputError, match=message):
        require_ready(RoutingSettings.model_validate(routing), versions)


def test_weight_of_zero_may_be_of_any_version():
    """It gets nothing."""
    require_ready(RoutingSettings.model_validate({"weights": {"1": 1, "9": 0}}), [version("m", "1")])


def router(models: ModelRegistry) -> Router:
    return Router(models, lambda *_: None)


def test_settings_of_a_model_apply_when_they_change():
    """What a call has set holds until then."""
    models = ModelRegistry()
    models.add(version("m", "1"))
    models.add(version("m", "2"))
    routed = router(models)
    first = RoutingSettings.model_validate({"weights": {"1": 1}})
    routed.configure("m", first)
    assert models.get("m").version == "1"
    routed.change("m", RoutingSettings())
    assert models.get("m").version == "2"
    routed.configure("m", first)
    assert models.get("m").version == "2"
    routed.configure("m", RoutingSettings.model_validate({"labels": {"old": 1}}))
    assert routed.routing("m").labels == {"old": "1"}


def test_change_of_an_unknown_model():
    """NOT_FOUND."""
    with pytest.raises(ModelNotFoundError, match='there is no model "n"'):
        router(ModelRegistry()).change("n", RoutingSettings())
