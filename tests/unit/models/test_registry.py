"""The registry of model versions."""

import pytest

from inferd.errors import ColdModelError, InvalidInputError, ModelNotFoundError, ModelUnavailableError
from inferd.models.registry import ModelRegistry
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from tests.unit.models.versions import version


def registry(*versions: ModelVersion) -> ModelRegistry:
    made = ModelRegistry()
    for each in versions:
        made.add(each)
    return made


def test_default_version_is_the_highest_ready_one():
    """Ordered by number, versions that are loading excluded."""
    models = registry(version("m", "9"), version("m", "10"), version("m", "11", ModelState.LOADING), version("m", "2"))
    assert models.get("m").version == "10"
    assert models.find("m").version == "10"
    assert models.get("m", "9").version == "9"


@pytest.mark.parametrize("asked", ["1", "01", "0001"])
def test_leading_zeros_are_ignored(asked: str):
    """As in Triton, which parses a number."""
    assert registry(version("m", "1"), version("m", "10")).get("m", asked).version == "1"


@pytest.mark.parametrize("asked", ["1.0", " 1", "+1", "1 ", "0", "00", "0x1", "01a", "-1", "\u0661"])
def test_invalid_versions_are_not_found(asked: str):
    """Triton accepts a numeric prefix; here it would be a guess."""
    with pytest.raises(ModelNotFoundError, match='model "m" has no version'):
        registry(version("m", "1")).get("m", asked)


def test_default_model_is_the_only_one():
    """With several models, a name is required."""
    assert registry(version("m", "1"), version("m", "2")).get("").version == "2"
    with pytest.raises(InvalidInputError, match="model: expected one of a, b, got no name"):
        registry(version("b"), version("a")).get("")


@pytest.mark.parametrize(
    ("name", "number", "message"),
    [("q", "", 'there is no model "q"'), ("m", "7", 'model "m" has no version "7", it has 2, 1')],
)
def test_unknown_models_and_versions(name, number, message):
    """`get` and `find` raise the same error."""
    models = registry(version("m", "1"), version("m", "2"))
    for look in (models.get, models.find):
        with pytest.raises(ModelNotFoundError, match=message):
            look(name, number)


def test_models_may_be_missing_at_the_start():
    """A call for one is told to come again; a version that is there is found."""
    models = ModelRegistry(is_complete=False)
    models.add(version("m", "1"))
    assert models.get("m").version == "1"
    for name, number in (("q", ""), ("m", "2")):
        with pytest.raises(ModelUnavailableError, match="yet: the server is starting") as raised:
            models.find(name, number)
        assert raised.value.retry_after_s == 1.0
    models.is_complete = True
    with pytest.raises(ModelNotFoundError):
        models.find("q")


def test_models_that_are_being_loaded_have_a_retry_hint():
    """The others do not: when they come back is unknown."""
    loading = version("m", "1", ModelState.LOADING)
    for state in (ModelState.VERIFYING, ModelState.WARMING):
        assert loading.unavailable().retry_after_s == 1.0
        loading.advance(state)
    assert loading.unavailable().retry_after_s == 1.0
    for state in (ModelState.FAILED, ModelState.UNLOADING):
        assert version("m", "1", state).unavailable().retry_after_s is None


def test_empty_registry():
    """There is no default model."""
    with pytest.raises(ModelNotFoundError, match="there is no model"):
        registry().get("")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (ModelState.LOADING, "is loading"),
        (ModelState.FAILED, "failed to load"),
        (ModelState.UNLOADING, "is unloading"),
    ],
)
def test_versions_that_are_not_ready(state, words):
    """`find` returns them, `get` raises without the reason of the failure."""
    models = registry(version("m", "3", state))
    for number in ("", "3"):
        with pytest.raises(ModelUnavailableError) as unavailable:
            models.get("m", number)
        assert unavailable.value.message == f'model "m" version "3" {words}'
        assert models.find("m", number).state is state


@pytest.mark.parametrize("state", [ModelState.ON_DEMAND, ModelState.LOADING, ModelState.UNLOADING, ModelState.FAILED])
def test_requests_may_wait_for_versions_on_demand(state):
    """`get` raises an error that says which model; what is READY is found as ever."""
    models = registry(version("m", "3", state, on_demand=True))
    for number in ("", "3"):
        with pytest.raises(ColdModelError) as cold:
            models.get("m", number)
        assert (cold.value.model, cold.value.version) == ("m", "3")
    ready = version("m", "2", on_demand=True)
    models.add(ready)
    assert models.get("m") is ready


def test_order_of_all():
    """By name, then by version with the highest first."""
    models = registry(version("b", "1"), version("a", "2"), version("a", "10"))
    assert [(each.name, each.version) for each in models.all()] == [("a", "10"), ("a", "2"), ("b", "1")]


def test_rejects_duplicate_versions():
    """The first one is kept."""
    models = registry(version("m"))
    first = models.get("m")
    with pytest.raises(ValueError, match='model "m" has a version "1" already'):
        models.add(version("m"))
    assert models.get("m") is first


def test_invisible_models_do_not_exist():
    """The error is that of an unknown name, and they are not counted without a name."""
    models = registry(version("mine"), version("other"))
    for name in ("other", "none"):
        with pytest.raises(ModelNotFoundError, match=f'^there is no model "{name}"$'):
            models.find(name, "7", {"mine"}.__contains__)
    assert models.find("", "", {"mine"}.__contains__).name == "mine"
    with pytest.raises(InvalidInputError, match="expected one of mine, other, got no name"):
        models.find("", "", {"mine", "other"}.__contains__)
    with pytest.raises(ModelNotFoundError, match=r"^there is no model$"):
        models.find("", "", lambda _: False)
