"""llama.cpp's server: server.py GGUF SEQUENCES PORT. Ends with its standard input."""

import sys

import xllamacpp

_CONTEXT = 256


def main() -> None:
    """Serve until standard input is closed."""
    path, sequences, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_parallel = sequences
    params.n_ctx = _CONTEXT * sequences
    params.port = port
    params.n_batch = 2048
    params.n_ubatch = 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    # Kept alive, as it serves in threads of its own.
    server = xllamacpp.Server(params)
    print(f"listening on {server.listening_address}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
