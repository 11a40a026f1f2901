"""One line for each RPC."""

import logging
import time
from collections.abc import Callable, Sequence

from inferd import request_id
from inferd.config.logging import LogFormat, LogSettings
from inferd.observability.access_lines import LONGEST_TEXT, human_lines, json_lines
from inferd.observability.calls import Call, StreamResult
from inferd.observability.line_writer import LineWriter
from inferd.observability.recorder import CallRecorder, EndedCall
from inferd.observability.rendering import Fields, utc
from inferd.plain_text import clipped


class AccessLog:
    """Has lines written about the calls that end; at debug level, about each result of a stream, too.

    Threads: ``change`` any; the recorder shows the calls, and whoever settles a result tells of it.
    """

    def __init__(
        self,
        settings: LogSettings,
        recorder: CallRecorder,
        writer: LineWriter,
        render: Callable[[Fields], bytes],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._recorder = recorder
        self._writer = writer
        self._render = render
        self._lines = json_lines if settings.format is LogFormat.JSON else human_lines(render)
        self._clock = clock
        self._wall_clock = wall_clock
        self.change(settings)
        recorder.add(self._calls_ended)

    def change(self, settings: LogSettings) -> None:
        """Take over whether there are access lines, and of which level, for what ends from now on."""
        self._recorder.flush()
        level = logging.getLevelNamesMapping()[settings.level.upper()]
        self._threshold = level if settings.access else None
        tells_results = settings.access and level <= logging.DEBUG
        self._recorder.result_listener = self._stream_result if tells_results else None

    def _calls_ended(self, calls: Sequence[EndedCall]) -> None:
        threshold = self._threshold
        if threshold is None:
            return
        epoch_s = self._wall_clock() - self._clock()
        if lines := self._lines(calls, epoch_s, threshold):
            self._writer.submit(lines)

    def _stream_result(self, call: Call, result: StreamResult) -> None:
        """Have a line written about one result of a stream."""
        line: Fields = {"time": utc(self._wall_clock()), "level": "debug", "event": "stream_result"}
        line |= {"stream_id": request_id.of(call.facts), "method": clipped(call.method, LONGEST_TEXT)}
        line |= {"id": request_id.cleaned(result.request_id), "status": result.status}
        if result.model:
            line |= {"model": result.model, "version": result.version}
        stages = result.stages
        if stages.batch is not None and stages.queue_s is not None:
            line |= {"queue_s": stages.queue_s, "run_s": stages.batch.run_s, "batch_rows": stages.batch.rows}
        if result.error:
            line["error"] = clipped(result.error, LONGEST_TEXT)
        self._writer.submit(self._render(line))
