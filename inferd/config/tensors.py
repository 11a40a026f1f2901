"""Settings about the tensors of one model: what its file does not declare, and what it is warmed up with."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from inferd.config.section import Section, validation_error

#: Names of the Open Inference Protocol.
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
    "BF16",
]  # fmt: skip

#: Sizes of dimensions, -1 for any.
Shape = list[Annotated[int, Field(ge=-1)]]


class TensorOverride(Section):
    """Facts about one input or output that the model file does not declare, or declares less exactly."""

    batch_axis: int | None = Field(default=None, ge=0)
    """The dimension that counts rows; null for a tensor shared by the whole batch."""
    datatype: Datatype | None = None
    """Element type, which must be that of the file."""
    shape: Shape | None = None
    """Shape for clients, batch dimension included; -1 is any size. A size where the file allows any narrows what is \
accepted."""
    model_shape: Shape | None = None
    """Shape in the file, where it differs from shape: tensors are reshaped between the two. Both must have equally \
many elements and as many -1, in the same order."""

    @model_validator(mode="after")
    def _validate_shapes(self) -> Self:
        if self.model_shape is not None and self.shape is None:
            text = "expected shape beside it, which is the one for clients"
            raise validation_error(text, setting="model_shape")
        return self


class InputOverride(TensorOverride):
    """Facts about one input."""

    optional: bool | None = None
    """Whether requests may leave it out, so that its default in the file applies; by default, if it has one."""
    warmup_shape: list[NonNegativeInt] | None = None
    """Shape for verification and warm-up, batch dimension included, for models that do not accept arbitrary shapes."""
    example: Any = None
    """A valid value for verification and warm-up, as nested lists; one or several rows if the input has a batch \
axis."""


class OutputOverride(TensorOverride):
    """Facts about one output."""

    labels: str = ""
    """File with the name of a class in each line, in the directory of the model; for requests with class_count."""

    @model_validator(mode="after")
    def _validate_labels(self) -> Self:
        _require_file_inside(self.labels, "labels")
        return self


class WarmupInput(Section):
    """The value of one input in a warm-up sample: generated, or read from a file."""

    datatype: Datatype
    """Element type, that of the input."""
    dims: list[NonNegativeInt]
    """Shape of one row, without the batch dimension; the whole shape for an input without one."""
    fill: Literal["zero", "random"] | None = None
    """Zeros (empty texts), or random values."""
    file: str = ""
    """File in the directory warmup of the model, with the elements of one row as raw_input_contents has them."""

    @model_validator(mode="after")
    def _validate_source(self) -> Self:
        if (self.fill is None) == (not self.file):
            text = "expected either fill or file"
            raise validation_error(text)
        _require_file_inside(self.file, "file")
        return self


class WarmupSample(Section):
    """A request that the model must answer before it becomes ready, in addition to its own warm-up."""

    name: str = ""
    """Name for messages."""
    batch_size: int = Field(default=1, ge=1, le=65536)
    """Number of equal rows; 1 for a model that is not batched."""
    count: int = Field(default=1, ge=1, le=10_000)
    """How many times it runs."""
    inputs: dict[str, WarmupInput]
    """By name of the input."""


def _require_file_inside(name: str, setting: str) -> None:
    """Raise unless ``name`` is a path below the directory it is relative to: models must not read other files."""
    if name.startswith("/") or ".." in name.split("/"):
        text = f"expected a path inside the directory of the model, got {name}"
        raise validation_error(text, setting=setting)
