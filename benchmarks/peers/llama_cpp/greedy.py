"""What llama.cpp generates greedily: greedy.py GGUF TOKENS, prompts as a list of lists of token ids in standard input.

Cache and attention are exact: 32-bit floats, no flash attention. Prints a list of the tokens of each prompt, without
an end token, as JSON.
"""

import json
import sys
import urllib.request

import xllamacpp

_CONTEXT = 512


def main() -> None:
    """Generate for each prompt alone."""
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_parallel = 1
    params.n_ctx = _CONTEXT
    params.port = 0
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    # Several would wait for one another by spinning, which takes minutes beside other work.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    answers = [_generated(server.listening_address, prompt, int(sys.argv[2])) for prompt in json.load(sys.stdin)]
    print(json.dumps(answers), flush=True)


def _generated(address: str, prompt: list[int], count: int) -> list[int]:
    body = {"prompt": prompt, "n_predict": count, "temperature": 0, "samplers": ["temperature"]}
    body |= {"cache_prompt": False, "return_tokens": True, "stream": False}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/completion", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)["tokens"]


if __name__ == "__main__":
    main()
