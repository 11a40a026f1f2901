"""What goes wrong with a model, said for the operator."""

import re
from pathlib import Path


class ModelLoadError(Exception):
    """A model cannot be served. The text says why and, where there is one, the way out.

    It names files without their folders, because callers who ask for the model's state get to see it.
    """


class RunFailedError(Exception):
    """A run failed. The text says where in the model and how, and may be logged: it quotes no value of an input.

    ``cause`` is what was raised. Its text may quote some: an index beyond a table, a shape, a word that is no number.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(_run_failure(cause))
        self.cause = cause


#: What ONNX Runtime puts before the words that mean something: its own name, an error code, source files and C++ names.
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : "
    r"|Exception during (?:loading|initialization): "
    r"|Load model from .*? failed:\s*"
    r"|/onnxruntime_src/\S+:\d+ .*?(?:\)|\bnoexcept) (?=[A-Z])"
)

#: What it says, among much else, of an operator set that it is too old for.
_TOO_NEW = re.compile(r"Opset (\d+) is under development.*domain (\S+) is till opset (\d+)", re.DOTALL)


def runtime_message(error: Exception, folder: Path | None = None) -> str:
    """Return what ONNX Runtime said, in one line, without names of its source files and the model's ``folder``."""
    too_new = _TOO_NEW.search(str(error))
    if too_new:
        wanted, domain, supported = too_new.groups()
        return f"it needs opset {wanted} of {domain}, the installed ONNX Runtime knows up to {supported}"
    text = _NOISE.sub("", str(error))
    if folder is not None:
        text = text.replace(f"{folder}/", "")
    return " ".join(text.split()).rstrip(".")


#: How ONNX Runtime begins to tell of a run that failed; the second where inputs and outputs were bound.
_RUN_FAILED = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |Error in execution: ")

#: Then it names the node, and where that has a graph of its own, the node in there, and so on.
_NODE = re.compile(r"Non-zero status code returned while running (\S+) node\. Name:'(.*?)' Status Message: ", re.DOTALL)

#: Then, often, the line of its source that says so.
_SOURCE_LINE = re.compile(r"(?:/\S+/)?(\w+\.(?:cc|h|cu|cuh):\d+) ")

#: The one reason that an operator can do something about.
_NO_MEMORY = "Failed to allocate memory"


def _run_failure(cause: Exception) -> str:
    """Return the kind of the error and what is the model's and the runtime's own of its text; the rest may quote."""
    text = str(cause)
    start = _RUN_FAILED.match(text)
    position = start.end() if start else 0
    nodes: list[str] = []
    while node := _NODE.match(text, position):
        nodes.append(f'{node[1]} "{node[2]}"')
        position = node.end()
    line = _SOURCE_LINE.match(text, position) if nodes else None
    told = type(cause).__name__
    if nodes:
        told += f" in {', '.join(nodes)}"
    if line:
        told += f" at {line[1]}"
    return f"{told}: {_NO_MEMORY}" if _NO_MEMORY in text else told
