"""`--tokenize` and `--image`: what they say, and what is refused of them."""

import pytest

from inferd.batch.errors import UsageError
from inferd.batch.options import ImageOptions, TokenizeOptions
from inferd.batch.preparation.arguments import image_options, tokenize_options


def test_tokenize_has_file_only() -> None:
    """A file alone is enough."""
    assert tokenize_options("a/tokenizer.json") == TokenizeOptions(file="a/tokenizer.json")


def test_tokenize_has_all_parts() -> None:
    """Each part has its option; inputs are named by what they get."""
    text = "t.json,max_length=128,truncate=false,column=body,pad_to=8,ids=i,attention_mask=m,type_ids=t"
    assert tokenize_options(text) == TokenizeOptions(
        file="t.json",
        column="body",
        max_length=128,
        truncate=False,
        pad_to=8,
        fields={"ids": "i", "attention_mask": "m", "type_ids": "t"},
    )


def test_image_has_all_parts() -> None:
    """Sizes are height and width; numbers for channels have slashes between them."""
    text = "size=224x320,mean=0.5/0.25/0,std=2,scale=1/127.5,layout=nhwc,crop=center,color=bgr,column=c,input=i"
    assert image_options(text) == ImageOptions(
        column="c",
        input="i",
        size=(224, 320),
        crop="center",
        color="bgr",
        layout="nhwc",
        scale=1 / 127.5,
        mean=(0.5, 0.25, 0.0),
        std=(2.0,),
    )


def test_image_is_square_by_one_number() -> None:
    """One number is both sides; no text is all defaults."""
    assert image_options("size=32").size == (32, 32)
    assert image_options("") == ImageOptions()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--tokenize: expected the file"),
        ("max_length=3", "--tokenize: expected the file"),
        ("t.json,max_lenght=3", 'there is no part "max_lenght".*did you mean max_length'),
        ("t.json,128", "expected NAME=VALUE between commas, got '128'"),
        ("t.json,max_length=0", "--tokenize max_length: expected a whole number of at least 1, got '0'"),
        ("t.json,pad_to=x", "--tokenize pad_to: expected a whole number"),
        ("t.json,truncate=no", "--tokenize truncate: expected true or false, got 'no'"),
        ("t.json,ids=", "--tokenize ids: expected a name, got ''"),
        ("t.json,pad_to=2,pad_to=4", "--tokenize pad_to: expected it once"),
    ],
)
def test_refuses_tokenize(text: str, message: str) -> None:
    """What is wrong is named with what is expected, and what came."""
    with pytest.raises(UsageError, match=message):
        tokenize_options(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("224", "--image: expected NAME=VALUE between commas, got '224'"),
        ("size=0", "--image size: expected a number of pixels"),
        ("size=1x2x3", "--image size"),
        ("size=99999", "--image size"),
        ("mean=1/2", "--image mean: expected a number, or three"),
        ("mean=1/2/x", "--image mean"),
        ("mean=nan", "--image mean"),
        ("std=0", "--image std: expected numbers other than 0, got '0'"),
        ("scale=1/0", "--image scale: expected a number other than 0, or a fraction"),
        ("layout=chw", "--image layout: expected nchw or nhwc, got 'chw'"),
        ("crop=yes", "--image crop: expected center or none"),
        ("color=cmyk", "--image color: expected rgb or bgr or gray"),
        ("colour=gray", "did you mean color"),
    ],
)
def test_refuses_image(text: str, message: str) -> None:
    """What is wrong is named with what is expected, and what came."""
    with pytest.raises(UsageError, match=message):
        image_options(text)
