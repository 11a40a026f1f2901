"""Which model and version answers."""

import pytest

from inferd.config.settings import ModelSettings
from inferd.errors import InvalidInputError, ModelNotFoundError, ModelUnavailableError
from inferd.models.registry import ModelRegistry
from inferd.models.version import LoadedModel, ModelState, ModelVersion


def version(name: str, number: str = "1", state: ModelState = ModelState.READY) -> ModelVersion:
    made = ModelVersion(name=name, version=number, settings=ModelSettings())
    loaded = LoadedModel(session=None, batcher=None, memory_bytes=0)
    if state is ModelState.READY:
        made.load(loaded)
    elif state is ModelState.FAILED:
        made.fail("a reason that callers do not hear")
    elif state is ModelState.UNLOADING:
        made.load(loaded)
        made.unload()
    return made


def registry(*versions: ModelVersion) -> ModelRegistry:
    made = ModelRegistry()
    for each in versions:
        made.add(each)
    return made


def test_without_a_version_the_highest_that_is_ready_answers():
    """By number, not by letter, and not one that is still loading."""
    models = registry(version("m", "9"), version("m", "10"), version("m", "11", ModelState.LOADING), version("m", "2"))
    assert models.get("m").version == "10"
    assert models.find("m").version == "10"
    assert models.get("m", "9").version == "9"


@pytest.mark.parametrize("asked", ["1", "01", "0001"])
def test_leading_zeros_are_no_other_version(asked: str):
    """As for Triton, which reads a number."""
    assert registry(version("m", "1"), version("m", "10")).get("m", asked).version == "1"


@pytest.mark.parametrize("asked", ["1.0", " 1", "+1", "1 ", "0", "00", "0x1", "01a", "-1", "\u0661"])
def test_what_is_no_version_is_not_found(asked: str):
    """Triton takes whatever begins with a number for that number; here it would be a guess."""
    with pytest.raises(ModelNotFoundError, match='model "m" has no version'):
        registry(version("m", "1")).get("m", asked)


def test_without_a_name_the_only_model_answers():
    """Of several, the caller has to choose."""
    assert registry(version("m", "1"), version("m", "2")).get("").version == "2"
    with pytest.raises(InvalidInputError, match="model: expected one of a, b, got no name"):
        registry(version("b"), version("a")).get("")


@pytest.mark.parametrize(
    ("name", "number", "message"),
    [("q", "", 'there is no model "q"'), ("m", "7", 'model "m" has no version "7", it has 2, 1')],
)
def test_what_is_not_there_is_not_found(name, number, message):
    """By `get` and by `find`."""
    models = registry(version("m", "1"), version("m", "2"))
    for look in (models.get, models.find):
        with pytest.raises(ModelNotFoundError, match=message):
            look(name, number)


def test_an_empty_registry_has_no_model():
    """Not even without a name."""
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
def test_what_is_not_ready_is_unavailable(state, words):
    """`find` gives it all the same, and no caller hears why a load failed."""
    models = registry(version("m", "3", state))
    for number in ("", "3"):
        with pytest.raises(ModelUnavailableError) as unavailable:
            models.get("m", number)
        assert unavailable.value.message == f'model "m" version "3" {words}'
        assert models.find("m", number).state is state


def test_all_are_ordered():
    """By name, then by version with the highest first."""
    models = registry(version("b", "1"), version("a", "2"), version("a", "10"))
    assert [(each.name, each.version) for each in models.all()] == [("a", "10"), ("a", "2"), ("b", "1")]


def test_a_version_is_added_once():
    """The first one stays."""
    models = registry(version("m"))
    first = models.get("m")
    with pytest.raises(ValueError, match='model "m" has a version "1" already'):
        models.add(version("m"))
    assert models.get("m") is first


def test_what_is_not_visible_does_not_exist():
    """Same error and same text as for a name that there is not; without a name, others do not count."""
    models = registry(version("mine"), version("other"))
    for name in ("other", "none"):
        with pytest.raises(ModelNotFoundError, match=f'^there is no model "{name}"$'):
            models.find(name, "7", {"mine"}.__contains__)
    assert models.find("", "", {"mine"}.__contains__).name == "mine"
    with pytest.raises(InvalidInputError, match="expected one of mine, other, got no name"):
        models.find("", "", {"mine", "other"}.__contains__)
    with pytest.raises(ModelNotFoundError, match=r"^there is no model$"):
        models.find("", "", lambda _: False)
