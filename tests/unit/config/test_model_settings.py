"""A model.yaml overrides the server's settings."""

import pytest

from inferd.config.settings import Settings
from inferd.config.validation import SettingsError


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
        (
            {"batching": {"max_batch_size": 8, "preferred_sizes": [4, 16]}},
            "batching.preferred_sizes: expected at most batching.max_batch_size, which is 8, got 16 (model.yaml)",
        ),
        (
            {"queue": {"priority_levels": 2, "by_priority": {3: {"max_rows": 1}}}},
            "queue.by_priority: expected priorities from 1 to priority_levels, which is 2, got 3 (model.yaml)",
        ),
        (
            {"queue": {"by_priority": {1: {"default_timeout_ms": 5}}}},
            (
                "batching.max_wait_ms: expected less than queue.by_priority.1.default_timeout_ms, which is 5.0, "
                "got 10.0 (model.yaml)"
            ),
        ),
        (
            {"runtime": {"session_options": {"session.optimized_model_filepath": "/etc/cron.d/x"}}},
            (
                "runtime.session_options: expected entries that name no files, got session.optimized_model_filepath "
                "(model.yaml)"
            ),
        ),
        (
            {"runtime": {"session_options": {"session.intra_op.allow_spinning": 1}}},
            (
                "runtime.session_options: expected allow_spinning in its own setting, runtime.allow_spinning, got "
                "session.intra_op.allow_spinning (model.yaml)"
            ),
        ),
        (
            {"inputs": {"x": {"model_shape": [-1]}}},
            "inputs.x.model_shape: expected shape beside it, which is the one for clients (model.yaml)",
        ),
        (
            {"batch_axes": "none", "outputs": {"y": {"batch_axis": 0}}},
            "batch_axes: expected auto, because a batch_axis is set, got none (model.yaml)",
        ),
        ({"file": "1/m.onnx"}, "file: expected the name of a file, without directories, got 1/m.onnx (model.yaml)"),
        (
            {"outputs": {"y": {"labels": "../../passwd"}}},
            "outputs.y.labels: expected a path inside the directory of the model, got ../../passwd (model.yaml)",
        ),
        (
            {"warmup": [{"inputs": {"x": {"datatype": "FP32", "dims": [], "file": "/etc/passwd"}}}]},
            "warmup.0.inputs.x.file: expected a path inside the directory of the model, got /etc/passwd (model.yaml)",
        ),
        (
            {"warmup": [{"inputs": {"x": {"datatype": "FP32", "dims": [], "file": "x", "fill": "zero"}}}]},
            "warmup.0.inputs.x: expected either fill or file (model.yaml)",
        ),
        ({"outputs": {"y": {"optional": True}}}, "outputs.y.optional: no such setting (model.yaml)"),
        (
            {"served_outputs": "listed"},
            "served_outputs: expected outputs beside it, which names them, got listed (model.yaml)",
        ),
        (
            {"runtime": {"session_options": {"": "1"}}},
            "runtime.session_options.: expected at least 1 character, got '' (model.yaml)",
        ),
    ],
)
def test_errors(overrides: dict[str, object], problem: str) -> None:
    """The same messages as for the server's settings."""
    with pytest.raises(SettingsError) as caught:
        Settings().for_model(overrides)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    "runtime",
    [
        {"provider_options": {"tensorrt": {"trt_extra_plugin_lib_paths": "/tmp/evil.so"}}},
        {"provider_options": {"tensorrt": {"trt_ep_context_file_path": "/etc"}}},
        {"provider_options": {"QNNExecutionProvider": {"backend_path": "evil.so"}}},
        {"provider_options": {"cuda": {"user_compute_stream": "140234"}}},
        {"provider_options": {"cuda": {"gpu_external_alloc": "140234"}}},
    ],
)
def test_rejects_options_that_reach_outside(runtime: dict) -> None:
    """Files, libraries and addresses, except those that the server's own settings have."""
    with pytest.raises(SettingsError, match=r"expected no file, library or address.*\(model\.yaml\)"):
        Settings().for_model({"runtime": runtime})
    assert Settings.model_validate({"runtime": runtime}).for_model({"runtime": runtime})


@pytest.mark.parametrize(
    "options",
    [
        {"trt_profile_min_shapes": "x:1x3"},
        {"trt_engine_cache_path": "/cache"},
        {"do_copy_in_default_stream": "1"},
        {"cudnn_conv_algo_search": "HEURISTIC"},
        {"gpu_mem_limit": "1"},
    ],
)
def test_accepts_other_options(options: dict) -> None:
    """Models may have their own."""
    assert Settings().for_model({"runtime": {"provider_options": {"cuda": options}}})


@pytest.mark.parametrize(
    ("given", "expected"), [(3, (3, 3)), ("3", (3, 3)), ({"max": 4}, (1, 4)), ({"min": 2, "max": 4}, (2, 4))]
)
def test_instances_are_a_number_or_a_range(given: object, expected: tuple[int, int]) -> None:
    """A range begins at 1 unless it says otherwise; a number is both of its ends."""
    batching = Settings().for_model({"batching": {"instances": given}}).batching
    assert (batching.min_instances, batching.max_instances) == expected


def test_range_of_instances_replaces_a_number() -> None:
    """And the other way round; of two ranges, the names that the model.yaml sets count."""
    ranged = Settings.model_validate({"batching": {"instances": {"min": 2, "max": 8}}})
    assert ranged.for_model({"batching": {"instances": 3}}).batching.instances == 3
    assert ranged.for_model({"batching": {"instances": {"max": 4}}}).batching.min_instances == 2
    assert Settings().for_model({"batching": {"instances": {"max": 4}}}).batching.max_instances == 4


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (65, "batching.instances: expected less than or equal to 64, got 65"),
        (True, "batching.instances: expected a number, got True"),
        ({"min": 3, "max": 2}, "batching.instances.min: expected at most max, which is 2, got 3"),
        ({"max": 65}, "batching.instances.max: expected less than or equal to 64, got 65"),
        ({"min": 2}, "batching.instances: expected max in it, got {'min': 2}"),
    ],
)
def test_invalid_instances_name_what_is_wrong(given: object, problem: str) -> None:
    """And the bound that it exceeds."""
    with pytest.raises(SettingsError) as raised:
        Settings().for_model({"batching": {"instances": given}})
    assert str(raised.value) == f"{problem} (model.yaml)"
