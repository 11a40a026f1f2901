"""A model.yaml overrides the server's settings."""

import pytest

from inferd.config import Settings, SettingsError


def test_overrides_within_sections() -> None:
    """Settings that a model.yaml does not set are the server's."""
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


def test_provider_options_are_merged() -> None:
    """An override of one option keeps the others."""
    settings = Settings.model_validate({"runtime": {"provider_options": {"cuda": {"a": "1"}, "cpu": {"b": "2"}}}})
    model = settings.for_model({"runtime": {"provider_options": {"cuda": {"c": 3}}}})
    assert model.runtime.provider_options == {"cuda": {"a": "1", "c": "3"}, "cpu": {"b": "2"}}


def test_null_batch_axis_differs_from_unset() -> None:
    """Null is an explicit setting."""
    inputs = Settings().for_model({"inputs": {"x": {"batch_axis": None}, "y": {"warmup_shape": [1, 8]}}}).inputs
    assert "batch_axis" in inputs["x"].model_fields_set
    assert "batch_axis" not in inputs["y"].model_fields_set


def test_loose_dimensions() -> None:
    """Empty by default."""
    assert Settings().for_model({"loose_dimensions": ["sequence"]}).loose_dimensions == ["sequence"]
    assert Settings().for_model({}).loose_dimensions == []


def test_accepts_custom_ops_that_the_server_lists() -> None:
    """A model may use a subset of them."""
    settings = Settings.model_validate({"runtime": {"custom_ops": ["/opt/a.so", "/opt/b.so"]}})
    assert settings.for_model({}).runtime.custom_ops == ["/opt/a.so", "/opt/b.so"]
    assert settings.for_model({"runtime": {"custom_ops": ["/opt/b.so"]}}).runtime.custom_ops == ["/opt/b.so"]
    assert settings.for_model({"runtime": {"custom_ops": []}}).runtime.custom_ops == []


@pytest.mark.parametrize("library", ["evil.so", "onnxruntime-extensions", "/opt/../opt/a.so", "/opt/./a.so"])
def test_rejects_custom_ops_that_the_server_does_not_list(library: str) -> None:
    """Also by another path to the same file: writing models must not mean running code."""
    settings = Settings.model_validate({"runtime": {"custom_ops": ["/opt/a.so"]}})
    with pytest.raises(SettingsError) as caught:
        settings.for_model({"runtime": {"custom_ops": ["/opt/a.so", library]}})
    assert str(caught.value) == (
        "runtime.custom_ops: expected only libraries that the server's own settings list as well, "
        f"got {library} (model.yaml)"
    )


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
def test_errors(overrides: dict[str, object], problem: str) -> None:
    """The same messages as for the server's settings."""
    with pytest.raises(SettingsError) as caught:
        Settings().for_model(overrides)
    assert str(caught.value) == problem
