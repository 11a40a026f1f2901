"""The inputs and outputs that clients see: those of the file, as the settings narrow and reshape them. Pure.

A reshape keeps the order of elements, and each open dimension on one side is one on the other, with equally many
elements before and after it. So it also keeps rows: stacking along an open dimension and reshaping give the same in
either order, and everything above the runner knows the shapes for clients only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from inferd.config.settings import ModelSettings
from inferd.config.tensors import InputOverride, TensorOverride
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.runners import OrtObject, Runner
from inferd.runtime.signature import Array, ModelSignature, Tensors, TensorSpec, format_shape

Kind = Literal["input", "output"]


class TensorSettingError(ModelLoadError):
    """A setting of a tensor contradicts the model's file; ``setting`` is its path, such as inputs, x, datatype."""

    def __init__(self, setting: Sequence[str], text: str) -> None:
        super().__init__(f"{'.'.join(setting)}: {text}")
        self.setting = setting
        self.text = text


@dataclass(frozen=True, kw_only=True, slots=True)
class Reshape:
    """A tensor that has another shape in the file: its spec there, and which open dimension is which.

    ``axes`` has pairs of an open dimension for clients and the same one in the file.
    """

    in_file: TensorSpec
    sizes: tuple[int, ...]
    file_sizes: tuple[int, ...]
    axes: tuple[tuple[int, int], ...]

    def to_file(self, array: Array) -> Array:
        """Return ``array`` in the shape of the file, a view if it is contiguous."""
        sizes = list(self.file_sizes)
        for axis, file_axis in self.axes:
            sizes[file_axis] = array.shape[axis]
        return array.reshape(sizes)

    def from_file(self, array: Array) -> Array:
        """Return ``array`` in the shape for clients, a view if it is contiguous. Raises `ValueError`."""
        if self.axes and array.ndim != len(self.file_sizes):
            msg = f'output "{self.in_file.name}": expected {len(self.file_sizes)} dimensions, got {array.ndim}'
            raise ValueError(msg)
        sizes = list(self.sizes)
        for axis, file_axis in self.axes:
            sizes[axis] = array.shape[file_axis]
        return array.reshape(sizes)

    def axis_in_file(self, axis: int | None) -> int | None:
        """Return the dimension of the file that is ``axis`` for clients; None if there is none."""
        return next((file_axis for own, file_axis in self.axes if own == axis), None)

    def axis_for_clients(self, file_axis: int) -> int | None:
        """Return the dimension for clients that is ``file_axis`` in the file; None if there is none."""
        return next((axis for axis, own in self.axes if own == file_axis), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedTensors:
    """The inputs and outputs for clients, and those of them that have another shape in the file, by name."""

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    reshaped_inputs: Mapping[str, Reshape] = field(default_factory=dict)
    reshaped_outputs: Mapping[str, Reshape] = field(default_factory=dict)

    def runner(self, runner: Runner) -> Runner:
        """Return ``runner``, or one around it that takes and gives the shapes for clients."""
        if not (self.reshaped_inputs or self.reshaped_outputs):
            return runner
        return _ReshapingRunner(runner, self.reshaped_inputs, self.reshaped_outputs)

    def in_file(self, signature: ModelSignature) -> ModelSignature:
        """Return ``signature`` with the shapes and batch axes of the file."""
        return replace(
            signature,
            inputs=tuple(_in_file(spec, self.reshaped_inputs) for spec in signature.inputs),
            outputs=tuple(_in_file(spec, self.reshaped_outputs) for spec in signature.outputs),
        )

    def axes_for_clients(self, file_axes: Mapping[str, int]) -> dict[str, int]:
        """Return the batch axes of outputs for clients, by name, of those in the file."""
        axes: dict[str, int] = {}
        for name, file_axis in file_axes.items():
            reshape = self.reshaped_outputs.get(name)
            axis = file_axis if reshape is None else reshape.axis_for_clients(file_axis)
            if axis is not None:
                axes[name] = axis
        return axes


class _ReshapingRunner:
    """Reshapes inputs before and outputs after each run of another runner."""

    def __init__(self, runner: Runner, inputs: Mapping[str, Reshape], outputs: Mapping[str, Reshape]) -> None:
        self._runner = runner
        self._inputs = inputs
        self._outputs = outputs

    def run(self, inputs: Tensors, outputs: Sequence[str], options: OrtObject = None) -> list[Array]:
        """Run once and return ``outputs`` in that order."""
        arrays = self._runner.run(self._to_file(inputs), outputs, options)
        return [
            array if (reshape := self._outputs.get(name)) is None else reshape.from_file(array)
            for name, array in zip(outputs, arrays, strict=True)
        ]

    def shrink(self, inputs: Tensors, outputs: Sequence[str]) -> None:
        """Run once and free the memory that this run did not need."""
        self._runner.shrink(self._to_file(inputs), outputs)

    def _to_file(self, inputs: Tensors) -> dict[str, Array]:
        return {
            name: array if (reshape := self._inputs.get(name)) is None else reshape.to_file(array)
            for name, array in inputs.items()
        }


def served_tensors(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    settings: ModelSettings,
    labels: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> ServedTensors:
    """Apply ``settings`` to the ``inputs`` and ``outputs`` of the file; ``labels`` are the classes by output.

    Raises `TensorSettingError` if they contradict.
    """
    outputs = [replace(spec, labels=tuple(labels.get(spec.name, ()))) for spec in outputs]
    served_inputs = [each for each in _served("input", inputs, settings.inputs) if _is_served_input(each[0], settings)]
    served_outputs = [
        each for each in _served("output", outputs, settings.outputs) if _is_served_output(each[0], settings)
    ]
    return ServedTensors(
        inputs=[spec for spec, _ in served_inputs],
        outputs=[spec for spec, _ in served_outputs],
        reshaped_inputs={spec.name: reshape for spec, reshape in served_inputs if reshape is not None},
        reshaped_outputs={spec.name: reshape for spec, reshape in served_outputs if reshape is not None},
    )


def _served(
    kind: Kind, specs: Sequence[TensorSpec], overrides: Mapping[str, TensorOverride]
) -> Iterator[tuple[TensorSpec, Reshape | None]]:
    known = [spec.name for spec in specs]
    for name in overrides:
        if name not in known:
            raise TensorSettingError((f"{kind}s", name), f"the model has no such {kind}, it has {', '.join(known)}")
    for spec in specs:
        override = overrides.get(spec.name)
        yield (spec, None) if override is None else _overridden((f"{kind}s", spec.name), spec, override)


def _is_served_input(spec: TensorSpec, settings: ModelSettings) -> bool:
    """Leave out defaults that cannot count rows, such as weights that are inputs as well, unless they are named."""
    has_rows = bool(spec.shape) and not isinstance(spec.shape[0], int)
    return not spec.optional or has_rows or spec.name in settings.inputs or settings.batch_axes != "first"


def _is_served_output(spec: TensorSpec, settings: ModelSettings) -> bool:
    return settings.served_outputs == "all" or spec.name in settings.outputs


def _overridden(
    setting: Sequence[str], spec: TensorSpec, override: TensorOverride
) -> tuple[TensorSpec, Reshape | None]:
    if override.datatype is not None and override.datatype != spec.datatype.name:
        text = f"expected {spec.datatype.name} as in the model's file, got {override.datatype}"
        raise TensorSettingError((*setting, "datatype"), text)
    if isinstance(override, InputOverride) and override.optional is not None:
        spec = _with_optional(setting, spec, is_optional=override.optional)
    if override.shape is None:
        return spec, None
    if override.model_shape is None and not spec.shape and override.shape == [1]:
        # A scalar of the file is often declared so, as there are clients that know no tensors without dimensions.
        return _reshaped(setting, spec, override.shape, [])
    if override.model_shape is None:
        return _narrowed((*setting, "shape"), spec, override.shape), None
    return _reshaped(setting, spec, override.shape, override.model_shape)


def _with_optional(setting: Sequence[str], spec: TensorSpec, *, is_optional: bool) -> TensorSpec:
    if is_optional and not spec.optional:
        text = "expected false, because the model's file has no default for the input, got true"
        raise TensorSettingError((*setting, "optional"), text)
    return replace(spec, optional=is_optional)


def _narrowed(setting: Sequence[str], spec: TensorSpec, sizes: Sequence[int]) -> TensorSpec:
    """Return ``spec`` with the fixed ones of ``sizes``, which must fit its shape."""
    # The rank of a tensor without dimensions in the file may be undeclared.
    shape = spec.shape or (None,) * len(sizes)
    fits = len(shape) == len(sizes) and all(
        size == -1 or not isinstance(known, int) or size == known for size, known in zip(sizes, shape, strict=True)
    )
    if not fits:
        text = f"expected one that fits {format_shape(spec.shape)} in the model's file, got {_text(sizes)}"
        raise TensorSettingError(setting, text)
    return replace(spec, shape=tuple(known if size == -1 else size for size, known in zip(sizes, shape, strict=True)))


def _reshaped(
    setting: Sequence[str], spec: TensorSpec, sizes: Sequence[int], file_sizes: Sequence[int]
) -> tuple[TensorSpec, Reshape]:
    if _counts(sizes) != _counts(file_sizes):
        text = (
            "expected as many elements before, between and after each -1 as in shape, "
            f"which is {_text(sizes)}, got {_text(file_sizes)}"
        )
        raise TensorSettingError((*setting, "model_shape"), text)
    in_file = _narrowed((*setting, "model_shape"), spec, file_sizes)
    axes = tuple(zip(_open(sizes), _open(file_sizes), strict=True))
    shape: list[int | str | None] = list(sizes)
    for axis, file_axis in axes:
        shape[axis] = in_file.shape[file_axis]
    reshape = Reshape(in_file=in_file, sizes=tuple(sizes), file_sizes=tuple(file_sizes), axes=axes)
    return replace(in_file, shape=tuple(shape)), reshape


def _counts(sizes: Sequence[int]) -> list[int]:
    """Return the numbers of elements before, between and after the open dimensions."""
    counts = [1]
    for size in sizes:
        if size == -1:
            counts.append(1)
        else:
            counts[-1] *= size
    return counts


def _open(sizes: Sequence[int]) -> list[int]:
    return [axis for axis, size in enumerate(sizes) if size == -1]


def _in_file(spec: TensorSpec, reshaped: Mapping[str, Reshape]) -> TensorSpec:
    reshape = reshaped.get(spec.name)
    if reshape is None:
        return spec
    return replace(spec, shape=reshape.in_file.shape, batch_axis=reshape.axis_in_file(spec.batch_axis))


def _text(sizes: Sequence[int]) -> str:
    return format_shape(sizes)
