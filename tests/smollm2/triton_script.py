"""Asks a model by Triton's own client, as with Triton's vLLM backend, and prints the answer.

Arguments: the server's address, the model, and the prompt.
"""

import json
import queue
import sys
from functools import partial

import numpy as np
import tritonclient.grpc as triton

PATIENCE_S = 120.0


def tensor(name, value, datatype):
    """Return an input of one element."""
    made = triton.InferInput(name, [1], datatype)
    made.set_data_from_numpy(np.array([value], dtype=object if datatype == "BYTES" else bool))
    return made


def main(address, model, prompt):
    """Stream one answer."""
    inputs = [
        tensor("text_input", prompt, "BYTES"),
        tensor("stream", True, "BOOL"),
        tensor("exclude_input_in_output", True, "BOOL"),
        tensor("sampling_parameters", json.dumps({"temperature": 0, "max_tokens": 32}), "BYTES"),
    ]
    answers = queue.Queue()
    with triton.InferenceServerClient(address) as client:
        client.start_stream(callback=partial(lambda found, result, error: found.put((result, error)), answers))
        client.async_stream_infer(model, inputs, enable_empty_final_response=True)
        pieces, is_final = [], False
        while not is_final:
            result, error = answers.get(timeout=PATIENCE_S)
            assert error is None, error
            is_final = result.get_response().parameters["triton_final_response"].bool_param
            text = result.as_numpy("text_output")
            pieces += [] if text is None else [element.decode() for element in text.ravel()]
        client.stop_stream()
    assert len(pieces) > 3
    sys.stdout.write("".join(pieces) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
