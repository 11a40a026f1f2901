"""Calls a language model with Triton's own Python clients, as one would call Triton's vLLM backend.

Arguments: the server's address. The server serves ``story``, a tiny model of `tests.decoder_models`.
"""

import asyncio
import json
import queue
import sys

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

#: As in `tests.patience`, which this environment does not have.
PATIENCE_S = 120.0

PROMPTS = ["The capital of France", "Once upon a time", "What is the capital"]
#: Numbers as strings, as the backend's sample client has them.
SAMPLING = {"temperature": "0", "max_tokens": "12"}


def _text(name, value):
    tensor = triton.InferInput(name, [1], "BYTES")
    tensor.set_data_from_numpy(np.array([value.encode()], dtype=np.object_))
    return tensor


def _flag(name, value=True):
    tensor = triton.InferInput(name, [1], "BOOL")
    tensor.set_data_from_numpy(np.array([value], dtype=bool))
    return tensor


def _inputs(prompt, *more, stream=True, sampling=SAMPLING):
    return [
        _text("text_input", prompt),
        _flag("stream", stream),
        _text("sampling_parameters", json.dumps(sampling)),
        *more,
    ]


def _whole(client, prompt):
    """Return the whole answer of a unary call."""
    inputs = _inputs(prompt, _flag("exclude_input_in_output"), stream=False)
    return client.infer("story", inputs, client_timeout=PATIENCE_S).as_numpy("text_output")[0].decode()


def check_metadata(client):
    """As of the backend: decoupled, without batching by the client, one input needed."""
    config = client.get_model_config("story").config
    assert config.model_transaction_policy.decoupled
    assert config.max_batch_size == 0
    metadata = client.get_model_metadata("story")
    assert ("text_input", "BYTES", [1]) in [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs]
    assert "text_output" in [each.name for each in metadata.outputs]


def check_stream(client):
    """Several requests on one stream; each ends with a response that is marked as the last one."""
    expected = {str(number): _whole(client, prompt) for number, prompt in enumerate(PROMPTS)}
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number, prompt in enumerate(PROMPTS):
        inputs = _inputs(prompt, _flag("return_finish_reason"), _flag("return_num_output_tokens"))
        client.async_stream_infer("story", inputs, request_id=str(number), enable_empty_final_response=True)
    texts, tokens, reasons = dict.fromkeys(expected, ""), dict.fromkeys(expected, 0), {}
    while len(reasons) < len(expected):
        result, error = answers.get(timeout=PATIENCE_S)
        assert error is None, error
        response = result.get_response()
        texts[response.id] += result.as_numpy("text_output")[0].decode()
        tokens[response.id] += int(result.as_numpy("num_output_tokens")[0])
        if response.parameters["triton_final_response"].bool_param:
            reasons[response.id] = result.as_numpy("finish_reason")[0]
    client.stop_stream()
    assert texts == expected
    assert set(tokens.values()) == {12}
    assert set(reasons.values()) == {b"length"}


def check_errors(client):
    """They come in the stream, which goes on."""
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer("story", _inputs("x", sampling={"temperature": 7}))
    _, error = answers.get(timeout=PATIENCE_S)
    assert "sampling_parameters.temperature: expected 0 to 2, got 7" in str(error)
    client.async_stream_infer("story", _inputs("x", stream=False, sampling={"max_tokens": 1}))
    result, error = answers.get(timeout=PATIENCE_S)
    assert error is None, error
    assert result.as_numpy("text_output")[0].startswith(b"x")
    client.stop_stream()


def check_tokens(client):
    """Given and returned."""
    ids = triton.InferInput("input_ids", [3], "INT64")
    ids.set_data_from_numpy(np.array([5, 6, 7], np.int64))
    result = client.infer("story", [ids], parameters={"max_tokens": 4, "temperature": "0"}, client_timeout=PATIENCE_S)
    assert result.as_numpy("output_ids").shape == (4,)


def check_asyncio(client):
    """The way of the backend's sample client."""
    expected = [_whole(client, prompt) for prompt in PROMPTS]

    async def requests():
        for number, prompt in enumerate(PROMPTS):
            # Parameters and outputs are sent along by that client.
            yield {
                "model_name": "story",
                "inputs": _inputs(prompt),
                "outputs": [triton_aio.InferRequestedOutput("text_output")],
                "request_id": str(number),
                "parameters": SAMPLING,
            }

    async def run():
        texts = [""] * len(PROMPTS)
        async with triton_aio.InferenceServerClient(sys.argv[1]) as made:
            async for result, error in made.stream_infer(requests()):
                assert error is None, error
                texts[int(result.get_response().id)] += result.as_numpy("text_output")[0].decode()
        return texts

    assert asyncio.run(asyncio.wait_for(run(), PATIENCE_S)) == expected


def main():
    """Run every check."""
    with triton.InferenceServerClient(sys.argv[1]) as client:
        for check in (check_metadata, check_stream, check_errors, check_tokens, check_asyncio):
            check(client)
            sys.stdout.write(f"{check.__name__} held\n")


if __name__ == "__main__":
    main()
