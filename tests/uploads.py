"""Uploads of models to a repository, in steps, so that a test can interrupt them anywhere.

Each way is a generator that writes the model `onnx_models.numbered` of ``number`` into the directory of a version, and
pauses after each step. Whatever was there is replaced.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import onnx

from tests import onnx_models

#: Random numbers, the directory of the version, and the number of the model.
Way = Callable[[random.Random, Path, int], Iterator[None]]


def in_pieces(draw: random.Random, folder: Path, number: int) -> Iterator[None]:
    """Delete the version, and write the file piece by piece."""
    yield from delete(folder)
    folder.mkdir(parents=True)
    yield
    yield from write(draw, folder / "model.onnx", onnx_models.numbered(number).SerializeToString())


def with_weights(draw: random.Random, folder: Path, number: int) -> Iterator[None]:
    """Delete the version, and write the model, then its weights, or the other way round, or their pieces in turn."""
    yield from delete(folder)
    folder.mkdir(parents=True)
    model, weights = split(number)
    writes = [write(draw, folder / "model.onnx", model), write(draw, folder / "weights.bin", weights)]
    draw.shuffle(writes)
    alternating = draw.random() < 0.5
    while writes:
        try:
            next(writes[0])
        except StopIteration:
            del writes[0]
        else:
            yield
            if alternating:
                writes.reverse()


def over_the_old_file(draw: random.Random, folder: Path, number: int) -> Iterator[None]:
    """Write the file where it is, as a plain copy does: it is truncated first."""
    folder.mkdir(parents=True, exist_ok=True)
    detach(folder)
    yield from write(draw, folder / "model.onnx", onnx_models.numbered(number).SerializeToString())


def renamed_file(draw: random.Random, folder: Path, number: int) -> Iterator[None]:
    """Write a hidden file and rename it, as rsync does."""
    folder.mkdir(parents=True, exist_ok=True)
    detach(folder)
    yield from write(draw, folder / ".model.onnx.Xy12ab", onnx_models.numbered(number).SerializeToString())
    (folder / ".model.onnx.Xy12ab").rename(folder / "model.onnx")
    yield


def renamed_directory(draw: random.Random, folder: Path, number: int) -> Iterator[None]:
    """Write a hidden directory, and rename it in the place of the old one."""
    new, old = folder.with_name(f".new-{folder.name}"), folder.with_name(f".old-{folder.name}")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    model, weights = split(number)
    yield from write(draw, new / "model.onnx", model)
    yield from write(draw, new / "weights.bin", weights)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        yield
    new.rename(folder)
    yield


def swapped_link(draw: random.Random, folder: Path, number: int) -> Iterator[None]:
    """Write a hidden directory, and swap the link to it, as the kubelet does for a ConfigMap."""
    if not (folder / "..data").is_symlink() or not (folder / "model.onnx").is_symlink():
        yield from delete(folder)
    content = folder / f"..{number}"
    content.mkdir(parents=True)
    yield from write(draw, content / "model.onnx", onnx_models.numbered(number).SerializeToString())
    (folder / "..data_tmp").unlink(missing_ok=True)
    (folder / "..data_tmp").symlink_to(content.name)
    (folder / "..data_tmp").rename(folder / "..data")
    yield
    if not (folder / "model.onnx").is_symlink():
        (folder / "model.onnx").symlink_to("..data/model.onnx")
        yield


def without_truncation(draw: random.Random, folder: Path, number: int) -> Iterator[None]:
    """Write over the old file without truncating it, and give it the old times: at no time it has another size."""
    file = folder / "model.onnx"
    if file.is_symlink() or not file.exists():
        yield from in_pieces(draw, folder, number)
        return
    times = file.stat()
    content = onnx_models.numbered(number).SerializeToString()
    with file.open("r+b", buffering=0) as opened:
        for start, end in pieces(draw, len(content)):
            opened.seek(start)
            opened.write(content[start:end])
            yield
        opened.truncate()
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    yield


#: Ways that leave no file that is damaged and looks complete, wherever they end.
SAFE: tuple[Way, ...] = (in_pieces, with_weights, over_the_old_file, renamed_file, renamed_directory, swapped_link)


def delete(folder: Path) -> Iterator[None]:
    """Delete a version file by file, the hidden ones last."""
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(FileNotFoundError):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        yield
    shutil.rmtree(folder, ignore_errors=True)


def detach(folder: Path) -> None:
    """Remove links and weights of earlier uploads, so that only the file counts."""
    file = folder / "model.onnx"
    if file.is_symlink() or (folder / "weights.bin").exists():
        file.unlink(missing_ok=True)
        (folder / "weights.bin").unlink(missing_ok=True)


def write(draw: random.Random, path: Path, content: bytes) -> Iterator[None]:
    """Write a file piece by piece."""
    with path.open("wb", buffering=0) as file:
        yield
        for start, end in pieces(draw, len(content)):
            file.write(content[start:end])
            yield


def pieces(draw: random.Random, length: int) -> list[tuple[int, int]]:
    """Divide ``length`` bytes at random into one to four pieces."""
    cuts = sorted({0, length, *(draw.randrange(1, length) for _ in range(draw.randrange(4)))})
    return list(pairwise(cuts))


def split(number: int) -> tuple[bytes, bytes]:
    """Return the model with its weights in ``weights.bin``, and those weights."""
    model = onnx_models.numbered(number)
    (weights,) = [each for each in model.graph.initializer if each.name == "weights"]
    content = weights.raw_data
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="weights.bin")
    return model.SerializeToString(), content
