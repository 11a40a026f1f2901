"""Errors of loading and running models, and ONNX Runtime's messages cleaned for logs and clients."""

import re
from enum import Enum, auto
from pathlib import Path


class ModelLoadError(Exception):
    """A model cannot be served. The text says why and, if possible, what to do.

    It names files without their directories, because clients can query it with the model's state.
    """


class SessionClosedError(RuntimeError):
    """The session runs nothing: it is closed, or being opened again."""

    def __init__(self) -> None:
        super().__init__("the session is closed")


class RunFailure(Enum):
    """Consequences of a failed run for the runs that follow."""

    #: The memory of the process or the device was not enough; fewer rows may run.
    OUT_OF_MEMORY = auto()
    #: The device reported an error after which it mostly runs nothing more for this process.
    DEVICE = auto()
    #: Anything else: an input that the model cannot run, or a fault of the model.
    OTHER = auto()


class RunFailedError(Exception):
    """A run failed. The text names the node and the kind of error, and is safe to log: it quotes no input values.

    ``cause`` is the original exception. Its text may quote inputs: an index out of range, a shape, a string.
    """

    def __init__(self, cause: Exception) -> None:
        nodes, position = _failed_nodes(str(cause))
        self.failure = _failure(cause, position)
        super().__init__(_description(cause, nodes, position, self.failure))
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

#: Where in the source a message about memory or a device comes from, if it says so: code that allocates or calls the
#: device. The texts of operators elsewhere may quote inputs, which must not decide anything.
_DEVICE_SOURCE = (
    r"(?:\S*/onnxruntime_src/\S*"
    r"(?:arena|alloc|execution_frame|/providers/(?:cuda|tensorrt|rocm|migraphx)/)"
    r"\S*:\d+ .*?)?"
)

#: What ONNX Runtime, CUDA, cuBLAS, cuDNN and HIP say when there is no memory.
_NO_MEMORY = re.compile(
    rf"(?:std::bad_alloc\s*$|{_DEVICE_SOURCE}(?:"
    r"Failed to allocate memory for requested buffer of size \d+"
    r"|Available memory of \d+ is smaller than requested bytes of \d+"
    r"|(?:CUDA|HIP) failure 2: "
    r"|(?:CUDA|HIP) error \w*MEMORY_ALLOCATION\b"
    r"|CUBLAS failure 3: |CUBLAS_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_ALLOC_FAILED|CUDNN failure \d+: CUDNN_STATUS_ALLOC_FAILED))",
    re.DOTALL,
)

#: Errors of a device that stay: of CUDA and HIP those that end the context of the process (illegal addresses and
#: instructions, device-side asserts, failed launches, memory errors, a device that is gone), and what the libraries on
#: top of it say then.
_DEVICE_ERROR = re.compile(
    rf"{_DEVICE_SOURCE}(?:"
    r"(?:CUDA|HIP) failure (?:4|46|100|101|214|219|220|226|7[01]\d|999): "
    r"|CUBLAS failure 1[34]: |CUDNN failure \d+: CUDNN_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR)"
    r"|CUDNN_STATUS_EXECUTION_FAILED|CUBLAS_STATUS_EXECUTION_FAILED"
    r"|CUDA error: device-side assert triggered)",
    re.DOTALL,
)


def failure_of(error: Exception) -> RunFailure:
    """Return what ``error`` of a run, or of what is done with its inputs and outputs, says about the next runs."""
    if isinstance(error, RunFailedError):
        return error.failure
    return RunFailure.OUT_OF_MEMORY if isinstance(error, MemoryError) else RunFailure.OTHER


def _failure(cause: Exception, position: int) -> RunFailure:
    """Return the kind of an error of ONNX Runtime, from its text after ``position``, where the nodes end."""
    text = str(cause)
    if isinstance(cause, MemoryError) or _NO_MEMORY.match(text, position):
        return RunFailure.OUT_OF_MEMORY
    return RunFailure.DEVICE if _DEVICE_ERROR.match(text, position) else RunFailure.OTHER


def _failed_nodes(text: str) -> tuple[list[str], int]:
    """Return the nodes that a run failed in, the outermost first, and where the text goes on after them."""
    start = _RUN_FAILED.match(text)
    position = start.end() if start else 0
    nodes: list[str] = []
    while node := _NODE.match(text, position):
        nodes.append(f'{node[1]} "{node[2]}"')
        position = node.end()
    return nodes, position


def _description(cause: Exception, nodes: list[str], position: int, failure: RunFailure) -> str:
    """Return the type of the error and the parts of its text that cannot quote inputs."""
    line = _SOURCE_LINE.match(str(cause), position) if nodes else None
    description = type(cause).__name__
    if nodes:
        description += f" in {', '.join(nodes)}"
    if line:
        description += f" at {line[1]}"
    # The only reasons that are worth telling: the operator can do something about them.
    reason = {RunFailure.OUT_OF_MEMORY: ": Failed to allocate memory", RunFailure.DEVICE: ": the device failed"}
    return description + reason.get(failure, "")
