"""A job, from its options to its summary."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import BinaryIO

import pyarrow as pa

from inferd.batch.blocks import BatchLimits
from inferd.batch.errors import BatchError, InUseError, RowError, UsageError
from inferd.batch.joining import join
from inferd.batch.manifest import Manifest, PartNote, manifest_of
from inferd.batch.metrics_file import MetricsFile
from inferd.batch.options import JobOptions, RunOptions
from inferd.batch.part_files import ErrorLimit, PartFiles
from inferd.batch.pipeline import Pipeline
from inferd.batch.plan import Part, Plan
from inferd.batch.planning import Planner
from inferd.batch.progress import Phase, Progress, ProgressSnapshot, Summary
from inferd.batch.remembered_sizes import RememberedSizes
from inferd.batch.running import BlockRunner
from inferd.batch.setup import JobSetup, described_inputs, open_setup
from inferd.batch.sources.finding import find_sources
from inferd.batch.storage import shown
from inferd.batch.writing import open_writer, suffix_of
from inferd.config import Settings
from inferd.endpoint import Endpoint
from inferd.periodic_thread import PeriodicThread

#: How often a job reports where it is, and replaces its metrics file.
_REPORT_S, _METRICS_S = 1.0, 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What a job would do: what fills each input, and ``table`` and ``errors`` of its first rows."""

    files: int
    inputs: Mapping[str, str]
    output_schema: pa.Schema
    table: pa.RecordBatch
    errors: Sequence[RowError]


class Job:
    """One process of a job. ``endpoint`` is the server to run on; None for this process, with ``settings``.

    Threads: the caller's, for `run` or `preview`, once. ``on_progress`` is called by a thread of its own about once a
    second, and last by the caller's.
    """

    def __init__(
        self,
        options: JobOptions,
        run_options: RunOptions,
        settings: Settings,
        endpoint: Endpoint | None = None,
        on_progress: Callable[[ProgressSnapshot], None] = lambda _: None,
    ) -> None:
        self._options = options
        self._run_options = run_options
        self._settings = settings
        self._endpoint = endpoint
        self._on_progress = on_progress
        self._progress = Progress()

    def preview(self, rows: int) -> Preview:
        """Run the first ``rows`` rows; write nothing. Raises `UsageError` and `BatchError`."""
        with ExitStack() as stack:
            setup = self._open(stack)
            block = self._planner(setup).preview(rows)
            limits = BatchLimits(min(rows, setup.runner.max_rows), setup.runner.max_bytes)
            runner = BlockRunner(setup.runner, setup.binding, limits, setup.sources.names)
            [answers] = runner.finished(iter([block]))
            return Preview(
                files=len(setup.sources.files),
                inputs=described_inputs(setup),
                output_schema=setup.binding.output_schema,
                table=answers.table,
                errors=answers.errors,
            )

    def run(self, stop: Event) -> Summary:
        """Run all rows of this process' share that have not been run yet.

        After ``stop`` no part is begun. Raises `UsageError` and `BatchError`; run again, the job continues.
        """
        if self._run_options.overwrite and self._run_options.indexes > 1:
            raise UsageError(
                "--overwrite: several processes would delete each other's answers; delete the output first"
            )
        with ExitStack() as stack:
            enter = stack.enter_context(self._reported())
            setup = self._open(stack)
            manifest = manifest_of(self._options.output, suffix_of(setup.output_format), is_file=setup.is_file)
            stack.enter_context(manifest.lock(self._run_options.index, self._run_options.indexes))
            if self._run_options.overwrite:
                manifest.forget()
            plan = manifest.find_or_create(setup.identity(), self._planner(setup, enter).plan)
            return _Run(self._run_options, setup, manifest, plan, self._progress, enter).run(stop)

    def _open(self, stack: ExitStack) -> JobSetup:
        return open_setup(self._options, self._run_options, self._settings, self._endpoint, stack)

    def _planner(self, setup: JobSetup, enter: Callable[[Phase], None] = lambda _: None) -> Planner:
        return Planner(
            options=self._options,
            sources=setup.sources,
            runner=setup.runner,
            binding=setup.binding,
            preparation=setup.block_preparation(),
            enter=enter,
            remembered=RememberedSizes(self._settings.runtime.verdict_cache, setup.identity().without_files),
        )

    @contextmanager
    def _reported(self) -> Iterator[Callable[[Phase], None]]:
        """Context in which it is seen where the job is. Returns what begins a phase."""

        def report() -> None:
            self._on_progress(self._progress.snapshot())

        reports = [PeriodicThread("inferd-batch-progress", period_s=_REPORT_S, action=report)]
        path = self._run_options.metrics_file
        metrics = None if path is None else MetricsFile(path, self._run_options.index, self._progress.snapshot)
        if metrics is not None:
            # What is in its way is an error now, and later only a warning.
            metrics.write()
            reports.append(PeriodicThread("inferd-batch-metrics", period_s=_METRICS_S, action=metrics.refresh))

        def enter(phase: Phase) -> None:
            self._progress.enter(phase)
            for each in reports:
                each.wake()

        for each in reports:
            each.start()
        enter("loading")
        try:
            yield enter
        finally:
            for each in reports:
                each.stop()
            report()
            if metrics is not None:
                metrics.refresh()


