"""What goes wrong when a model is loaded, said for the operator."""

import re
from pathlib import Path


class ModelLoadError(Exception):
    """A model cannot be served. The text says why and, where there is one, the way out.

    It names files without their folders, because callers who ask for the model's state get to see it.
    """


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
