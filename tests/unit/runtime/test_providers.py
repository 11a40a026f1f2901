"""Which execution providers are tried, in which order and with which options."""

import pytest

from inferd.config.settings import RuntimeSettings
from inferd.runtime import providers
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.providers import CPU, CUDA, TENSORRT, attempts

CPU_BUILD = ["AzureExecutionProvider", CPU]
GPU_BUILD = [TENSORRT, CUDA, CPU]
HEURISTIC = {"cudnn_conv_algo_search": "HEURISTIC"}


def test_auto_is_the_cpu_where_nothing_else_is_built_in():
    """Providers that would send data elsewhere are not taken by themselves."""
    assert attempts(RuntimeSettings(), CPU_BUILD) == [[(CPU, {})]]


def test_auto_tries_cuda_first_and_the_cpu_then():
    """The CPU is the way out if no device opens."""
    assert attempts(RuntimeSettings(), GPU_BUILD) == [[(CUDA, HEURISTIC), (CPU, {})], [(CPU, {})]]


def test_an_explicit_list_has_no_way_out():
    """Who names a provider wants to know when it is not there."""
    settings = RuntimeSettings(providers=["tensorrt", "CUDAExecutionProvider", "Cpu"])
    assert attempts(settings, GPU_BUILD) == [[(TENSORRT, {}), (CUDA, HEURISTIC), (CPU, {})]]


def test_options_are_given_by_either_name_and_win_over_defaults():
    """The user's word counts for more than ours."""
    options = {"cuda": {"cudnn_conv_algo_search": "DEFAULT", "device_id": "1"}, TENSORRT: {"trt_fp16_enable": "1"}}
    settings = RuntimeSettings(providers=["tensorrt", "cuda"], provider_options=options)
    assert attempts(settings, GPU_BUILD) == [
        [(TENSORRT, {"trt_fp16_enable": "1"}), (CUDA, {"cudnn_conv_algo_search": "DEFAULT", "device_id": "1"})]
    ]


def test_options_for_a_provider_that_is_not_used_do_no_harm():
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
def test_what_makes_no_sense_is_refused(settings, message):
    """With the name and what there is instead."""
    with pytest.raises(ModelLoadError, match=message):
        attempts(settings, CPU_BUILD)


def test_the_installed_build_has_the_cpu():
    """The names are ONNX Runtime's own."""
    assert CPU in providers.built_in()


@pytest.mark.parametrize(
    ("used", "cuda", "accelerator"),
    [((CUDA, CPU), True, True), ((TENSORRT, CPU), True, True), ((CPU,), False, False), ((), False, False)],
)
def test_the_first_provider_says_where_a_model_runs(used, cuda, accelerator):
    """The others take what it leaves over."""
    assert providers.on_cuda(used) is cuda
    assert providers.on_accelerator(used) is accelerator
