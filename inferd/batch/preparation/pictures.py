"""Make tensors of encoded pictures: decode with Pillow, scale and normalize."""

from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image, ImageOps

from inferd.batch.blocks import BadRows
from inferd.batch.column_types import is_binary, row_shape
from inferd.batch.errors import UsageError
from inferd.batch.options import ImageOptions
from inferd.batch.ports import Prepared
from inferd.batch.preparation.choice import chosen_column, chosen_input
from inferd.batch.tensors import tensor_of
from inferd.dtypes import BYTES
from inferd.plain_text import clipped, escaped
from inferd.runtime.signature import Array, ModelSignature, TensorSpec, format_shape

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

#: Formats that are decoded. Pillow's other formats run programs, such as Ghostscript, or are not for pictures.
_FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

#: The field of a struct with the encoded picture.
_BYTES = "bytes"

#: Pillow's own limit for warnings: a small file can have more pixels than memory holds.
_MOST_PIXELS = 89_478_485

#: Pillow's modes of 16 bits, and of 32 bits, which it uses for some files of 16.
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class Pictures:
    """Makes tensors for ``spec`` of pictures, all of one size if ``options`` have one.

    Pictures are turned by their EXIF orientation. Transparency is dropped, the upper 8 of 16 bits are used, and the
    first frame of animations.
    """

    def __init__(self, *, column: str, spec: TensorSpec, options: ImageOptions) -> None:
        self.column = column
        self.inputs: tuple[str, ...] = (spec.name,)
        self._options = options
        # Of the input: with a dimension for the batch if the model has no batch axis, maybe without one for channels.
        self._rank = len(row_shape(spec))
        self._table = _table(spec, options)

    @property
    def identity(self) -> Mapping[str, str]:
        """What the tensors depend on, besides the options."""
        return {"pillow": PIL.__version__}

    def __call__(self, column: pa.Array) -> Prepared:
        """Return the tensors of all pictures of ``column``."""
        bad: BadRows = {}
        rows: list[Array | None] = []
        for index, encoded in enumerate(_contents(column)):
            try:
                rows.append(self._tensor(_opened(encoded.as_py())))
            except Exception as error:  # noqa: BLE001  (decoders raise anything for damaged files)
                rows.append(None)
                bad[index] = _text(error)
        [name] = self.inputs
        return {name: tensor_of(rows, np.zeros((0,) * self._rank, self._table.dtype))}, bad

    def _tensor(self, image: Image.Image) -> Array:
        pixels = np.asarray(self._fitted(_colored(image, self._options.color)))
        # Planes, one for each channel.
        planes = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
        if self._options.color == "bgr":
            planes = planes[::-1]
        tensor: Array = np.stack([table[plane] for table, plane in zip(self._table, planes, strict=True)])
        if self._options.layout == "nhwc":
            tensor = tensor.transpose(1, 2, 0)
        shape = pixels.shape[:2] if self._rank == 2 else (1,) * (self._rank - 3) + tensor.shape
        return tensor.reshape(shape)

    def _fitted(self, image: Image.Image) -> Image.Image:
        if self._options.size is None:
            return image
        size = self._options.size[::-1]
        if self._options.crop == "center":
            return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
        return image.resize(size, Image.Resampling.BILINEAR)


def pictures(options: ImageOptions, signature: ModelSignature, schema: pa.Schema) -> Pictures:
    """Return the preparation of pictures in ``schema`` for the model. Raises `UsageError`."""
    spec = _input(options, signature)
    sized = _with_size(options, spec)
    column = chosen_column("--image", options.column, schema, _has_contents, "encoded pictures")
    return Pictures(column=column, spec=spec, options=sized)


def _input(options: ImageOptions, signature: ModelSignature) -> TensorSpec:
    if options.input is not None:
        return chosen_input("--image input", options.input, signature)
    inputs = [spec for spec in signature.inputs if not spec.optional]
    found = [spec for spec in inputs if len(row_shape(spec)) >= 3] if len(inputs) > 1 else inputs
    if len(found) != 1:
        known = ", ".join(f"{spec.name} {format_shape(row_shape(spec))}" for spec in inputs)
        raise UsageError(f"--image: expected one input for pictures, got {known}; name it with input=NAME")
    return found[0]


