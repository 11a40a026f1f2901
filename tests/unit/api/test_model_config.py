"""Triton's model configuration."""

from types import SimpleNamespace

import pytest

from inferd._generated.inference import model_config_pb2 as pb
from inferd.api.oip.model_config import model_config
from inferd.config.settings import ModelSettings
from inferd.runtime.signature import ModelSignature
from tests.unit.runtime.specs import signature, spec

_ROWS = signature([spec("x", ("batch", 3), 0)], [spec("y", ("batch",), 0)])
_NO_ROWS = _ROWS.without_batch_axes()


def config(of: ModelSignature = _ROWS, provider: str = "CPUExecutionProvider", **settings: object) -> pb.ModelConfig:
    version = SimpleNamespace(name="m", settings=ModelSettings.model_validate(settings), providers=(provider,))
    return model_config(version, of)


@pytest.mark.parametrize(
    ("axis", "max_batch_size", "dims"), [(0, 64, [[3], [5]]), (None, 0, [[-1, 3], [-1, 5]])], ids=["rows", "shared"]
)
def test_marks_optional_inputs(axis, max_batch_size, dims):
    """An input that a batch shares has no batch dimension to leave out."""
    inputs = [spec("x", ("batch", 3), 0), spec("state", ("batch", 5), axis, optional=True)]
    told = config(signature(inputs, [spec("y", ("batch",), 0)]))
    assert [(each.name, each.optional) for each in told.input] == [("x", False), ("state", True)]
    assert told.max_batch_size == max_batch_size
    assert [list(each.dims) for each in told.input] == dims


@pytest.mark.parametrize(
    ("of", "batching", "max_batch_size", "dynamic"),
    [
        (_ROWS, {}, 64, True),
        (_ROWS, {"max_batch_size": 1}, 1, True),
        (_ROWS, {"enabled": False, "max_batch_size": 8}, 8, False),
        (_NO_ROWS, {}, 0, False),
        (_NO_ROWS, {"enabled": False}, 0, False),
    ],
)
def test_rows_of_a_request_and_of_a_batch(of, batching, max_batch_size, dynamic):
    """A request may have several rows although none are combined: then clients leave the dimension out all the same."""
    told = config(of, batching=batching)
    assert (told.max_batch_size, told.HasField("dynamic_batching")) == (max_batch_size, dynamic)
    assert list(told.input[0].dims) == ([3] if max_batch_size else [-1, 3])


def test_tensors():
    """Shapes as declared, with the one in the file, and the file with the labels."""
    shapes = {"shape": [-1, 3, 1], "model_shape": [-1, 3]}
    told = config(file="m.onnx", inputs={"x": shapes}, outputs={"y": {"shape": [-1], "labels": "classes.txt"}})
    assert told.default_model_filename == "m.onnx"
    assert (list(told.input[0].dims), list(told.input[0].reshape.shape)) == ([3, 1], [3])
    assert (list(told.output[0].dims), told.output[0].label_filename) == ([], "classes.txt")
    assert not told.output[0].HasField("reshape")
    whole = config(_NO_ROWS, inputs={"x": {"shape": [1, 3], "model_shape": [3]}})
    assert (list(whole.input[0].dims), list(whole.input[0].reshape.shape)) == ([1, 3], [3])


def test_queues():
    """The policy of each priority, and of those without one."""
    queue = {
        "max_rows": 100,
        "default_timeout_ms": 2000,
        "priority_levels": 2,
        "default_priority": 1,
        "by_priority": {2: {"max_rows": 7, "allow_timeout_override": False}, 1: {"default_timeout_ms": 0.0}},
    }
    told = config(queue=queue, batching={"preferred_sizes": [4, 8], "max_wait_ms": 0.5}).dynamic_batching
    assert (list(told.preferred_batch_size), told.max_queue_delay_microseconds) == ([4, 8], 500)
    assert (told.priority_levels, told.default_priority_level) == (2, 1)
    reject = pb.ModelQueuePolicy.REJECT
    policies = {0: told.default_queue_policy, **told.priority_queue_policy}
    assert {level: _facts(policy) for level, policy in policies.items()} == {
        0: (reject, 2_000_000, True, 100),
        1: (reject, 0, True, 0),
        2: (reject, 2_000_000, False, 7),
    }


