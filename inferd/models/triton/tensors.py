"""Translate ``input`` and ``output``; their shapes depend on ``max_batch_size``."""

import math
from collections.abc import Iterator, Sequence

from inferd._generated.inference import model_config_pb2 as pb
from inferd.models.triton.draft import Draft
from inferd.models.triton.errors import TritonConfigError

_ANY = -1

Tensor = pb.ModelInput | pb.ModelOutput


def translate_tensors(config: pb.ModelConfig, draft: Draft) -> None:
    """Translate ``input`` and ``output``. Raises `TritonConfigError` where Triton rejects them too."""
    unlisted = is_completed(config)
    for kind, tensors in (("input", config.input), ("output", config.output)):
        _require_unique(kind, [tensor.name for tensor in tensors])
        for tensor in tensors:
            _Tensor(kind, tensor, config.max_batch_size).translate(draft, with_shape=not unlisted)
    if unlisted and (config.input or config.output):
        draft.differences.append(
            "dims are taken from the file, as max_batch_size is missing, and inputs or outputs are"
        )
    if config.output:
        draft.put("listed", "served_outputs")
    for output in config.output:
        if output.label_filename:
            draft.put(output.label_filename, "outputs", output.name, "labels")
    for each in config.input:
        if each.optional:
            draft.put(True, "inputs", each.name, "optional")


def is_completed(config: pb.ModelConfig) -> bool:
    """Return True if Triton completes the configuration from the file: ``max_batch_size`` and a list are missing."""
    return config.max_batch_size == 0 and not (config.input and config.output)


def _require_unique(kind: str, names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise TritonConfigError(f'{kind}: expected each name once, got "{twice[0]}" {names.count(twice[0])} times')


class _Tensor:
    """One entry of ``input`` or ``output``."""

    def __init__(self, kind: str, tensor: Tensor, max_batch_size: int) -> None:
        self._kind = kind
        self._tensor = tensor
        self._batch = [_ANY] if max_batch_size > 0 else []

    def translate(self, draft: Draft, *, with_shape: bool) -> None:
        tensor = self._tensor
        problem = next(self._problems(), None)
        if problem:
            raise TritonConfigError(f'{self._kind} "{tensor.name}": {problem}')
        path = (f"{self._kind}s", tensor.name)
        draft.put(datatype_name(tensor.data_type), *path, "datatype")
        if not with_shape:
            return
        draft.put([*self._batch, *tensor.dims], *path, "shape")
        if tensor.HasField("reshape"):
            draft.put([*self._batch, *tensor.reshape.shape], *path, "model_shape")

    def _problems(self) -> Iterator[str]:
        tensor = self._tensor
        if not tensor.name:
            yield "name is missing"
        if tensor.data_type == pb.TYPE_INVALID:
            yield "data_type is missing, such as TYPE_FP32"
        if not tensor.dims:
            yield "dims is missing; a single number has dims: [ 1 ] and reshape { shape: [ ] }"
        wrong = [size for size in tensor.dims if size < 1 and size != _ANY]
        if wrong:
            yield f"dims: expected sizes from 1, or -1 for any, got {wrong[0]}"
        if tensor.HasField("reshape"):
            yield from self._reshape_problems()

    def _reshape_problems(self) -> Iterator[str]:
        dims, shape = list(self._tensor.dims), list(self._tensor.reshape.shape)
        if dims.count(_ANY) != shape.count(_ANY):
            yield f"reshape: expected as many -1 as in dims {dims}, got {shape}"
        elif _ANY not in dims and math.prod(dims) != math.prod(shape):
            yield f"reshape: expected {math.prod(dims)} elements as dims {dims} has, got {math.prod(shape)} in {shape}"


def datatype_name(data_type: "pb.DataType.ValueType") -> str:
    """Return the name of ``data_type`` in requests."""
    return "BYTES" if data_type == pb.TYPE_STRING else pb.DataType.Name(data_type).removeprefix("TYPE_")
