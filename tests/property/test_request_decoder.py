"""Decoding with and without cached templates."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd.api.oip.codec import OpenInferenceCodec
from inferd.api.request_decoder import RequestDecoder
from inferd.api.v1.codec import InferenceCodec
from inferd.batching.request import Reply
from inferd.config.settings import ModelSettings
from inferd.dtypes import BY_NAME
from inferd.errors import ServingError
from inferd.models.states import ModelState
from inferd.runtime.signature import ModelSignature, TensorSpec


class Model:
    """A model version with two required inputs, one of variable length, and two optional ones."""

    name = "m"
    version = "1"
    signature = ModelSignature(
        inputs=(
            TensorSpec(name="a", datatype=BY_NAME["FP32"], shape=("batch", 2), batch_axis=0),
            TensorSpec(name="b", datatype=BY_NAME["INT8"], shape=("batch", "length"), batch_axis=0),
            TensorSpec(name="c", datatype=BY_NAME["INT8"], shape=("width",), optional=True),
            TensorSpec(name="d", datatype=BY_NAME["INT8"], shape=("batch", 1), batch_axis=0, optional=True),
        ),
        outputs=(TensorSpec(name="y", datatype=BY_NAME["FP32"], shape=("batch",), batch_axis=0),),
        batchable=True,
    )

    def __init__(self, default_priority=2):
        self.state = ModelState.READY
        self.settings = ModelSettings.model_validate({"queue": {"default_priority": default_priority}})

    def require_signature(self):
        return self.signature


numbers = st.integers(0, 2**32 - 1)


@st.composite
def parts(draw):
    """Differences between two requests of one template, and what defines the template."""
    rows, length = draw(st.integers(0, 3)), draw(st.integers(0, 300))
    width = draw(st.integers(0, 2))
    sizes = (rows * 8, rows * min(length, 4), width, rows)
    raw = [bytes(draw(st.binary(min_size=size, max_size=size))) for size in sizes]
    if draw(st.integers(0, 9)) == 0:
        raw[draw(st.integers(0, 3))] += b"\0"
    return {
        "id": draw(st.text(max_size=5)),
        "shapes": [[rows, 2], [rows, min(length, 4)], [width], [rows, 1]],
        "raw": raw,
        "priority": draw(st.integers(0, 4)),
        "outputs": draw(st.sampled_from([[], ["y"], ["z"]])),
        "order": draw(st.sampled_from([[0, 1], [1, 0], [0, 0, 1], [0], [0, 1, 2], [3, 0, 1], [0, 1, 2, 3], [0, 2]])),
        "extra": draw(st.booleans()),
    }


def _v1(part):
    request = v1.InferRequest(model="m", request_id=part["id"], priority=part["priority"], outputs=part["outputs"])
    for index in part["order"]:
        request.inputs.add(name="abcd"[index], shape=part["shapes"][index], raw=part["raw"][index])
        if part["extra"]:
            request.inputs[-1].datatype = [v1.DATA_TYPE_FP32, *[v1.DATA_TYPE_INT8] * 3][index]
    return request.SerializeToString()


def _oip(part):
    request = oip.ModelInferRequest(model_name="m", id=part["id"])
    for index in part["order"]:
        datatype = "INT8" if index else "FP32"
        request.inputs.add(name="abcd"[index], datatype=datatype, shape=part["shapes"][index])
        request.raw_input_contents.append(part["raw"][index])
    request.outputs.extend(oip.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in part["outputs"])
    if part["extra"]:
        request.parameters["priority"].uint64_param = part["priority"]
    return request.SerializeToString()


def _outcome(decoder, model, message):
    """Return everything that decoding produces, or the text of its error."""
    try:
        incoming = decoder.match(message) or decoder.parse(message)
        request = decoder.build(incoming, model, Reply(lambda _: None), received_at=0.0, call_deadline=math.inf)
        decoder.cache(incoming)
    except ServingError as error:
        return error.message
    return (
        (incoming.name, incoming.version, incoming.request_id, incoming.form),
        {name: (array.dtype, array.shape, array.tobytes()) for name, array in request.inputs.items()},
        (request.outputs, request.rows, request.nbytes, request.stack_key, request.priority, request.deadline),
    )


@given(requests=st.lists(parts(), min_size=1, max_size=6), own=st.booleans(), data=st.data())
def test_cached_template_equals_full_decoding(requests, own, data):
    """Whatever came before, for whichever version: a request is decoded as by a new decoder, or has the same error."""
    make, codec = (_v1, InferenceCodec()) if own else (_oip, OpenInferenceCodec())
    versions, decoder = [Model(), Model(default_priority=3)], RequestDecoder(codec)
    messages = [make(part) for part in requests]
    # The same templates repeatedly, and sometimes a message with a changed byte.
    for _ in range(12):
        message = data.draw(st.sampled_from(messages))
        if data.draw(st.integers(0, 4)) == 0 and message:
            position = data.draw(st.integers(0, len(message) - 1))
            message = message[:position] + bytes([data.draw(st.integers(0, 255))]) + message[position + 1 :]
        model = data.draw(st.sampled_from(versions))
        assert _outcome(decoder, model, message) == _outcome(RequestDecoder(codec), model, message)


def test_versions_have_templates_of_their_own():
    """Canaries and new versions skip parsing too, from their second request on; those that have left are forgotten."""
    message = _v1(
        {"id": "", "shapes": [[1, 2], [1, 1]], "raw": [b"\0" * 8, b"\1"], "priority": 0, "outputs": [], "order": [0, 1],
         "extra": False}
    )  # fmt: skip
    decoder, old, new = RequestDecoder(InferenceCodec()), Model(), Model(default_priority=3)
    for model in (old, new):
        _outcome(decoder, model, message)
    for model in (old, new, old):
        incoming = decoder.match(message)
        request = decoder.build(incoming, model, Reply(lambda _: None), received_at=0.0, call_deadline=math.inf)
        assert incoming.learned is None
        assert request.priority == model.settings.queue.default_priority
    assert decoder.cached_templates == 2
    old.state = ModelState.UNAVAILABLE
    newest = Model()
    _outcome(decoder, newest, message)
    assert decoder.cached_templates == 2
    incoming = decoder.match(message)
    decoder.build(incoming, newest, Reply(lambda _: None), received_at=0.0, call_deadline=math.inf)
    assert incoming.learned is None


def test_omitted_optional_inputs_can_be_cached():
    """Also optional inputs with rows; those that a batch shares are compared by value."""
    tensors = [
        v1.Tensor(name="a", shape=[1, 2], raw=b"\0" * 8),
        v1.Tensor(name="b", shape=[1, 1], raw=b"\1"),
        v1.Tensor(name="d", shape=[1, 1], raw=b"\1"),
        v1.Tensor(name="c", shape=[1], raw=b"\1"),
    ]
    for inputs, kept in ((tensors[:2], 1), (tensors[:3], 1), (tensors, 0)):
        decoder = RequestDecoder(InferenceCodec())
        message = v1.InferRequest(model="m", inputs=inputs).SerializeToString()
        assert isinstance(_outcome(decoder, Model(), message), tuple)
        assert decoder.cached_templates == kept


def test_other_model_of_same_name_is_validated_again():
    """A template is cached for one model object."""
    decoder = RequestDecoder(InferenceCodec())
    x = np.zeros((1, 2), np.float32)
    tensors = [v1.Tensor(name="a", shape=[1, 2], raw=x.tobytes()), v1.Tensor(name="b", shape=[1, 1], raw=b"\1")]
    message = v1.InferRequest(model="m", inputs=tensors).SerializeToString()
    other = Model()
    other.signature = ModelSignature(inputs=Model.signature.inputs[:1], outputs=Model.signature.outputs, batchable=True)
    assert isinstance(_outcome(decoder, Model(), message), tuple)
    assert _outcome(decoder, other, message) == 'input "b": expected one of "a", got an unknown name'


def test_number_of_templates_is_bounded():
    """Clients cannot fill the memory."""
    decoder, model = RequestDecoder(InferenceCodec()), Model()
    for number in range(3000):
        tensors = [
            v1.Tensor(name="a", shape=[1, 2], raw=b"\0" * 8),
            v1.Tensor(name="b", shape=[1, number], raw=b"\0" * number),
        ]
        message = v1.InferRequest(model="m", inputs=tensors).SerializeToString()
        assert isinstance(_outcome(decoder, model, message), tuple)
    assert decoder.cached_templates <= 1024
    huge = v1.InferRequest(model="m", inputs=tensors, outputs=["y"], version="1" * 5000)
    before = decoder.cached_templates
    _outcome(decoder, model, huge.SerializeToString())
    assert decoder.cached_templates == before
