"""Selection of execution providers."""

import pytest

from inferd.config.settings import RuntimeSettings
from inferd.runtime import providers
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.providers import CPU, CUDA, TENSORRT, attempts

CPU_BUILD = ["AzureExecutionProvider", CPU]
GPU_BUILD = [TENSORRT, CUDA, CPU]
DEFAULTS = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}


def test_auto_uses_cpu_without_cuda():
    """Providers that send data elsewhere are never chosen automatically."""
    assert attempts(RuntimeSettings(), CPU_BUILD) == [[(CPU, {})]]


def test_auto_tries_cuda_before_cpu():
    """The CPU is the fallback if no device opens."""
    assert attempts(RuntimeSettings(), GPU_BUILD) == [[(CUDA, DEFAULTS), (CPU, {})], [(CPU, {})]]


def test_explicit_list_has_no_fallback():
    """A missing provider must be noticed."""
    settings = RuntimeSettings(providers=["tensorrt", "CUDAExecutionProvider", "Cpu"])
    assert attempts(settings, GPU_BUILD) == [[(TENSORRT, {}), (CUDA, DEFAULTS), (CPU, {})]]


def test_options_override_defaults():
    """Under the short or the full name of a provider."""
    options = {"cuda": {"cudnn_conv_algo_search": "DEFAULT", "device_id": "1"}, TENSORRT: {"trt_fp16_enable": "1"}}
    settings = RuntimeSettings(providers=["tensorrt", "cuda"], provider_options=options)
    on_cuda = {**DEFAULTS, "cudnn_conv_algo_search": "DEFAULT", "device_id": "1"}
    assert attempts(settings, GPU_BUILD) == [[(TENSORRT, {"trt_fp16_enable": "1"}), (CUDA, on_cuda)]]


def test_ignores_options_of_unused_provider():
    """One configuration serves machines with and without a GPU."""
    assert attempts(RuntimeSettings(provider_options={"cuda": {"device_id": "1"}}), CPU_BUILD) == [[(CPU, {})]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            RuntimeSettings(providers=["cuda"]),
            f"cuda is not in the installed build .* has AzureExecutionProvider, {CPU}",
        ),
        (RuntimeSettings(providers=["gpu"]), "expected one of cpu, cuda, tensorrt, .* got gpu"),
        (RuntimeSettings(providers=["cpu", CPU]), "expected each name once, got cpu twice"),
        (RuntimeSettings(provider_options={"cpu": {"threads": "2"}}), f"{CPU} takes no options, got threads"),
        (RuntimeSettings(provider_options={"gpu": {}}), "expected one of .* got gpu"),
    ],
)
def test_rejects_invalid_settings(settings, message):
    """With the name and the valid ones."""
    with pytest.raises(ModelLoadError, match=message):
        attempts(settings, CPU_BUILD)


def test_installed_build_has_cpu():
    """Names are ONNX Runtime's."""
    assert CPU in providers.built_in()


@pytest.mark.parametrize(
    ("used", "cuda", "accelerator"),
    [((CUDA, CPU), True, True), ((TENSORRT, CPU), True, True), ((CPU,), False, False), ((), False, False)],
)
def test_first_provider_determines_device(used, cuda, accelerator):
    """The others are fallbacks for single operators."""
    assert providers.on_cuda(used) is cuda
    assert providers.on_accelerator(used) is accelerator