class _Run:
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
        self._share = plan.share(run_options.index, run_options.indexes)
        self._progress = progress
        self._enter = enter

    def run(self, stop: Event) -> Summary:
        """Return what was done."""
        before = self._own(self._manifest.done())
        self._resume(before)
        left = [part for part in self._share if part.index not in before]
        busy_s = self._setup.runner.busy_s
        if left:
            self._manifest.clean(part.index for part in self._share)
            self._enter("running")
            self._run_parts(left, _totals(before)[1], stop)
        run_s, busy_s = self._progress.run_s, self._setup.runner.busy_s - busy_s
        is_complete = self._finish()
        notes = self._own(self._manifest.done())
        (rows, errors), (resumed_rows, resumed_errors) = _totals(notes), _totals(before)
        return Summary(
            rows=rows,
            errors=errors,
            resumed_rows=resumed_rows,
            resumed_errors=resumed_errors,
            parts=len(notes),
            total_parts=len(self._share),
            elapsed_s=self._progress.elapsed_s,
            run_s=run_s,
            rows_per_s=(rows + errors - resumed_rows - resumed_errors) / run_s if run_s else 0.0,
            busy_share=busy_s / (run_s * self._setup.runner.places) if run_s else 0.0,
            batches=self._progress.batches,
            has_finished=len(notes) == len(self._share),
            is_complete=is_complete,
            errors_file=self._manifest.errors_address(self._run_options.errors),
        )

    def _own(self, notes: Mapping[int, PartNote]) -> dict[int, PartNote]:
        return {part.index: notes[part.index] for part in self._share if part.index in notes}

    def _resume(self, before: Mapping[int, PartNote]) -> None:
        done = [part for part in self._share if part.index in before]
        self._progress.resume(
            total_rows=sum(part.rows for part in self._share),
            total_parts=len(self._share),
            rows=sum(part.rows for part in done),
            errors=_totals(before)[1],
            parts=len(done),
        )

    def _run_parts(self, parts: Sequence[Part], errors_before: int, stop: Event) -> None:
        setup, plan = self._setup, self._plan
        names = setup.sources.names
        files = PartFiles(
            self._manifest,
            open_writer(setup.output_format),
            setup.binding.output_schema,
            names,
            ErrorLimit(self._run_options.on_error, errors_before),
            self._progress,
        )
        runner = BlockRunner(setup.runner, setup.binding, plan.limits, names)
        with ExitStack() as stack:
            pipeline = stack.enter_context(Pipeline())
            # Before the threads are waited for: nothing else ends a run that takes long.
            stack.callback(setup.runner.close)
            blocks = setup.sources.blocks(parts, setup.binding.read_schema, plan.block_rows)
            prepared = setup.block_preparation().prepared(pipeline.stage("read", blocks))
            finished = runner.finished(pipeline.stage("prepare", prepared))
            files.write(pipeline.stage("run", finished), stop)

    def _finish(self) -> bool:
        """Complete the job if all parts of all processes are done; return whether it is."""
        notes = self._manifest.done()
        if len(notes) < len(self._plan.parts):
            return False
        self._enter("finishing")
        if not self._manifest.is_complete:
            self._require_unchanged()
        rows, errors = _totals(notes)
        joined = partial(_joined, self._setup)
        # Another process may be at it, since its last part was done at the same time.
        with suppress(InUseError):
            self._manifest.finish(notes, {"rows": rows, "errors": errors}, joined, self._run_options.errors)
        return self._manifest.is_complete

    def _require_unchanged(self) -> None:
        """Raise `BatchError` if a file has changed: some answers may be of either content."""
        options = self._setup.options
        now = {file.address: file.version for file in find_sources(options.inputs, options.input_format)}
        for file in self._setup.sources.files:
            if now.get(file.address) != file.version:
                raise BatchError(f"{shown(file.address)} has changed while the job ran; --overwrite starts over")


def _totals(notes: Mapping[int, PartNote]) -> tuple[int, int]:
    """Return the rows with and without an answer."""
    return sum(note.rows for note in notes.values()), sum(note.errors for note in notes.values())


def _joined(setup: JobSetup, parts: Iterable[Callable[[], BinaryIO]], file: BinaryIO) -> None:
    join(setup.output_format, parts, file, setup.binding.output_schema)
