"""Over HTTP as over gRPC: the same tensors in every form, bit for bit, and nothing that breaks the decoder."""

import json
from contextlib import suppress

import numpy as np
import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from inferd import dtypes
from inferd.api import tensors
from inferd.api.codec import RAW, Response, ResponseForm
from inferd.api.rest.codec import RestCodec
from inferd.api.rest.decoder import RestDecoder
from inferd.api.rest.json_data import elements_of
from inferd.api.rest.long_arrays import Strings
from inferd.batching.request import BatchTiming, InferenceResult
from inferd.errors import InvalidInputError
from tests.property.test_responses import arrays
from tests.unit.api.rest.bench import Model, decode, message, tensor_of

TIMING = BatchTiming(started_at=0.0, stack_s=0.0, run_s=0.0, rows=1)
texts = st.text(max_size=4).map(str.encode)


@st.composite
def tensors_of_text_or_numbers(draw):
    """A tensor that JSON can hold: of any type and layout, with any bits."""
    array = draw(arrays())
    if array.dtype.hasobject:
        flat = tensors.object_array([draw(texts) for _ in range(min(array.size, 4))] * (array.size // 4 + 1))
        array = flat[: array.size].reshape(array.shape)
    return array


def _same_bits(array, other):
    """Return whether both have the same elements, any NaN being the same."""
    if array.dtype.hasobject or array.dtype.kind in "biu":
        return array.tolist() == other.tolist() and array.dtype == other.dtype
    with np.errstate(invalid="ignore"):  # signalling NaN
        nan, other_nan = np.isnan(array), np.isnan(other)
    unsigned = np.dtype(f"u{array.itemsize}")
    same = np.ascontiguousarray(array).view(unsigned) == np.ascontiguousarray(other).view(unsigned)
    return bool((same | (nan & other_nan)).all())


def _encoded(outputs, form):
    """Return the headers and the whole body of an answer, which has parts if it is large."""
    body = RestCodec().encode(Response(Model(), "", form, InferenceResult(outputs, TIMING, queue_s=0.0)))
    return dict(body.headers), b"".join((body, *body.rest))


@given(array=tensors_of_text_or_numbers())
def test_json_answers_are_exact(array):
    """What a client reads with ``np.array(data, dtype)`` is the raw tensor, and so is what inferd reads."""
    _, body = _encoded({"x": array}, ResponseForm(as_lists=True))
    (output,) = orjson.loads(body)["outputs"]
    assert (output["datatype"], output["shape"]) == (dtypes.BY_NUMPY[array.dtype].name, list(array.shape))
    if not array.dtype.hasobject:
        floating = array.dtype.kind not in "biu"
        read = np.array(output["data"], np.float64 if floating else array.dtype).astype(array.dtype)
        assert _same_bits(array, read.reshape(array.shape))
    again = tensor_of(output["data"], output["datatype"], output["shape"])
    assert _same_bits(array, again)


@given(outputs=st.dictionaries(st.text(max_size=3), arrays(), min_size=1, max_size=3), data=st.data())
def test_binary_answers_are_those_of_grpc(outputs, data):
    """In the order of the outputs, whichever of them are in JSON."""
    named = data.draw(st.sets(st.sampled_from(sorted(outputs))))
    numbers = {name for name, array in outputs.items() if not array.dtype.hasobject}
    raw = frozenset(named | (set(outputs) - numbers))
    headers, body = _encoded(outputs, ResponseForm(as_lists=True, raw=raw))
    length = int(headers.get("Inference-Header-Content-Length", len(body)))
    position = length
    for output, (name, array) in zip(orjson.loads(body[:length])["outputs"], outputs.items(), strict=True):
        assert output["name"] == name
        if name in raw:
            size = output["parameters"]["binary_data_size"]
            assert body[position : position + size] == bytes(tensors.to_bytes(array))
            position += size
        else:
            assert "parameters" not in output
    assert position == len(body)
    _, whole = _encoded(outputs, RAW)
    assert whole.endswith(b"".join(bytes(tensors.to_bytes(array)) for array in outputs.values()))


@st.composite
def requests(draw):
    """Inputs, each flat or nested in JSON or binary; and the arrays that they are."""
    inputs, parts, expected = [], [], {}
    for number in range(draw(st.integers(1, 3))):
        name, array = f"i{number}", draw(tensors_of_text_or_numbers())
        datatype = dtypes.BY_NUMPY[array.dtype].name
        content = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if draw(st.booleans()):
            raw = bytes(tensors.to_bytes(array))
            content["parameters"] = {"binary_data_size": len(raw)}
            parts.append(raw)
        else:
            flat = orjson.loads(b"[%b]" % b"".join(elements_of(name, array)))
            nested = array.size and array.ndim > 1 and draw(st.booleans())
            content["data"] = _nested(flat, array.shape) if nested else flat
        inputs.append(content)
        expected[name] = array
    return inputs, parts, expected


def _nested(flat, shape):
    for dimension in reversed(shape[1:]):
        flat = [flat[start : start + dimension] for start in range(0, len(flat), dimension)]
    return flat


@given(request=requests(), indent=st.sampled_from([None, 0, 2]), decoder=st.just(RestDecoder()))
def test_requests_in_every_form(request, indent, decoder):
    """Mixed in any order; a second one, which may match a template, is decoded alike."""
    inputs, parts, expected = request
    model = Model(**{name: (dtypes.BY_NUMPY[array.dtype].name, array.ndim) for name, array in expected.items()})
    sent = message(json.dumps({"inputs": inputs}, indent=indent).encode(), *parts)
    for _ in range(2):
        _, built = decode(sent, model, decoder)
        assert list(built.inputs) == list(expected)
        for name, array in expected.items():
            assert built.inputs[name].shape == array.shape
            assert _same_bits(array, built.inputs[name])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
X = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}


@given(
    changed=st.dictionaries(
        st.sampled_from(["name", "datatype", "shape", "data", "parameters"]), json_values, max_size=3
    ),
    others=st.dictionaries(st.sampled_from(["id", "inputs", "outputs", "parameters"]), json_values, max_size=2),
)
def test_any_json_is_answered_with_an_error_at_most(changed, others):
    """Whatever the members are: a request, or the text of what is wrong."""
    content = {"inputs": [{**X, **changed}], **others}
    decoder, sent = RestDecoder(), message(content)
    with suppress(InvalidInputError):
        decode(sent, Model(x=("FP32", 2)), decoder)
    decoder.timeout_s(sent)


@given(
    body=st.binary(max_size=60), length=st.none() | st.integers(0, 80), prefix=st.sampled_from([b"", b'{"inputs":['])
)
def test_any_bytes_are_answered_with_an_error_at_most(body, length, prefix):
    """And any length of their JSON."""
    with suppress(InvalidInputError):
        decode(message(prefix + body, json_length=length), Model(x=("FP32", 2)))


@given(values=st.lists(json_values, max_size=5), step=st.integers(1, 7), indent=st.sampled_from([None, 1]))
@example(values=['\\"', "\\\\", ","], step=1, indent=None)
def test_strings_are_found_in_pieces(values, step, indent):
    """However a text is cut: brackets and commas outside of strings are those that a parser sees."""
    text = json.dumps(values, indent=indent, ensure_ascii=False).encode()
    whole = np.ones(len(text), np.bool_)
    inside = escaped = False
    for position, byte in enumerate(text):
        whole[position] = not inside and byte != ord('"')
        if inside:
            inside, escaped = escaped or byte != ord('"'), not escaped and byte == ord("\\")
        elif byte == ord('"'):
            inside = True
    strings, found = Strings(), []
    for start in range(0, len(text), step):
        piece = text[start : start + step]
        mask = strings.outside(piece)
        found.append(np.ones(len(piece), np.bool_) if mask is None else mask)
    assert np.concatenate(found).tolist() == whole.tolist()
