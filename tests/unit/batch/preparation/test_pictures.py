"""Pictures to tensors: what Pillow gives for each, in the shape and type of the model."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageOps

from inferd.batch.errors import UsageError
from inferd.batch.options import ImageOptions
from inferd.batch.preparation.pictures import Pictures, pictures
from inferd.batch.tensors import Dense, Ragged
from inferd.dtypes import BY_NAME
from inferd.runtime.signature import Array, ModelSignature, TensorSpec

SCHEMA = pa.schema([("path", pa.string()), ("image", pa.binary())])
PIXELS = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    """Return the bytes of a file."""
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def signature(*shape: int | str | None, datatype: str = "FP32") -> ModelSignature:
    """Return a model that takes pictures of a shape."""
    spec = TensorSpec(name="x", datatype=BY_NAME[datatype], shape=("rows", *shape), batch_axis=0)
    return ModelSignature(inputs=(spec,), outputs=(), batchable=True)


def made(of: ModelSignature | None = None, **options: object) -> Pictures:
    """Return what makes tensors of the column ``image``."""
    return pictures(ImageOptions(**options), of or signature(3, None, None), SCHEMA)  # type: ignore[arg-type]


def tensor(content: bytes, of: ModelSignature | None = None, **options: object) -> Array:
    """Return the tensor of one picture, which is a good one."""
    found, bad = made(of, **options)(pa.array([content], pa.binary()))
    assert not bad
    return found["x"].rows(slice(0, 1))[0]


def planes(image: Image.Image) -> Array:
    """Return the pixels of a picture, channels first."""
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def test_normalizes_pixels() -> None:
    """Values are scaled and normalized for each channel."""
    found = tensor(encoded(Image.fromarray(PIXELS)), mean=(0.5, 0.25, 0.1), std=(0.2, 0.5, 2.0))
    wanted = (PIXELS / 255 - np.array([0.5, 0.25, 0.1])) / np.array([0.2, 0.5, 2.0])
    assert found.dtype == np.float32
    assert found.shape == (3, 30, 40)
    np.testing.assert_array_equal(found, wanted.transpose(2, 0, 1).astype(np.float32))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_resizes_as_pillow_does(file_format: str) -> None:
    """Any format becomes what Pillow makes of it in the size of the model."""
    content = encoded(Image.fromarray(PIXELS), file_format)
    wanted = planes(Image.open(BytesIO(content)).convert("RGB").resize((24, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(tensor(content, signature(3, 16, 24), scale=1.0), wanted)


def test_crops_center() -> None:
    """The shorter side is scaled and the longer one cut."""
    image = Image.fromarray(PIXELS)
    wanted = planes(ImageOps.fit(image, (16, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(tensor(encoded(image), size=(16, 16), crop="center", scale=1.0), wanted)


def test_layouts_and_colors() -> None:
    """Channels are last, reversed, or one, as asked."""
    content = encoded(Image.fromarray(PIXELS))
    np.testing.assert_array_equal(tensor(content, signature(None, None, 3), layout="nhwc", scale=1.0), PIXELS)
    np.testing.assert_array_equal(tensor(content, color="bgr", scale=1.0)[0], PIXELS[:, :, 2])
    gray = np.asarray(Image.fromarray(PIXELS).convert("L"))
    np.testing.assert_array_equal(tensor(content, signature(1, None, None), color="gray", scale=1.0)[0], gray)
    np.testing.assert_array_equal(tensor(content, signature(30, 40), color="gray", scale=1.0), gray)


@pytest.mark.parametrize("datatype", ["UINT8", "INT64", "FP16", "BF16", "FP64"])
def test_has_type_of_model(datatype: str) -> None:
    """Levels are themselves in every type that holds them."""
    found = tensor(encoded(Image.fromarray(PIXELS)), signature(3, 30, 40, datatype=datatype), scale=1.0)
    assert found.dtype == BY_NAME[datatype].numpy
    np.testing.assert_array_equal(found.astype(np.float64), PIXELS.transpose(2, 0, 1))


def test_pictures_of_their_own_sizes_are_ragged() -> None:
    """Without a size each picture keeps its own; of one size they are one array."""
    small, large = (encoded(Image.new("RGB", size)) for size in ((3, 2), (5, 4)))
    found, _ = made()(pa.array([small, large, small], pa.binary()))
    assert isinstance(found["x"], Ragged)
    assert found["x"].shapes.tolist() == [[3, 2, 3], [3, 4, 5], [3, 2, 3]]
    found, _ = made()(pa.array([small, small], pa.binary()))
    assert isinstance(found["x"], Dense)
    assert found["x"].array.shape == (2, 3, 2, 3)


def test_model_without_batch_axis_gets_its_rank() -> None:
    """A model that takes one request at a time gets a dimension of 1."""
    spec = TensorSpec(name="x", datatype=BY_NAME["FP32"], shape=(1, 3, 8, 8), batch_axis=None)
    of = ModelSignature(inputs=(spec,), outputs=(), batchable=False)
    assert tensor(encoded(Image.fromarray(PIXELS)), of).shape == (1, 3, 8, 8)


def test_turns_pictures_upright() -> None:
    """The orientation of a camera is applied."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(PIXELS), "PNG", exif=exif)
    np.testing.assert_array_equal(tensor(content, scale=1.0), planes(Image.fromarray(PIXELS).rotate(-90, expand=True)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_modes_become_colors(mode: str) -> None:
    """Palettes, transparency and other color spaces become what Pillow converts them to."""
    image = Image.fromarray(PIXELS).convert("RGBA" if mode == "RGBA" else "RGB").convert(mode)
    content = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    np.testing.assert_array_equal(tensor(content, scale=1.0), planes(image))


def test_transparent_palette_keeps_its_colors() -> None:
    """A palette with transparency has its colors, without a warning of Pillow."""
    image = Image.fromarray(PIXELS).convert("P")
    content = encoded(image, "PNG", transparency=bytes(range(256)))
    np.testing.assert_array_equal(tensor(content, scale=1.0), planes(image))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_deep_pictures_keep_upper_bits(file_format: str) -> None:
    """Of 16 bits the upper 8 are used, where Pillow would cut off all bright values."""
    levels = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    found = tensor(encoded(Image.fromarray(levels), file_format), scale=1.0)
    np.testing.assert_array_equal(found, np.broadcast_to(levels >> 8, (3, 32, 32)))


def bomb(side: int) -> bytes:
    """Return a small file that says it has ``side`` times ``side`` pixels."""

    def piece(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + piece(b"IDAT", zlib.compress(b"")) + piece(b"IEND", b"")


def test_columns_of_hugging_face() -> None:
    """Have the bytes of a picture beside its path; one without either is null."""
    content = encoded(Image.fromarray(PIXELS))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    made_of = pictures(ImageOptions(), signature(3, None, None), pa.schema([("id", pa.int64()), ("image", kind)]))
    found, bad = made_of(pa.array([None, {"bytes": content, "path": "a.png"}], kind))
    assert list(bad) == [0]
    np.testing.assert_array_equal(found["x"].rows(slice(1, 2))[0], tensor(content))


def test_bad_pictures_cost_their_rows() -> None:
    """Null, nothing, other files, cut files and bombs are bad, each with its reason; their neighbours are not."""
    good = encoded(Image.fromarray(PIXELS))
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    contents = [good, None, b"", b"no picture", good[:-200], bomb(10_000), bomb(60_000), postscript, good]
    found, bad = made(size=(4, 4))(pa.array(contents, pa.binary()))
    assert sorted(bad) == [1, 2, 3, 4, 5, 6, 7]
    assert "null" in bad[1]
    assert "no bytes" in bad[2]
    assert "expected a picture in one of" in bad[3]
    assert "b'no pictu'" in bad[3]
    assert bad[4].startswith("the picture is damaged: ")
    assert "pixels" in bad[5]
    assert "pixels" in bad[6]
    assert "expected a picture in one of" in bad[7]
    np.testing.assert_array_equal(found["x"].rows(slice(8, 9))[0], tensor(good, size=(4, 4)))
    assert found["x"].rows(slice(0, 1)).shape == (1, 3, 4, 4)


@pytest.mark.parametrize(
    ("of", "options", "message"),
    [
        (signature(3, 8, 8), {"size": (8, 9)}, r"takes FP32 \[3, ?8, ?8\].* make \[3, ?8, ?9\]"),
        (signature(3, None, None), {"color": "gray"}, "color=gray"),
        (signature(8, 8, 3), {}, "layout=nchw"),
        (signature(8, 8), {}, "say color=gray"),
        (signature(8), {}, "expected channels, height and width"),
        (signature(3, 8, 8, datatype="BYTES"), {}, "takes BYTES"),
        (signature(3, 8, 8, datatype="UINT8"), {}, "for the levels themselves say scale=1"),
        (signature(3, 8, 8, datatype="INT8"), {"scale": 1.0}, "from 0 to 255"),
        (
            signature(1, 8, 8),
            {"color": "gray", "mean": (1.0, 2.0, 3.0)},
            "--image mean: expected one number for color=gray, got 3",
        ),
        (signature(3, 8, 8), {"input": "y"}, '--image input: there is no input "y"'),
        (signature(3, 8, 8), {"column": "path"}, 'expected encoded pictures in column "path", got string'),
    ],
)
def test_refuses(of: ModelSignature, options: dict[str, object], message: str) -> None:
    """What does not fit the model or the columns is refused before the first row."""
    with pytest.raises(UsageError, match=message):
        made(of, **options)
