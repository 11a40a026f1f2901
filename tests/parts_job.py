"""A job that writes known parts, in the same steps as `inferd.batch.job`, without a model."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import BinaryIO

from inferd.batch.blocks import BatchLimits
from inferd.batch.errors import InUseError, RowError
from inferd.batch.identity import Identity
from inferd.batch.manifest import Manifest, PartNote
from inferd.batch.plan import Plan, cut

PARTS = 3


def identity(job: str) -> Identity:
    """Return that of the job with this name."""
    return Identity(model={"sha256": job}, options={}, inputs={"a.parquet": "1"}, versions={})


def plan() -> Plan:
    """Return that of all jobs."""
    return Plan(limits=BatchLimits(8, 1 << 20), block_rows=64, parts=cut([[100] * PARTS], 100))


def content(job: str, part: int) -> bytes:
    """Return what a part has."""
    return f"{job} {part}\n".encode() * 1000


def run_parts(
    manifest: Manifest,
    job: str = "a",
    *,
    parts: int = PARTS,
    overwrite: bool = False,
    index: int = 0,
    indexes: int = 1,
) -> None:
    """Run a job up to so many parts."""
    with manifest.lock(index, indexes):
        if overwrite:
            manifest.forget()
        made = manifest.find_or_create(identity(job), plan)
        done = manifest.done()
        left = [part.index for part in made.share(index, indexes) if part.index not in done and part.index < parts]
        manifest.clean(left)
        if left:
            begun = manifest.begun(index)
            with begun.running():
                begun.begin(left[0])
                for part in left:
                    write_part(manifest, job, part)
        done = manifest.done()
        if len(done) == len(made.parts):
            with suppress(InUseError):
                manifest.finish(done, {"rows": 1000}, _join)


def write_part(manifest: Manifest, job: str, part: int) -> None:
    """Write the answers, error rows and note of a part."""
    with manifest.part(part) as file:
        file.write(content(job, part))
        nbytes = file.tell()
    # The last one has no error rows.
    errors = [RowError("a.parquet", part, "RUN_FAILED", job)] * (part < PARTS - 1)
    manifest.note(PartNote(part=part, rows=99, errors=len(errors), nbytes=nbytes, batches={"8": 13}), errors)


def _join(parts: Iterable[Callable[[], BinaryIO]], file: BinaryIO) -> None:
    for each in parts:
        with each() as part:
            file.write(part.read())
