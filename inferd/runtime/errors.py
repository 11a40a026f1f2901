"""Errors of loading and running models, and ONNX Runtime's messages cleaned for logs and clients."""

import re
from pathlib import Path


class ModelLoadError(Exception):
    """A model cannot be served. The text says why and, if possible, what to do.

    It names files without their directories, because clients can query it with the model's state.
    """


class RunFailedError(Exception):
    """A run failed. The text names the node and the kind of error, and is safe to log: it quotes no input values.

    ``cause`` is the original exception. Its text may quote inputs: an index out of range, a shape, a string.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(_run_failure(cause))
        self.cause = cause


#: Prefixes of ONNX Runtime's messages without information: its name, error codes, source files and C++ names.
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : "
    r"|Exception during (?:loading|initialization): "
    r"|Load model from .*? failed:\s*"
    r"|/onnxruntime_src/\S+:\d+ .*?(?:\)|\bnoexcept) (?=[A-Z])"
)

#: Part of its message for an opset that is too new.
_TOO_NEW = re.compile(r"Opset (\d+) is under development.*domain (\S+) is till opset (\d+)", re.DOTALL)


def runtime_message(error: Exception, folder: Path | None = None) -> str:
    """Return ONNX Runtime's message in one line, without its source files and the model's ``folder``."""
    too_new = _TOO_NEW.search(str(error))
    if too_new:
        wanted, domain, supported = too_new.groups()
        return f"it needs opset {wanted} of {domain}, the installed ONNX Runtime knows up to {supported}"
    text = _NOISE.sub("", str(error))
    if folder is not None:
        text = text.replace(f"{folder}/", "")
    return " ".join(text.split()).rstrip(".")


#: Prefix of ONNX Runtime's message for a failed run; the second with bound inputs and outputs.
_RUN_FAILED = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |Error in execution: ")

#: Then the node and, for nodes with subgraphs, the inner nodes.
_NODE = re.compile(r"Non-zero status code returned while running (\S+) node\. Name:'(.*?)' Status Message: ", re.DOTALL)

#: Then, often, the line in its source.
_SOURCE_LINE = re.compile(r"(?:/\S+/)?(\w+\.(?:cc|h|cu|cuh):\d+) ")

#: The only reason that is worth quoting: the user can do something about it.
_NO_MEMORY = "Failed to allocate memory"


def _run_failure(cause: Exception) -> str:
    """Return the type of the error and the parts of its text that cannot quote inputs."""
    text = str(cause)
    start = _RUN_FAILED.match(text)
    position = start.end() if start else 0
    nodes: list[str] = []
    while node := _NODE.match(text, position):
        nodes.append(f'{node[1]} "{node[2]}"')
        position = node.end()
    line = _SOURCE_LINE.match(text, position) if nodes else None
    description = type(cause).__name__
    if nodes:
        description += f" in {', '.join(nodes)}"
    if line:
        description += f" at {line[1]}"
    return f"{description}: {_NO_MEMORY}" if _NO_MEMORY in text else description
