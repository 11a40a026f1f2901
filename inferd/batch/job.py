"""Run a job, from its options to its summary."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Event

import pyarrow as pa

from inferd.batch.begun_parts import MEASURING, may_measure
from inferd.batch.blocks import BatchLimits
from inferd.batch.errors import RowError, UsageError
from inferd.batch.manifest import Manifest, manifest_of
from inferd.batch.metrics_file import MetricsFile
from inferd.batch.options import JobOptions, RunOptions
from inferd.batch.plan import Plan
from inferd.batch.planning import Planner, RememberedSizes
from inferd.batch.progress import Phase, Progress, ProgressSnapshot, Summary
from inferd.batch.running import BlockRunner
from inferd.batch.setup import JobSetup, describe_inputs, open_setup
from inferd.batch.share import Share
from inferd.batch.writing import suffix_of
from inferd.config.settings import Settings
from inferd.endpoint import Endpoint
from inferd.periodic_thread import PeriodicThread

#: Seconds between two reports of the progress, and between two writes of the metrics file.
_REPORT_S, _METRICS_S = 1.0, 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What ``--dry-run`` shows: the source of each input, and the answers (``table``) and errors of the first rows."""

    files: int
    inputs: Mapping[str, str]
    output_schema: pa.Schema
    table: pa.RecordBatch
    errors: Sequence[RowError]


class Job:
    """One process of a job. ``endpoint`` is the server to run on; None runs in this process, with ``settings``.

    Threads: one, which calls `run` or `preview` once. ``on_progress`` is called about once a second by a thread of the
    job, and a last time by the caller's.
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
            [answers] = runner.run(iter([block]))
            return Preview(
                files=len(setup.sources.files),
                inputs=describe_inputs(setup),
                output_schema=setup.binding.output_schema,
                table=answers.table,
                errors=answers.errors,
            )

    def run(self, stop: Event) -> Summary:
        """Run the parts of this process' share that are not done. After ``stop`` is set, begin no further part.

        Raises `UsageError` and `BatchError`; the same job run again continues.
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
            make_plan = partial(self._make_plan, manifest, self._planner(setup, enter))
            plan = manifest.find_or_create(setup.identity, make_plan)
            return Share(self._run_options, setup, manifest, plan, self._progress, enter).run(stop)

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
            remembered=RememberedSizes(self._settings.runtime.verdict_cache, setup.identity.without_files),
        )

    def _make_plan(self, manifest: Manifest, planner: Planner) -> Plan:
        begun = manifest.begun(self._run_options.index)
        can_measure = may_measure(begun)
        with begun.running():
            begun.begin(MEASURING)
            return planner.plan(may_measure=can_measure)

    @contextmanager
    def _reported(self) -> Iterator[Callable[[Phase], None]]:
        """Context that reports the progress in threads. Yields the function that begins a phase."""

        def report() -> None:
            self._on_progress(self._progress.snapshot())

        reports = [PeriodicThread("inferd-batch-progress", period_s=_REPORT_S, action=report)]
        path = self._run_options.metrics_file
        metrics = None if path is None else MetricsFile(path, self._run_options.index, self._progress.snapshot)
        if metrics is not None:
            # A file that cannot be written is an error before the job, and only a warning while it runs.
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
