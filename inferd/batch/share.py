"""Run one process' share of the parts of a job, and complete the job once all parts are done."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from threading import Event
from typing import BinaryIO

from inferd.batch.begun_parts import BegunParts, find_suspects
from inferd.batch.blocks import PreparedBlock
from inferd.batch.errors import BatchError, InUseError
from inferd.batch.manifest import Manifest, PartNote
from inferd.batch.options import RunOptions
from inferd.batch.part_files import ErrorLimit, PartFiles
from inferd.batch.pipeline import Pipeline
from inferd.batch.plan import Part, Plan
from inferd.batch.ports import BatchRunner
from inferd.batch.progress import Phase, Progress, Summary
from inferd.batch.running import BlockRunner
from inferd.batch.setup import JobSetup
from inferd.batch.sources.finding import find_sources
from inferd.batch.storage import shown
from inferd.batch.writing import join, open_writer


class Share:
    """Runs the parts of one process' share that are not done, and completes the job if all parts are."""

    def __init__(
        self,
        run_options: RunOptions,
        setup: JobSetup,
        manifest: Manifest,
        plan: Plan,
        progress: Progress,
        enter: Callable[[Phase], None],
    ) -> None:
        self._run_options = run_options
        self._setup = setup
        self._manifest = manifest
        self._plan = plan
        self._parts = plan.share(run_options.index, run_options.indexes)
        self._progress = progress
        self._enter = enter

    def run(self, stop: Event) -> Summary:
        """Run the parts that are not done; return the summary. After ``stop`` is set, begin no further part."""
        notes = self._manifest.done()
        before = self._own(notes)
        self._resume(before)
        left = [part for part in self._parts if part.index not in before]
        busy_s = 0.0
        if left:
            self._manifest.clean(part.index for part in self._parts)
            self._enter("running")
            busy_s = self._run_left(left, _totals(before)[1], stop)
            notes = self._manifest.done()
        run_s = self._progress.run_s
        is_complete = self._finish(notes)
        own = self._own(notes)
        (rows, errors), (resumed_rows, resumed_errors) = _totals(own), _totals(before)
        return Summary(
            rows=rows,
            errors=errors,
            resumed_rows=resumed_rows,
            resumed_errors=resumed_errors,
            parts=len(own),
            total_parts=len(self._parts),
            elapsed_s=self._progress.elapsed_s,
            run_s=run_s,
            rows_per_s=(rows + errors - resumed_rows - resumed_errors) / run_s if run_s else 0.0,
            busy_share=busy_s / run_s if run_s else 0.0,
            batches=self._progress.batches,
            has_finished=len(own) == len(self._parts),
            is_complete=is_complete,
            errors_file=self._manifest.errors_address(self._run_options.errors),
        )

    def _own(self, notes: Mapping[int, PartNote]) -> dict[int, PartNote]:
        return {part.index: notes[part.index] for part in self._parts if part.index in notes}

    def _resume(self, before: Mapping[int, PartNote]) -> None:
        done = [part for part in self._parts if part.index in before]
        self._progress.resume(
            total_rows=sum(part.rows for part in self._parts),
            total_parts=len(self._parts),
            rows=sum(part.rows for part in done),
            errors=_totals(before)[1],
            parts=len(done),
        )

    def _run_left(self, left: Sequence[Part], errors_before: int, stop: Event) -> float:
        """Run the parts that are ``left``; return the seconds that the model ran, for each of its places.

        Parts in which processes ended run last, in a worker process: the others are done by then, and the model is in
        memory once.
        """
        setup = self._setup
        limit = ErrorLimit(self._run_options.on_error, errors_before)
        begun = self._manifest.begun(self._run_options.index)
        suspects = find_suspects(begun, left, setup.sources.names, can_isolate=setup.open_isolated is not None)
        ordinary = [part for part in left if part.index not in suspects]
        isolated = [part for part in left if part.index in suspects]
        with begun.running():
            busy_s = self._run_parts(ordinary, setup.runner, begun, limit, stop)
            if isolated and setup.open_isolated is not None and not stop.is_set():
                busy_s += self._run_parts(isolated, setup.open_isolated(), begun, limit, stop)
        return busy_s

    def _run_parts(
        self, parts: Sequence[Part], runner: BatchRunner, begun: BegunParts, limit: ErrorLimit, stop: Event
    ) -> float:
        """Run ``parts`` on ``runner``, and close it; return the seconds that it ran, for each of its places."""
        setup, busy_s = self._setup, runner.busy_s
        files = PartFiles(
            self._manifest,
            open_writer(setup.output_format),
            setup.binding.output_schema,
            setup.sources.names,
            limit,
            self._progress,
        )
        batches = BlockRunner(runner, setup.binding, self._plan.limits, setup.sources.names)
        with ExitStack() as stack:
            pipeline = stack.enter_context(Pipeline())
            # Closed before the threads are joined: only that ends a long run.
            stack.callback(runner.close)
            blocks = setup.sources.blocks(parts, setup.binding.read_schema, self._plan.block_rows)
            prepared = setup.block_preparation().prepare(pipeline.stage("read", blocks))
            finished = batches.run(_noted(begun, pipeline.stage("prepare", prepared)))
            for part in files.write_parts(pipeline.stage("run", finished), stop):
                begun.finish(part)
        return (runner.busy_s - busy_s) / runner.places

    def _finish(self, notes: Mapping[int, PartNote]) -> bool:
        """Complete the job if all parts of all processes are done; return True if it is complete."""
        if len(notes) < len(self._plan.parts):
            return False
        self._enter("finishing")
        if not self._manifest.is_complete:
            self._require_unchanged()
        rows, errors = _totals(notes)
        joined = partial(_joined, self._setup)
        # Another process may be completing it, whose last part ended at the same time.
        with suppress(InUseError):
            self._manifest.finish(notes, {"rows": rows, "errors": errors}, joined, self._run_options.errors)
        return self._manifest.is_complete

    def _require_unchanged(self) -> None:
        """Raise `BatchError` if a file has changed: answers may be of the old or the new content."""
        options = self._setup.options
        now = {file.address: file.version for file in find_sources(options.inputs, options.input_format)}
        for file in self._setup.sources.files:
            if now.get(file.address) != file.version:
                raise BatchError(f"{shown(file.address)} has changed while the job ran; --overwrite starts over")


def _noted(begun: BegunParts, blocks: Iterator[PreparedBlock]) -> Iterator[PreparedBlock]:
    """Yield ``blocks``; before the first block of each part, note that the part is begun."""
    at = -1
    for block in blocks:
        if block.part != at:
            at = block.part
            begun.begin(at)
        yield block


def _totals(notes: Mapping[int, PartNote]) -> tuple[int, int]:
    """Return the rows with and without an answer."""
    return sum(note.rows for note in notes.values()), sum(note.errors for note in notes.values())


def _joined(setup: JobSetup, parts: Iterable[Callable[[], BinaryIO]], file: BinaryIO) -> None:
    join(setup.output_format, parts, file, setup.binding.output_schema)
