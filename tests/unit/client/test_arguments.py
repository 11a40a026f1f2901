"""Invalid arguments are rejected by name, before anything is sent."""

import math

import grpc
import numpy as np
import pytest

from inferd.client import AsyncClient, Client, InvalidInput

X = {"x": 1}


class Unreadable:
    """Cannot be converted to an array."""

    def __array__(self, dtype=None, copy=None):
        raise LookupError("no such buffer")


class Blocking(grpc.UnaryUnaryClientInterceptor):
    """Intercepts nothing."""

    def intercept_unary_unary(self, continuation, client_call_details, request):
        return continuation(client_call_details, request)


@pytest.mark.parametrize("settings", [{}, {"coalesce": True}], ids=["alone", "coalesced"])
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"outputs": "OUTPUT0"}, TypeError, "outputs: expected a sequence of names, got str"),
        ({"outputs": b"OUTPUT0"}, TypeError, "outputs: expected a sequence of names, got bytes"),
        ({"outputs": 5}, TypeError, "outputs: expected a sequence of names, got int"),
        ({"outputs": [5]}, TypeError, "outputs: expected a str, got int"),
        ({"outputs": [["a"]]}, TypeError, "outputs: expected a str, got list"),
        ({"outputs": ["\ud800"]}, ValueError, "outputs: expected text, got a lone surrogate at 0"),
        ({"version": 1}, TypeError, "version: expected a str, got int"),
        ({"version": None}, TypeError, "version: expected a str, got NoneType"),
        ({"priority": -1}, ValueError, "priority is -1, expected 0 to 4294967295"),
        ({"priority": 2**32}, ValueError, "priority is 4294967296, expected 0 to"),
        ({"priority": 1.0}, TypeError, "priority: expected an int, got float"),
        ({"priority": True}, TypeError, "priority: expected an int, got bool"),
        ({"priority": "1"}, TypeError, "priority: expected an int, got str"),
        ({"timeout_s": math.nan}, ValueError, "timeout_s is nan, expected at least 0"),
        ({"timeout_s": -1}, ValueError, "timeout_s is -1, expected at least 0"),
        ({"timeout_s": True}, TypeError, "timeout_s: expected a number, got bool"),
        ({"timeout_s": "5"}, TypeError, "timeout_s: expected a number, got str"),
        ({"request_id": 5}, TypeError, "request_id: expected a str, got int"),
        ({"request_id": None}, TypeError, "request_id: expected a str, got NoneType"),
        ({"request_id": "a" * 129}, ValueError, "request_id: expected at most 128 characters, got 129"),
        ({"request_id": "\ud800"}, ValueError, "request_id: expected text, got a lone surrogate at 0"),
        ({"metadata": {"a b": "c"}}, ValueError, 'metadata "a b": expected a key of'),
        ({"wait_for_ready": "no"}, TypeError, "wait_for_ready: expected True or False, got str"),
    ],
    ids=str,
)
def test_arguments_of_a_request(call, settings, changes, error, message):
    """Validated without a server."""
    with pytest.raises(error, match=f"^{message}"):
        call("127.0.0.1:1", "infer", "m", X, settings=settings, **changes)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([1, 2], TypeError, "inputs: expected a mapping of arrays by name, got list"),
        (None, TypeError, "inputs: expected a mapping of arrays by name, got NoneType"),
        ({1: 2}, TypeError, "name of an input: expected a str, got int"),
        ({b"x": 2}, TypeError, "name of an input: expected a str, got bytes"),
        ({"\ud800": 2}, ValueError, "name of an input: expected text"),
        ({"x": np.array([1j])}, ValueError, 'input "x": dtype complex128 is not supported'),
        ({"x": np.array([object()])}, ValueError, 'input "x": expected str or bytes, got object at 0'),
        ({"x": [[1], [1, 2]]}, ValueError, 'input "x": expected an array, got list'),
        ({"x": Unreadable()}, ValueError, 'input "x": expected an array, got Unreadable: no such buffer'),
    ],
)
def test_inputs(call, inputs, error, message):
    """The error names the input, even if user code raised it."""
    with pytest.raises(error, match=f"^{message}"):
        call("127.0.0.1:1", "infer", "m", inputs)


def test_exception_of_array_is_the_cause(call):
    """For the author of the class."""
    with pytest.raises(InvalidInput) as caught:
        call("127.0.0.1:1", "infer", "m", {"x": Unreadable()}, request_id="r")
    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.request_id == "r"


