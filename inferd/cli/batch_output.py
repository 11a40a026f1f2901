"""Output of ``inferd batch``: progress on a terminal or as lines of JSON, previews, and the summary."""

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from threading import Event
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from inferd.batch.job import Preview
from inferd.batch.progress import ProgressSnapshot, Summary
from inferd.cli.log_warnings import warnings_to
from inferd.cli.output import json_number, print_json, print_table
from inferd.plain_text import clipped, escaped

#: Without a terminal, the seconds between two lines of progress; each phase has a line too.
_LINE_EVERY_S = 10.0

_STOPPING = "stopping after the part in hand; once more ends at once"

#: The most sizes of batches in a summary.
_SIZES = 3

#: Texts of phases.
_PHASES = {
    "loading": "loading the model",
    "counting": "counting rows",
    "measuring": "measuring batches",
    "running": "running",
    "finishing": "finishing",
}


class JobView:
    """Shows progress and warnings: a bar on a terminal, elsewhere lines of JSON. A context manager.

    Threads: one for `show`; any for `stop` and `warn`.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
            transient=True,
            # The summary is the command's output.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task(_PHASES["loading"], total=None, figures="")
        self._warnings = ExitStack()
        self._shown_phase = ""
        self._shown_at_s = 0.0

    def __enter__(self) -> Self:
        """Start the bar, and show warnings of the package ``inferd``."""
        self._warnings.enter_context(warnings_to(self.warn))
        if self._console.is_terminal:
            self._bar.start()
            # Else it stays hidden if a second signal ends the process.
            self._console.show_cursor()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar, and show no more warnings."""
        if self._console.is_terminal:
            self._bar.stop()
        self._warnings.close()

    def show(self, seen: ProgressSnapshot) -> None:
        """Show the progress."""
        if self._console.is_terminal:
            total = seen.total_rows if seen.phase == "running" else None
            self._bar.update(
                self._task,
                description=_PHASES[seen.phase],
                total=total,
                completed=seen.rows if total else 0,
                figures=_figures(seen) if seen.total_rows else "",
            )
        elif seen.phase != self._shown_phase or seen.elapsed_s - self._shown_at_s >= _LINE_EVERY_S:
            self._shown_phase, self._shown_at_s = seen.phase, seen.elapsed_s
            self._line(event="progress", **_rounded(seen))

    def stop(self, stop: Event) -> None:
        """Set ``stop``, and show that the job is stopping."""
        stop.set()
        self._say("stopping", _STOPPING)

    def warn(self, text: str) -> None:
        """Show a warning."""
        self._say("warning", text)

    def _say(self, event: str, text: str) -> None:
        if self._console.is_terminal:
            self._console.print(Text(f"{event}: {escaped(text)}" if event == "warning" else text))
        else:
            self._line(event=event, message=text)

    def _line(self, **fields: object) -> None:
        # In one write, unlike `print`: the lines of several threads must not mix.
        sys.stderr.write(f"{json.dumps(fields)}\n")
        sys.stderr.flush()


def print_preview(preview: Preview, *, as_json: bool) -> None:
    """Print the files, inputs, output columns and first rows of a job."""
    schema = [(field.name, str(field.type)) for field in preview.output_schema]
    rows = [_plain(row) for row in preview.table.to_pylist()]
    errors = [asdict(error) for error in preview.errors]
    if as_json:
        print_json(
            {
                "files": preview.files,
                "inputs": dict(preview.inputs),
                "columns": dict(schema),
                "rows": rows,
                "errors": errors,
            }
        )
        return
    print_fact("files", f"{preview.files:,}")
    print_table(["INPUT", "FROM"], list(preview.inputs.items()))
    print_table(["COLUMN", "TYPE"], schema)
    print_fact("rows", f"the first {len(rows) + len(errors)}; nothing is written")
    for row in rows:
        print(", ".join(f"{escaped(name)}: {escaped(clipped(_text(value)))}" for name, value in row.items()))
    for error in errors:
        print(escaped("{source}, row {row}: {code}: {message}".format(**error)))


def _plain(value: Any) -> Any:  # noqa: ANN401  (any value of a table)
    """Return ``value`` as a value of JSON, in the form of `inferd infer --json`."""
    match value:
        case dict():
            return {str(name): _plain(each) for name, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case bytes():
            return value.decode(errors="backslashreplace")
        case float():
            return json_number(value)
        case None | bool() | int() | str():
            return value
    # Dates and times, and decimals.
    return str(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def print_summary(summary: Summary, output: str) -> None:
    """Print the summary of a run."""
    print_fact("output", output if summary.is_complete else f"{output}, not complete yet")
    print_fact("rows", _rows_text(summary))
    if summary.errors and summary.is_complete:
        print_fact("errors", summary.errors_file)
    print_fact("parts", f"{summary.parts:,} of {summary.total_parts:,}")
    if not summary.batches:
        return
    print_fact("time", f"{duration(summary.elapsed_s)}, {duration(summary.run_s)} of it for rows")
    print_fact("rate", f"{summary.rows_per_s:,.0f} rows/s; the model ran {summary.busy_share:.0%} of that time")
    print_fact("batches", _batches_text(summary))


def print_fact(name: str, text: str) -> None:
    """Print a name and its value on a line."""
    print(f"{name:<9} {escaped(text)}")


def duration(seconds: float) -> str:
    """Format ``seconds``: 4.2 s, 3:07 min or 1:05 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    if minutes < 60:
        return f"{minutes}:{round(seconds) % 60:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def _rows_text(summary: Summary) -> str:
    text = f"{summary.rows:,} with an answer, {summary.errors:,} without"
    before = summary.resumed_rows + summary.resumed_errors
    return f"{text}; {before:,} of them by earlier runs" if before else text


def _batches_text(summary: Summary) -> str:
    """Format the most frequent sizes of batches."""
    by_count = sorted(summary.batches.items(), key=lambda each: (-each[1], -each[0]))
    shown = [f"{count:,} of {rows:,} {'row' if rows == 1 else 'rows'}" for rows, count in by_count[:_SIZES]]
    others = sum(count for _, count in by_count[_SIZES:])
    return ", ".join(shown) + (f", {others:,} of other sizes" if others else "")


def _figures(seen: ProgressSnapshot) -> str:
    parts = [f"{seen.rows:,} of {seen.total_rows:,} rows", f"{seen.rows_per_s:,.0f}/s"]
    if seen.errors:
        parts.append(f"{seen.errors:,} errors")
    if seen.left_s is not None:
        parts.append(f"{duration(seen.left_s)} left")
    return "  ".join(parts)


def _rounded(seen: ProgressSnapshot) -> dict[str, object]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(seen).items()}
