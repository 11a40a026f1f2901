"""Outputs into .npy files."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.cli.failures import CommandError


def save_outputs(targets: Sequence[str], outputs: Mapping[str, NDArray[Any]]) -> dict[str, Path]:
    """Save what ``targets``, DIR or NAME=FILE.npy, ask for; return where each saved output went."""
    files: dict[str, Path] = {}
    for target in targets:
        name, separator, file = target.partition("=")
        if not separator:
            files |= {output: Path(target) / f"{_file_name(output)}.npy" for output in outputs}
        elif name in outputs:
            files[name] = Path(file)
        else:
            raise CommandError(f'--save {target}: there is no output "{name}", the model gave {", ".join(outputs)}')
    for output, path in files.items():
        _save(path, outputs[output])
    return files


def _file_name(output: str) -> str:
    """Return a name that stays within its directory, whatever a model calls its outputs."""
    return re.sub(r"[^\w.:-]", "_", output).lstrip(".") or "_"


def _save(path: Path, array: NDArray[Any]) -> None:
    if array.dtype.hasobject:
        array = array.astype(np.bytes_)
    elif array.dtype.kind == "V":
        # The format knows no bfloat16; each value is also a float32.
        array = array.astype(np.float32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opened here, because numpy would add .npy to a name that ends otherwise.
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {error.strerror}") from None