@pytest.mark.parametrize(
    ("inputs", "changes", "error", "message"),
    [
        ([X], {"outputs": "OUTPUT0"}, TypeError, "outputs: expected a sequence of names, got str"),
        ([X], {"timeout_s": math.nan}, ValueError, "timeout_s is nan"),
        ([X], {"priority": -1}, ValueError, "priority is -1"),
        ([X], {"max_in_flight": 0}, ValueError, "max_in_flight is 0, expected at least 1"),
        ([X], {"ordered": 1}, TypeError, "ordered: expected True or False, got int"),
        ([X], {"max_in_flight": 1.5}, TypeError, "max_in_flight: expected an int, got float"),
        ([X], {"metadata": {"grpc-a": "b"}}, ValueError, 'metadata "grpc-a"'),
        (X, {}, TypeError, "inputs: expected an iterable whose elements are mappings .*, got dict"),
        (5, {}, TypeError, "inputs: expected an iterable whose elements are mappings .*, got int"),
        ("text", {}, TypeError, "inputs: expected an iterable whose elements are mappings .*, got str"),
    ],
)
def test_arguments_of_a_stream(call, inputs, changes, error, message):
    """Those of all its requests are validated before it is opened."""
    with pytest.raises(error, match=f"^{message}"):
        call("127.0.0.1:1", "stream", "m", inputs, **changes)


@pytest.mark.parametrize(
    ("element", "error", "message"),
    [
        ([1], TypeError, "inputs: expected a mapping .* as element 1, got list"),
        (("a", X, 1), TypeError, "inputs: expected a mapping .* as element 1, got tuple"),
        (("a", [1]), TypeError, "inputs: expected a mapping of arrays by name, got list"),
        ((5, X), TypeError, "request_id: expected a str, got int"),
        (("a" * 129, X), ValueError, "request_id: expected at most 128 characters"),
    ],
)
def test_elements_of_a_stream(call, server, element, error, message):
    """Errors of an element are raised in the loop."""
    with pytest.raises(error, match=f"^{message}"):
        call(server.address, "stream", "m", [X, element])


@pytest.mark.parametrize("method", ["model", "is_ready", "wait_until_ready"])
@pytest.mark.parametrize(
    ("arguments", "named", "error", "message"),
    [
        ([5], {}, TypeError, "model: expected a str, got int"),
        (["m"], {"version": 1}, TypeError, "version: expected a str, got int"),
        (["m"], {"timeout_s": -1}, ValueError, "timeout_s is -1"),
        (["m"], {"metadata": 5}, TypeError, "metadata: expected a mapping or pairs, got int"),
    ],
)
def test_arguments_of_queries(call, method, arguments, named, error, message):
    """The other methods name their arguments as well."""
    with pytest.raises(error, match=f"^{message}"):
        call("127.0.0.1:1", method, *arguments, **named)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"timeout_s": math.nan}, ValueError, "timeout_s is nan"),
        ({"timeout_s": -1}, ValueError, "timeout_s is -1"),
        ({"timeout_s": "30"}, TypeError, "timeout_s: expected a number, got str"),
        ({"metadata": {"a": "é"}}, ValueError, 'metadata "a": expected printable ASCII'),
        ({"max_receive_bytes": -1}, ValueError, "max_receive_bytes is -1"),
        ({"interceptors": [object()]}, TypeError, "interceptors: expected .*ClientInterceptor.*, got object"),
        ({"coalesce": "no"}, TypeError, "coalesce: expected True or False, got str"),
        ({"wait_for_ready": 1}, TypeError, "wait_for_ready: expected True or False, got int"),
        ({"interceptors": 5}, TypeError, "interceptors: expected a sequence, got int"),
        ({"options": {"a": None}}, TypeError, "options: expected an int, str or bytes"),
    ],
)
def test_settings_of_a_client(kind, settings, error, message):
    """Invalid settings raise in the constructor."""
    with pytest.raises(error, match=f"^{message}"):
        kind("127.0.0.1:1", **settings)


def test_interceptors_match_client():
    """Those of the other library would be called in the wrong way."""
    with pytest.raises(TypeError, match="interceptors"):
        Client("127.0.0.1:1", interceptors=[type("ForAsyncio", (grpc.aio.ClientInterceptor,), {})()])
    with pytest.raises(TypeError, match="interceptors"):
        AsyncClient("127.0.0.1:1", interceptors=[Blocking()])


def test_cache_does_not_hide_errors(call, server):
    """True and 1.0 equal 1, but are rejected even after a request with 1."""
    call(server.address, "infer", "m", X, priority=1)
    for priority in (True, 1.0):
        with pytest.raises(TypeError, match="priority: expected an int"):
            call(server.address, "infer", "m", X, priority=priority)


def test_asynchronous_inputs_need_asyncio_client(client):
    """The blocking client rejects them at once."""

    async def source():
        yield X

    with pytest.raises(TypeError, match=r"inputs: expected an iterable .*, got async_generator"):
        client.stream("m", source())
