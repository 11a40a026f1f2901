"""What is said of a config.pbtxt that does not parse: the line and the likely fix."""

import pytest

from inferd.models.triton import TritonConfigError, read_config

MISTAKES = {
    "a missing number": (
        "max_batch_size:\ninput [ { } ]",
        "line 1: max_batch_size: a number is missing before input",
    ),
    "a number in quotes": (
        'name: "m"\nmax_batch_size: "8"',
        'line 2: max_batch_size: expected a number, got "8": remove the quotes',
    ),
    "a fraction": ("max_batch_size: 8.0", "line 1: max_batch_size: expected a whole number, got 8.0"),
    "too large a number": ("max_batch_size: 99999999999", "line 1: max_batch_size: 99999999999 is out of range"),
    "a word for a number": (
        "optimization { graph { level: ALL } }",
        "line 1: level: expected a number, got ALL",
    ),
    "the type in requests": (
        "input [ {\n data_type: TYPE_BYTES } ]",
        "line 2: there is no TYPE_BYTES, did you mean TYPE_STRING?",
    ),
    "the type of another library": (
        "input [ { data_type: TYPE_FLOAT } ]",
        "line 1: there is no TYPE_FLOAT, did you mean TYPE_FP32?",
    ),
    "a type without its prefix": ("input { data_type: INT64 }", "line 1: there is no INT64, did you mean TYPE_INT64?"),
    "a kind without its prefix": ("instance_group { kind: GPU }", "line 1: there is no GPU, did you mean KIND_GPU?"),
    "a kind under another name": (
        "instance_group { kind: KIND_CUDA }",
        "line 1: there is no KIND_CUDA, did you mean KIND_GPU?",
    ),
    "a type in quotes": (
        'input { data_type: "TYPE_FP32" }',
        "line 1: TYPE_FP32 is a name and not a text: remove the quotes",
    ),
    "a field in the plural": (
        'inputs [ { name: "x" } ]',
        "line 1: there is no field inputs in a model configuration, did you mean input?",
    ),
    "a typing mistake": (
        "dynamic_batching {\n prefered_batch_size: [ 4 ]\n}",
        "line 2: there is no field prefered_batch_size in dynamic_batching, did you mean preferred_batch_size?",
    ),
    "a field of a message outside of it": (
        "preferred_batch_size: 4",
        "line 1: there is no field preferred_batch_size in a model configuration: it belongs into dynamic_batching",
    ),
    "a field inside of a message": (
        'input {\n name: "x"\n max_batch_size: 8\n}',
        "line 3: there is no field max_batch_size in input: it belongs outside of these brackets",
    ),
    "an unknown field": ("colour: 3", "line 1: there is no field colour in a model configuration"),
    "no comma in a list of numbers": ("input { dims: [ 3 224 ] }", "line 1: a comma is missing before 224"),
    "no comma in a list of messages": (
        'input [\n { name: "x" }  # the first\n { name: "y" }\n]',
        "line 2: a comma is missing before {",
    ),
    "no brackets": (
        "input {\n dims: 3, 224 }",
        "line 2: dims: several numbers stand in brackets, [ … ], and 224 does not",
    ),
    "a comment of another language": ("max_batch_size: 8\n// for GPUs", "line 2: a comment begins with #"),
    "a comma too many": ('input [ { name: "x" },\n]', "line 1: remove the comma before ]"),
    "a comma after the last number": (
        "input { dims: [ 3, ] }",
        "line 1: dims: a number is missing after the last comma: remove the comma",
    ),
    "an open bracket": ('input [\n {\n  name: "x"\n }\nname: "m"', "line 1: [ is never closed: ] is missing"),
    "an open brace": ('input [\n {\n  name: "x"\n]', "line 4: } is missing before ], for the { in line 2"),
    "a brace too many": ("dynamic_batching { }\n}", "line 2: } closes nothing: remove it"),
    "no colon": ("max_batch_size 8", "line 1: a colon is missing before 8"),
    "an equals sign": ('name = "m"', "line 1: name: write a colon for ="),
    "no braces": (
        "dynamic_batching: true",
        "line 1: dynamic_batching: expected fields in braces, { … }, got true",
    ),
    "a text without quotes": ("name: m", 'line 1: name: put quotes around the text, "m"'),
    "a missing text": ('name:\nplatform: "onnxruntime_onnx"', "line 1: name: a text is missing before platform"),
    "typographic quotes": ("name: “m”", 'line 1: name: write plain quotes, like "text"'),
    "an open quote": ('name: "m\nmax_batch_size: 8', "line 1: name: the closing quote is missing"),
    "neither true nor false": (
        "response_cache { enable: yes }",
        "line 1: enable: expected true or false, got yes",
    ),
    "a field twice": ("max_batch_size: 8\nmax_batch_size: 9", "line 2: max_batch_size is given twice: keep one"),
    "two schedulers": (
        "dynamic_batching { }\nsequence_batching { }",
        "line 2: sequence_batching and dynamic_batching exclude each other: keep one",
    ),
    "JSON": (
        '{"max_batch_size": 8}',
        "line 1: this looks like JSON: expected fields as in max_batch_size: 8, without braces around them",
    ),
    "a template": (
        'name: "m"\nmax_batch_size: ${triton_max_batch_size}',
        "line 2: this is a template: replace ${triton_max_batch_size} with its value",
    ),
    "a template in quotes": (
        '# ${comment}\nname: "${model_name}"  # ${too}',
        "line 2: this is a template: replace ${model_name} with its value",
    ),
    "a template of Jinja": (
        "max_batch_size: {{ batch }}",
        "line 1: this is a template: replace {{ batch }} with its value",
    ),
    "nothing but words": ("this is no configuration", "line 1: there is no field this in a model configuration"),
}


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_names_line_and_fix(tmp_path, text, expected):
    """Each mistake gets the file, the line where it is, and what to write instead."""
    file = tmp_path / "config.pbtxt"
    file.write_text(text)
    with pytest.raises(TritonConfigError) as raised:
        read_config(file)
    assert str(raised.value).startswith(f"config.pbtxt {expected}")


def test_takes_what_the_format_allows(tmp_path):
    """A byte-order mark, comments with placeholders, both kinds of quotes, separators and brackets."""
    file = tmp_path / "config.pbtxt"
    file.write_text(
        "\ufeff# ${max_batch_size}\nname: 'm', max_batch_size: 8;\n"
        'input: [ { name: "#x" dims: [ -1, 3 ] } ]\noutput < name: "y" dims: 1 dims: 2 >\n'
    )
    config = read_config(file)
    assert (config.name, config.max_batch_size, config.input[0].name) == ("m", 8, "#x")
    assert list(config.output[0].dims) == [1, 2]


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "cannot be read: there is no such file or directory"), (b"\xff", ": expected UTF-8 text")],
    ids=["missing", "binary"],
)
def test_names_unreadable_files(tmp_path, content, expected):
    """A file that is missing or no text is named too."""
    file = tmp_path / "config.pbtxt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TritonConfigError, match=r"^config\.pbtxt") as raised:
        read_config(file)
    assert expected in str(raised.value)
