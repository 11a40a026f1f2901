"""Requests over HTTP that are like others, and the outlines of others."""

import json

import pytest

from inferd.api.rest.decoder import RestDecoder
from inferd.http.messages import HttpMessage
from tests.unit.api.rest.bench import BINARY, BYTES, IN_JSON, MODEL, Model, X, decode, message


class TestTemplates:
    """Requests that are like others but for their numbers and id."""

    def test_second_request_is_not_parsed(self):
        decoder = RestDecoder()
        sent = message({"inputs": [BINARY]}, BYTES)
        decode(sent, MODEL, decoder)
        incoming, request = decode(message({"inputs": [BINARY]}, BYTES[::-1]), MODEL, decoder)
        assert (incoming.parsed, incoming.cached is not None) == (None, True)
        assert request.inputs["x"].tobytes() == BYTES[::-1]
        assert not request.inputs["x"].flags.writeable

    @pytest.mark.parametrize(
        ("request_id", "matches"),
        [("b", True), ("", False), ("é", False), ("bc", False), ("\n", False), ('"', False), ("\\", False)],
    )
    def test_ids_may_differ(self, request_id, matches):
        decoder = RestDecoder()
        decode(message({"id": "a", "inputs": [BINARY]}, BYTES), MODEL, decoder)
        incoming, _ = decode(message({"id": request_id, "inputs": [BINARY]}, BYTES), MODEL, decoder)
        assert (incoming.cached is not None, incoming.request_id) == (matches, request_id)

    @pytest.mark.parametrize("content", [b'"', b"\\", b"\n", b"\xff"])
    def test_ids_that_end_the_string_do_not_match(self, content):
        decoder = RestDecoder()
        sent = message({"id": "a", "inputs": [BINARY]}, BYTES)
        decode(sent, MODEL, decoder)
        assert (
            decoder.match(HttpMessage(sent.body.replace(b'"a"', b'"' + content + b'"'), sent.path, sent.json_length))
            is None
        )

    def test_ambiguous_places_of_ids_are_not_cached(self):
        decoder = RestDecoder()
        for content in (
            {"parameters": {"id": "a"}, "id": "a", "inputs": [BINARY]},
            {"id": "a\n", "inputs": [BINARY]},
        ):
            decode(message(content, BYTES), MODEL, decoder)
        assert decoder.cached_templates == 0

    def test_other_paths_and_lengths_do_not_match(self):
        decoder = RestDecoder()
        sent = message({"inputs": [BINARY]}, BYTES)
        decode(sent, MODEL, decoder)
        for path, length in (({"model": "n"}, sent.json_length), ({"model": "m", "version": "1"}, sent.json_length)):
            assert decoder.match(HttpMessage(sent.body, path, length)) is None
        assert decoder.match(HttpMessage(sent.body, sent.path, sent.json_length - 1)) is None
        assert decoder.match(HttpMessage(sent.body, sent.path, None)) is None
        assert decoder.match(sent) is not None

    def test_only_requests_without_data_in_json_are_cached(self):
        decoder, model = RestDecoder(), Model(x=("FP32", 2), z=("INT8", 1))
        z = {"name": "z", "datatype": "INT8", "shape": [1]}
        decode(message({"inputs": [BINARY, {**z, "data": [1]}]}, BYTES), model, decoder)
        assert decoder.cached_templates == 0
        decode(
            message({"inputs": [BINARY, {**z, "parameters": {"binary_data_size": 1}}]}, BYTES, b"\1"), model, decoder
        )
        assert decoder.cached_templates == 1


class TestOutlines:
    """What a request says beside its tensors, found in microseconds."""

    CONTENT = {"id": "a", "parameters": {"timeout": 1_000_000}, "inputs": [BINARY]}  # noqa: RUF012  (not changed)

    def test_of_binary_tensors(self):
        sent = message(self.CONTENT, BYTES)
        decoder = RestDecoder()
        assert decoder.timeout_s(sent) == 1.0
        assert decoder.outline(sent).request_id == "a"

    @pytest.mark.parametrize("indent", [None, 2])
    @pytest.mark.parametrize("data", [[1, 2.5e-3], [[1, 2], [3, 4]], [[[[5]]]], [0.1] * 20_000, [[0.5] * 20_000] * 2])
    def test_of_numbers_in_json(self, data, indent):
        inputs = [{**X, "data": data}, {**X, "name": "z", "data": data, "parameters": {}}]
        sent = message(
            json.dumps({**self.CONTENT, "inputs": inputs, "outputs": [{"name": "y"}]}, indent=indent).encode()
        )
        outline = RestDecoder().outline(sent)
        assert (outline.name, outline.request_id) == ("m", "a")
        assert [(each.name, each.shape) for each in outline.request.inputs] == [("x", [1, 2]), ("z", [1, 2])]
        assert [each.name for each in outline.request.outputs] == ["y"]
        assert RestDecoder().timeout_s(sent) == 1.0

    @pytest.mark.parametrize(
        "content",
        [
            {**CONTENT, "mine": "a" * 5000},
            {**CONTENT, "inputs": [{**X, "data": ["a", "b"]}]},
            {**CONTENT, "inputs": [IN_JSON] * 50},
            {**CONTENT, "inputs": [{**X, "mine": [1] * 5000, "data": [1]}]},
            b"{",
            b'{"data":',
            b'{"data":[[1',
        ],
    )
    def test_of_others_there_is_none(self, content):
        assert RestDecoder().outline(message(content)) is None

    def test_of_the_json_only(self):
        """Nothing is taken from binary data."""
        sent = message(self.CONTENT, b'"data":[1')
        assert RestDecoder().outline(sent).request_id == "a"