def _with_size(options: ImageOptions, spec: TensorSpec) -> ImageOptions:
    """Return ``options`` with the size of ``spec`` if they have none. Raises `UsageError` if shapes do not fit."""
    shape = row_shape(spec)
    got = f'"{spec.name}" takes {spec.datatype.name} {format_shape(shape)} in each row'
    if spec.datatype is BYTES or not 2 <= len(shape) <= 4:
        raise UsageError(f"--image: {got}, expected channels, height and width")
    channels = 1 if options.color == "gray" else 3
    height, width = options.size or (None, None)
    made: tuple[int | None, ...] = (channels, height, width) if options.layout == "nchw" else (height, width, channels)
    if len(shape) == 2:
        made = (height, width)
    if len(shape) == 2 and channels > 1:
        raise UsageError(f"--image color={options.color}: {got}, which has no channels; say color=gray")
    wanted = shape[len(shape) - len(made) :]
    if any(isinstance(want, int) and own is not None and want != own for want, own in zip(wanted, made, strict=True)):
        shown = format_shape(made)
        raise UsageError(f"--image: {got}, and size, color={options.color}, layout={options.layout} make {shown}")
    match [want for want, own in zip(wanted, made, strict=True) if own is None]:
        case [int(height), int(width)]:
            return replace(options, size=(height, width))
    return options


def _table(spec: TensorSpec, options: ImageOptions) -> Array:
    """Return the value of each of 256 levels, ``[channels, 256]``, in the type of ``spec``. Raises `UsageError`."""
    channels = 1 if options.color == "gray" else 3
    for name, given in (("mean", options.mean), ("std", options.std)):
        if len(given) not in {1, channels}:
            wanted = "one number" if channels == 1 else "one number or three"
            raise UsageError(f"--image {name}: expected {wanted} for color={options.color}, got {len(given)}")
    mean, std = (np.broadcast_to(np.array(each), channels) for each in (options.mean, options.std))
    values = (np.arange(256) * options.scale - mean[:, None]) / std[:, None]
    target = spec.datatype.numpy
    table: NDArray[np.generic] = values.astype(target)
    if target.kind in "iub" and (table != values).any():
        raise UsageError(
            f'--image: "{spec.name}" takes {spec.datatype.name}, got values from {values.min():.4g} to '
            f"{values.max():.4g} with fractions or out of its range; for the levels themselves say scale=1"
        )
    return table


def _opened(encoded: bytes | None) -> "ImageFile":
    if not encoded:
        raise _PictureError(f"expected a picture, got {'null' if encoded is None else 'no bytes'}")
    try:
        image = Image.open(BytesIO(encoded), formats=_available())
    except PIL.UnidentifiedImageError:
        known = ", ".join(_available())
        raise _PictureError(f"expected a picture in one of {known}, got {escaped(repr(encoded[:8]))}…") from None
    if image.width * image.height > _MOST_PIXELS:
        raise _PictureError(f"expected at most {_MOST_PIXELS} pixels, got {image.width}x{image.height}")
    return image


def _available() -> tuple[str, ...]:
    """Return the formats that this build of Pillow reads."""
    Image.init()
    return tuple(each for each in _FORMATS if each in Image.OPEN)


def _colored(image: Image.Image, color: str) -> Image.Image:
    """Return ``image`` upright, with 8 bits for each channel."""
    image = ImageOps.exif_transpose(image)
    if image.mode in _DEEP_MODES:
        # Pillow's own conversion would clip the values.
        image = Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        # Pillow warns about direct conversions.
        image = image.convert("RGBA")
    return image.convert("L" if color == "gray" else "RGB")


class _PictureError(Exception):
    """A picture is rejected. The text is the message of its row."""


def _text(error: Exception) -> str:
    if isinstance(error, _PictureError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"expected at most {_MOST_PIXELS} pixels, got more"
    return f"the picture is damaged: {clipped(escaped(str(error))) or type(error).__name__}"


def _has_contents(kind: pa.DataType) -> bool:
    """Return True for bytes, and for structs with a field of bytes, as in data sets of Hugging Face."""
    if pa.types.is_struct(kind):
        return kind.get_field_index(_BYTES) >= 0 and is_binary(kind.field(_BYTES).type)
    return is_binary(kind)


def _contents(column: pa.Array) -> pa.Array:
    return pc.struct_field(column, _BYTES) if pa.types.is_struct(column.type) else column