def _facts(policy: pb.ModelQueuePolicy) -> tuple[int, int, bool, int]:
    timeout_us, may_override = policy.default_timeout_microseconds, policy.allow_timeout_override
    return policy.timeout_action, timeout_us, may_override, policy.max_queue_size


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ("all", {"all": {}}),
        ({"latest": 2}, {"latest": {"num_versions": 2}}),
        ([1, 3], {"specific": {"versions": [1, 3]}}),
    ],
)
def test_version_policy(versions, expected):
    """If the model has its own."""
    assert config(versions=versions).version_policy == pb.ModelVersionPolicy(**expected)
    assert not config().HasField("version_policy")


def test_warmup():
    """Each sample with its data."""
    inputs = {
        "x": {"datatype": "FP32", "dims": [3], "fill": "random"},
        "ids": {"datatype": "BYTES", "dims": [], "file": "ids.bin"},
        "z": {"datatype": "INT64", "dims": [1], "fill": "zero"},
    }
    (told,) = config(warmup=[{"name": "s", "batch_size": 2, "count": 5, "inputs": inputs}]).model_warmup
    assert (told.name, told.batch_size, told.count) == ("s", 2, 5)
    assert {name: (each.data_type, list(each.dims)) for name, each in told.inputs.items()} == {
        "x": (pb.TYPE_FP32, [3]),
        "ids": (pb.TYPE_STRING, []),
        "z": (pb.TYPE_INT64, [1]),
    }
    assert told.inputs["x"].random_data
    assert told.inputs["z"].zero_data
    assert told.inputs["ids"].input_data_file == "ids.bin"


def test_devices():
    """The one device that all instances use."""
    options = {"cuda": {"device_id": 1}}
    (group,) = config(provider="CUDAExecutionProvider", runtime={"provider_options": options}).instance_group
    assert (group.kind, list(group.gpus)) == (pb.ModelInstanceGroup.KIND_GPU, [1])
    assert list(config(provider="CUDAExecutionProvider").instance_group[0].gpus) == [0]
    (group,) = config(runtime={"provider_options": options}, batching={"instances": 3}).instance_group
    assert (group.kind, group.count, list(group.gpus)) == (pb.ModelInstanceGroup.KIND_CPU, 3, [])


def test_optimization():
    """The level of the graph and the accelerators, with their options."""
    told = config(
        runtime={
            "graph_optimization": "extended",
            "providers": ["tensorrt", "cuda", "cpu"],
            "provider_options": {
                "tensorrt": {"device_id": 0, "trt_fp16_enable": 1},
                "cuda": {"gpu_mem_limit": 1000, "device_id": 0},
            },
        }
    ).optimization
    assert told.graph.level == 1
    (accelerator,) = told.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("tensorrt", {"trt_fp16_enable": "1"})
    options = {"cuda": {"use_tf32": 0}}
    (accelerator,) = config(
        runtime={"provider_options": options}
    ).optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("cuda", {"use_tf32": "0"})
    assert not config().HasField("optimization")


def test_parameters():
    """In the backend's own values; what is by default is left out."""
    runtime = {
        "intra_op_threads": 3,
        "inter_op_threads": 2,
        "memory_arena": False,
        "provider_options": {"cuda": {"cudnn_conv_algo_search": "HEURISTIC", "gpu_mem_limit": "1000"}},
        "session_options": {"session.use_device_allocator_for_initializers": 1},
    }
    told = {key: value.string_value for key, value in config(runtime=runtime).parameters.items()}
    assert told == {
        "intra_op_thread_count": "3",
        "execution_mode": "1",
        "inter_op_thread_count": "2",
        "enable_mem_arena": "0",
        "cudnn_conv_algo_search": "1",
        "gpu_mem_limit": "1000",
        "session.use_device_allocator_for_initializers": "1",
    }
    assert not config().parameters
