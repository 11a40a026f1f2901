"""Short constructors of specs and signatures for tests."""

from inferd.dtypes import BY_NAME
from inferd.runtime.signature import ModelSignature, TensorSpec


def spec(
    name: str,
    shape: tuple[int | str | None, ...],
    axis: int | None = None,
    datatype: str = "FP32",
    *,
    optional: bool = False,
) -> TensorSpec:
    return TensorSpec(name=name, datatype=BY_NAME[datatype], shape=shape, batch_axis=axis, optional=optional)


def signature(inputs: list[TensorSpec], outputs: list[TensorSpec] | None = None) -> ModelSignature:
    batchable = any(each.batch_axis is not None for each in inputs)
    return ModelSignature(inputs=tuple(inputs), outputs=tuple(outputs or ()), batchable=batchable)
