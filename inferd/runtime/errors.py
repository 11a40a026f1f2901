"""What goes wrong when a model is loaded, said for the operator."""

import re


class ModelLoadError(Exception):
    """A model cannot be served. The text says why and, where there is one, the way out; it may name files."""


#: What ONNX Runtime puts before the words that mean something: its own name, an error code, source files and C++ names.
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : "
    r"|Exception during (?:loading|initialization): "
    r"|Load model from .*? failed:\s*"
    r"|/onnxruntime_src/\S+:\d+ .*?(?:\)|\bnoexcept) (?=[A-Z])"
)

#: What it says, among much else, of an operator set that it is too old for.
_TOO_NEW = re.compile(r"Opset (\d+) is under development.*domain (\S+) is till opset (\d+)", re.DOTALL)


def runtime_message(error: Exception) -> str:
    """Return what ONNX Runtime said, in one line and without the names of its source files."""
    too_new = _TOO_NEW.search(str(error))
    if too_new:
        wanted, domain, supported = too_new.groups()
        return f"it needs opset {wanted} of {domain}, the installed ONNX Runtime knows up to {supported}"
    return " ".join(_NOISE.sub("", str(error)).split()).rstrip(".")
