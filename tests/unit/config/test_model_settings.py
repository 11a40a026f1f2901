"""A model.yaml over the server's settings."""

import pytest

from inferd.config import Settings, SettingsError


def test_overrides_reach_into_sections() -> None:
    """What a model.yaml does not name stays the server's."""
    settings = Settings.model_validate({"queue": {"max_rows": 500, "priority_levels": 5}, "runtime": {"warmup": False}})
    model = settings.for_model({"queue": {"max_rows": 200}, "batching": {"instances": 2}})
    assert (model.queue.max_rows, model.queue.priority_levels) == (200, 5)
    assert (model.batching.instances, model.batching.max_batch_size) == (2, 64)
    assert model.runtime.warmup is False


def test_no_overrides() -> None:
    """An empty model.yaml, and one with empty sections only."""
    settings = Settings.model_validate({"queue": {"max_rows": 500}})
    assert settings.for_model({}) == settings.for_model({"queue": None, "inputs": None})
    assert settings.for_model({}).queue == settings.queue


def test_options_of_providers_are_merged() -> None:
    """One option of one provider leaves the others alone."""
    settings = Settings.model_validate({"runtime": {"provider_options": {"cuda": {"a": "1"}, "cpu": {"b": "2"}}}})
    model = settings.for_model({"runtime": {"provider_options": {"cuda": {"c": 3}}}})
    assert model.runtime.provider_options == {"cuda": {"a": "1", "c": "3"}, "cpu": {"b": "2"}}


def test_tensors() -> None:
    """A batch axis that is set to null differs from one that is not set."""
    inputs = Settings().for_model({"inputs": {"x": {"batch_axis": None}, "y": {"warmup_shape": [1, 8]}}}).inputs
    assert "batch_axis" in inputs["x"].model_fields_set
    assert "batch_axis" not in inputs["y"].model_fields_set


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ({"queue": {"max_row": 1}}, "queue.max_row: no such setting, did you mean queue.max_rows? (model.yaml)"),
        ({"server": {}}, "server: no such setting (model.yaml)"),
        (
            {"inputs": {"x": {"batch_axis": -1}}},
            "inputs.x.batch_axis: expected greater than or equal to 0, got -1 (model.yaml)",
        ),
        (
            {"queue": {"max_rows": 8}},
            "batching.max_batch_size: expected at most queue.max_rows, which is 8, got 64 (model.yaml)",
        ),
    ],
)
def test_refusals(overrides: dict[str, object], problem: str) -> None:
    """The same texts as for the server's settings."""
    with pytest.raises(SettingsError) as refused:
        Settings().for_model(overrides)
    assert str(refused.value) == problem
