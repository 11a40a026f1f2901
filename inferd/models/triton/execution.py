"""Translate ``instance_group`` and ``optimization``: instances, providers, devices and graph level."""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from inferd._generated.inference import model_config_pb2 as pb
from inferd.models.triton.draft import Draft
from inferd.models.triton.errors import TritonConfigError
from inferd.models.triton.parameters import boolean

_GROUP = pb.ModelInstanceGroup
_Accelerator = pb.ModelOptimizationPolicy.ExecutionAccelerators.Accelerator

_GRAPH_LEVELS = {-1: "basic", 1: "extended", 2: "disabled"}

#: Names of TensorRT's options where Triton's differ.
_TENSORRT_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "max_workspace_size_bytes": "trt_max_workspace_size",
        "int8_calibration_table_name": "trt_int8_calibration_table_name",
        "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
    }
)
#: Options that name code or memory: write access to models must not mean running code.
_UNSAFE_OPTIONS = re.compile(r"plugin_lib|user_compute_stream|gpu_external_")

_PRECISIONS = {"FP16": "trt_fp16_enable", "BF16": "trt_bf16_enable", "INT8": "trt_int8_enable"}


def translate_execution(config: pb.ModelConfig, draft: Draft) -> None:
    """Translate ``instance_group`` and ``optimization``. Raises `TritonConfigError`."""
    groups = [group for group in config.instance_group if not group.passive]
    if config.instance_group and not groups:
        raise TritonConfigError("instance_group.passive: expected a group that takes requests")
    counts = [group.count or 1 for group in groups if group.count >= 0]
    if len(counts) < len(groups):
        raise TritonConfigError("instance_group.count: expected a number from 0")
    if counts:
        draft.put(sum(counts), "batching", "instances")
    kind = _kind(groups, draft)
    accelerators = config.optimization.execution_accelerators
    providers = [*_on_gpu(accelerators, kind, draft), *_on_cpu(accelerators, kind, draft)]
    if providers:
        draft.put([*providers, "cpu"], "runtime", "providers")
    elif kind == _GROUP.KIND_GPU:
        draft.put("auto", "runtime", "providers")
        draft.differences.append("instance_group KIND_GPU: where no GPU is found, the model runs on the CPU")
    elif kind != _GROUP.KIND_AUTO:
        draft.put(["cpu"], "runtime", "providers")
    _translate_devices(groups, providers, draft)
    if config.optimization.HasField("graph"):
        draft.put(_GRAPH_LEVELS.get(config.optimization.graph.level, "all"), "runtime", "graph_optimization")


def _kind(groups: list[_GROUP], draft: Draft) -> "_GROUP.Kind.ValueType":
    """Return the kind of device on which all instances run."""
    kinds = {_GROUP.KIND_GPU if group.gpus and not group.kind else group.kind for group in groups}
    if any(group.gpus and group.kind not in (_GROUP.KIND_AUTO, _GROUP.KIND_GPU) for group in groups):
        raise TritonConfigError("instance_group.gpus: expected kind KIND_GPU beside it")
    if _GROUP.KIND_GPU in kinds:
        if len(kinds) > 1:
            draft.differences.append("instance_group: all instances run on the GPU, those of other groups too")
        return _GROUP.KIND_GPU
    # The ONNX Runtime backend takes KIND_MODEL for the CPU.
    return _GROUP.KIND_AUTO if kinds <= {_GROUP.KIND_AUTO} else _GROUP.KIND_CPU


def _translate_devices(groups: list[_GROUP], providers: list[str], draft: Draft) -> None:
    gpus = sorted({number for group in groups for number in group.gpus})
    if not gpus:
        return
    for provider in sorted({"cuda", *providers} & {"cuda", "tensorrt"}):
        draft.put(str(gpus[0]), "runtime", "provider_options", provider, "device_id")
    if len(gpus) > 1:
        listed = ", ".join(map(str, gpus))
        only = f"runs on GPU {gpus[0]} only, of {listed}: start a server for each"
        draft.differences.append(f"instance_group.gpus: {only}")


def _on_gpu(
    accelerators: pb.ModelOptimizationPolicy.ExecutionAccelerators, kind: "_GROUP.Kind.ValueType", draft: Draft
) -> Iterator[str]:
    """Yield the providers for a GPU. The options of the provider that is the default there need no list."""
    path = "optimization.execution_accelerators.gpu_execution_accelerator"
    for accelerator in accelerators.gpu_execution_accelerator:
        if accelerator.name not in ("tensorrt", "cuda"):
            raise TritonConfigError(f'{path}: expected tensorrt or cuda for an ONNX model, got "{accelerator.name}"')
        if kind == _GROUP.KIND_CPU:
            draft.ignored.append(f"{path} {accelerator.name} (instance_group is on the CPU)")
            continue
        unsafe = [key for key in accelerator.parameters if _UNSAFE_OPTIONS.search(key)]
        if unsafe:
            text = f"expected no libraries and no addresses, got {', '.join(sorted(unsafe))}"
            raise TritonConfigError(f"{path} {accelerator.name}: {text}")
        options = _tensorrt_options(accelerator) if accelerator.name == "tensorrt" else accelerator.parameters
        for key, value in sorted(options.items()):
            draft.put(value, "runtime", "provider_options", accelerator.name, key)
        if accelerator.name == "tensorrt":
            unless = "" if kind == _GROUP.KIND_GPU else "; Triton runs it on the CPU where there is no GPU"
            draft.differences.append(f"{path} tensorrt: the model is not loaded where TensorRT is missing{unless}")
            yield from ("tensorrt", "cuda")


def _tensorrt_options(accelerator: _Accelerator) -> dict[str, str]:
    options = {}
    for key, value in accelerator.parameters.items():
        if key == "precision_mode":
            if value in _PRECISIONS:
                options[_PRECISIONS[value]] = "1"
            elif value != "FP32":
                expected = ", ".join(["FP32", *_PRECISIONS])
                raise TritonConfigError(
                    f'execution_accelerators tensorrt: precision_mode: expected {expected}, got "{value}"'
                )
        elif key in _TENSORRT_OPTIONS or key.startswith("trt_"):
            name = _TENSORRT_OPTIONS.get(key, key)
            options[name] = _as_flag(value)
        else:
            raise TritonConfigError(f"execution_accelerators tensorrt: unknown parameter {key}")
    return options


def _as_flag(value: str) -> str:
    """Return ``true`` and ``false`` as ONNX Runtime writes them."""
    return str(int(boolean(value))) if value.lower() in ("true", "false") else value


def _on_cpu(
    accelerators: pb.ModelOptimizationPolicy.ExecutionAccelerators, kind: "_GROUP.Kind.ValueType", draft: Draft
) -> Iterator[str]:
    path = "optimization.execution_accelerators.cpu_execution_accelerator"
    for accelerator in accelerators.cpu_execution_accelerator:
        if accelerator.name != "openvino":
            raise TritonConfigError(f'{path}: expected openvino for an ONNX model, got "{accelerator.name}"')
        draft.ignored.extend(f"{path} openvino {key} (Triton ignores it too)" for key in sorted(accelerator.parameters))
        draft.differences.append(f"{path} openvino: the model is not loaded where OpenVINO is missing")
        draft.put("CPU", "runtime", "provider_options", "openvino", "device_type")
        if kind == _GROUP.KIND_GPU and not accelerators.gpu_execution_accelerator:
            yield "cuda"
        yield "openvino"
