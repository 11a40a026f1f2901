"""Translate ``parameters``: those of Triton's ONNX Runtime backend, by key."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from inferd._generated.inference import model_config_pb2 as pb
from inferd.models.triton.draft import Draft
from inferd.models.triton.errors import TritonConfigError

_Value = str | int | bool

_TRUE, _FALSE = {"1", "true", "on"}, {"0", "false", "off"}


def boolean(text: str) -> bool:
    """Parse 1, true, on, 0, false or off. Raises `ValueError`."""
    lowered = text.strip().lower()
    if lowered not in _TRUE | _FALSE:
        raise ValueError("expected 1 or 0")
    return lowered in _TRUE


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("expected a number") from None


def _flag(text: str) -> str:
    return "1" if boolean(text) else "0"


def _one_of(**values: str) -> Callable[[str], str]:
    """Return a function that maps ``0``, ``1``, … to the values of ``_0``, ``_1``, …."""
    by_text = {key.removeprefix("_"): value for key, value in values.items()}

    def convert(text: str) -> str:
        if text.strip() not in by_text:
            raise ValueError(f"expected {', '.join(f'{key} ({value})' for key, value in by_text.items())}")
        return by_text[text.strip()]

    return convert


class Parameter(NamedTuple):
    """The setting for a parameter, and the conversion of its text."""

    path: tuple[str, ...]
    convert: Callable[[str], _Value]


_CUDA = ("runtime", "provider_options", "cuda")

#: Parameters that become a setting.
PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {
        "intra_op_thread_count": Parameter(("runtime", "intra_op_threads"), _number),
        "enable_mem_arena": Parameter(("runtime", "memory_arena"), boolean),
        "enable_mem_pattern": Parameter(("runtime", "memory_pattern"), boolean),
        "session.use_device_allocator_for_initializers": Parameter(
            ("runtime", "session_options", "session.use_device_allocator_for_initializers"), _flag
        ),
        "cudnn_conv_algo_search": Parameter(
            (*_CUDA, "cudnn_conv_algo_search"), _one_of(_0="EXHAUSTIVE", _1="HEURISTIC", _2="DEFAULT")
        ),
        "gpu_mem_limit": Parameter((*_CUDA, "gpu_mem_limit"), lambda text: str(_number(text))),
        "arena_extend_strategy": Parameter(
            (*_CUDA, "arena_extend_strategy"), _one_of(_0="kNextPowerOfTwo", _1="kSameAsRequested")
        ),
        "do_copy_in_default_stream": Parameter((*_CUDA, "do_copy_in_default_stream"), _flag),
    }
)

#: Parameters that are translated together, as one depends on the other.
MODE, OPERATORS = "execution_mode", "inter_op_thread_count"

#: Parameters without a setting, and why.
WITHOUT_SETTING: Mapping[str, str] = MappingProxyType(
    {
        "share_session_between_instances": "instances always share one session",
        "memory.enable_memory_arena_shrinkage": "arenas shrink when the model is idle, see runtime.shrink_after_s",
    }
)


def translate_parameters(config: pb.ModelConfig, draft: Draft) -> None:
    """Translate ``parameters``. Raises `TritonConfigError` for values that Triton would reject."""
    given = {key: value.string_value for key, value in sorted(config.parameters.items())}
    for key, text in given.items():
        if key in PARAMETERS:
            draft.put(_converted(key, text, PARAMETERS[key].convert), *PARAMETERS[key].path)
        elif key not in (MODE, OPERATORS):
            draft.ignored.append(f"parameters.{key} ({WITHOUT_SETTING.get(key, 'unknown to ONNX models')})")
    _translate_execution_mode(given, draft)


def _translate_execution_mode(given: Mapping[str, str], draft: Draft) -> None:
    """Translate ``execution_mode``: operators run in parallel if it is 1, and only then their number counts."""
    parallel = _converted(MODE, given.get(MODE, "0"), _one_of(_0="sequential", _1="parallel")) == "parallel"
    number = _converted(OPERATORS, given.get(OPERATORS, "0"), _number)
    if parallel:
        draft.put(number, "runtime", "inter_op_threads")
        return
    if MODE in given:
        draft.put(1, "runtime", "inter_op_threads")
    if OPERATORS in given:
        draft.ignored.append(f"parameters.{OPERATORS} ({MODE} is 0)")


def _converted(key: str, text: str, convert: Callable[[str], _Value]) -> _Value:
    try:
        return convert(text)
    except ValueError as error:
        raise TritonConfigError(f'parameters.{key}: {error}, got "{text}"') from None
