"""Requests over HTTP, decoded for a model whose inputs a test names."""

import json
import math

import numpy as np

from inferd.api.rest.decoder import RestDecoder
from inferd.api.wire_scanner import MessageLimits
from inferd.batching.request import Reply
from inferd.config.settings import ModelSettings
from inferd.dtypes import BY_NAME
from inferd.errors import InvalidInputError
from inferd.http.messages import HttpMessage
from inferd.models.states import ModelState
from inferd.runtime.signature import ModelSignature, TensorSpec

OUTPUT = TensorSpec(name="y", datatype=BY_NAME["FP32"], shape=("rows", 2))


class Model:
    """A model version of inputs whose dimensions may be anything."""

    name = "m"
    version = "1"
    state = ModelState.READY
    settings = ModelSettings()

    def __init__(self, **inputs):
        specs = [
            TensorSpec(name=name, datatype=BY_NAME[datatype], shape=tuple(f"{name}{axis}" for axis in range(rank)))
            for name, (datatype, rank) in inputs.items()
        ]
        texts = TensorSpec(name="t", datatype=BY_NAME["BYTES"], shape=("rows",))
        self.signature = ModelSignature(inputs=tuple(specs), outputs=(OUTPUT, texts), batchable=False)

    def require_signature(self):
        return self.signature


#: A model, its input without data, with data in JSON, and with binary data, which is these bytes.
MODEL = Model(x=("FP32", 2))
X = {"name": "x", "datatype": "FP32", "shape": [1, 2]}
IN_JSON = {**X, "data": [1, 2]}
BINARY = {**X, "parameters": {"binary_data_size": 8}}
BYTES = np.array([1, 2], np.float32).tobytes()


def message(content, *tensors, json_length=None, version=None):
    """Return the message of ``content``, JSON or what to make JSON of, before binary ``tensors``."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    if tensors and json_length is None:
        json_length = len(text)
    path = {"model": "m"} if version is None else {"model": "m", "version": version}
    return HttpMessage(text + b"".join(tensors), path, json_length)


def decode(sent, model, decoder=None, limits=None):
    """Return what was found of a message, and the request for the model's queue; cache what can be cached."""
    decoder = decoder or RestDecoder(limits or MessageLimits())
    incoming = decoder.match(sent) or decoder.parse(sent)
    try:
        request = decoder.build(incoming, model, Reply(lambda _: None), received_at=0.0, call_deadline=math.inf)
    except InvalidInputError as error:
        decoder.set_field(incoming, error)
        raise
    decoder.cache(incoming)
    return incoming, request


def tensor_of(data, datatype, shape, name="x"):
    """Return the array that the JSON ``data`` of an input becomes; text is inserted as it is."""
    head = json.dumps({"name": name, "datatype": datatype, "shape": shape})[:-1]
    text = data if isinstance(data, str) else json.dumps(data)
    content = f'{{"inputs": [{head}, "data": {text}}}]}}'.encode()
    return decode(message(content), Model(**{name: (datatype, len(shape))}))[1].inputs[name]
