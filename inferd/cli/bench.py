"""``inferd bench``: a load for any server of the Open Inference Protocol, and its report."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from inferd.bench import arguments, compare, html
from inferd.bench.inputs import InputsError, InputSource
from inferd.bench.loads import ClosedLoop, Load, OpenLoop, Trace, parse_trace
from inferd.bench.plan import Plan
from inferd.bench.report import Report, load_text, write
from inferd.bench.session import Session
from inferd.bench.stored import read
from inferd.bench.traffic import TrafficClass
from inferd.bench.workers import WorkerError
from inferd.cli.bench_output import LiveView, print_differences, print_report
from inferd.cli.connection import Connection, call_errors, usage_errors, with_connection
from inferd.cli.failures import CommandError, ExitCode, UsageError
from inferd.cli.output import print_json
from inferd.endpoint import Endpoint
from inferd.plain_text import escaped
from inferd.small_files import read_text

EXAMPLES = (
    "inferd bench 127.0.0.1:8001 digits",
    "inferd bench 127.0.0.1:8001 digits --concurrency 1:256:x2 --save digits.html",
    "inferd bench 127.0.0.1:8001 digits --rate 500 --to-saturation --objective 20",
    "inferd bench 127.0.0.1:8001 bert --shape ids:128 --mix weight=9,rows=1 --mix weight=1,rows=32,priority=2",
    "inferd bench --compare before.json after.json",
)

_DEFAULT_CONCURRENCY = 16
_DEFAULT_DURATION_S = 10.0
_TRACE_MARGIN_S = 0.001
_LONGEST_S = 1e6
_LARGEST_TRACE_BYTES = 256 * 1024 * 1024


_load = partial(typer.Option, rich_help_panel="Load")
_requests = partial(typer.Option, rich_help_panel="Requests")
_results = partial(typer.Option, rich_help_panel="Results")


@with_connection(
    timeout_help="Deadline of each request, from when it was meant to be sent; retries included.", address_argument=True
)
def bench(
    connection: Connection,
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)] = "",
    concurrency: Annotated[
        str | None,
        _load(
            metavar="LEVELS",
            help="Closed loop: requests in flight. N, a list A,B,C, FIRST:LAST:STEP or FIRST:LAST:xFACTOR. "
            f"Defaults to {_DEFAULT_CONCURRENCY}.",
        ),
    ] = None,
    rate: Annotated[
        str | None, _load(metavar="LEVELS", help="Open loop: requests a second, in the same forms.")
    ] = None,
    arrivals: Annotated[
        Literal["poisson", "constant"], _load(help="How an open loop spreads its requests.")
    ] = "poisson",
    trace: Annotated[
        Path | None,
        _load(metavar="FILE.csv", help="Open loop: send at the times of a file with SECONDS[,ROWS] in each line."),
    ] = None,
    to_saturation: Annotated[
        bool, _load("--to-saturation", help="Double the load from the given level until the server is saturated.")
    ] = False,
    duration_s: Annotated[
        float | None,
        _load(
            "--duration",
            min=0.1,
            max=_LONGEST_S,
            metavar="SECONDS",
            help="Measured time of each step. Defaults to 10, or the whole trace.",
        ),
    ] = None,
    warmup_s: Annotated[
        float, _load("--warmup", min=0, max=_LONGEST_S, metavar="SECONDS", help="Load before the measured time.")
    ] = 2.0,
    retries: Annotated[
        int,
        _load(min=0, metavar="N", help="Send a refused request again, at most N times, when the server's hint says."),
    ] = 0,
    processes: Annotated[int, _load(min=1, max=64, help="Processes that send the load.")] = 1,
    connections: Annotated[int, _load(min=1, max=256, help="Connections of each process.")] = 4,
    rows: Annotated[int, _requests(min=1, help="Rows of each request.")] = 1,
    shape: Annotated[
        list[str] | None,
        _requests(
            metavar="NAME:SIZES", help="Sizes of an input's dimensions without the rows, such as ids:128. Repeatable."
        ),
    ] = None,
    input_file: Annotated[
        Path | None,
        _requests(
            "--input",
            "-i",
            metavar="FILE",
            help="Send the recorded requests of FILE.json or FILE.npz in turn, instead of random ones.",
        ),
    ] = None,
    version: Annotated[str, _requests("--model-version", metavar="VERSION", help="Version of the model.")] = "",
    priority: Annotated[int, _requests(min=0, help="Priority of each request; 0 leaves it to the server.")] = 0,
    principal: Annotated[
        list[str] | None,
        _requests(metavar="NAME=FILE", help="A principal for --mix, and the file with its token. Repeatable."),
    ] = None,
    mix: Annotated[
        list[str] | None,
        _requests(
            metavar="KEY=VALUE,…",
            help="A class of traffic, with keys name, weight, model, version, rows, priority, principal and timeout; "
            "the other options hold for what is left out. Repeatable.",
        ),
    ] = None,
    seed: Annotated[int, _requests(min=0, help="Of all that is random.")] = 0,
    objective_ms: Annotated[
        float | None,
        _results("--objective", min=0.001, metavar="MS", help="Goodput counts the OK answers within MS milliseconds."),
    ] = None,
    check: Annotated[
        bool,
        _results("--check", help="Compare each answer with that of the same request asked alone, before the load."),
    ] = False,
    tolerance: Annotated[float, _results(min=0, help="Of --check, relative and absolute.")] = 1e-3,
    save: Annotated[
        list[Path] | None,
        _results(metavar="FILE", help="Write the report to FILE.json or, with charts, to FILE.html. Repeatable."),
    ] = None,
    as_json: Annotated[bool, _results("--json", help="Print the report as JSON.")] = False,
    compared: Annotated[
        tuple[Path, Path] | None,
        _results("--compare", metavar="A.json B.json", help="Print the differences of two reports instead."),
    ] = None,
) -> None:
    """Put MODEL on the server at ADDRESS under load, and report its throughput, latencies and errors.

    Works with any server of the Open Inference Protocol over gRPC. In an open loop latency counts from when a request
    was meant to be sent.
    """
    if compared is not None:
        _compare(*compared)
        return
    with usage_errors():
        _require_arguments(connection.address, model, save or ())
        loads = _loads(concurrency, rate, arrivals, trace, duration_s, to_saturation=to_saturation)
        default = TrafficClass(
            name="requests", model=model, version=version, rows=rows, priority=priority, timeout_s=connection.timeout_s
        )
        plan = Plan(
            principals=_principals(connection, principal or []),
            classes=arguments.mix(mix or [], default),
            loads=loads,
            to_saturation=to_saturation,
            duration_s=_duration(loads, duration_s),
            warmup_s=warmup_s,
            retries=retries,
            objective_ms=objective_ms,
            inputs=InputSource(sizes=arguments.shapes(shape or []), file=input_file),
            tolerance=tolerance if check else None,
            processes=processes,
            connections=connections,
            seed=seed,
        )
    report = _run(plan)
    if as_json:
        print_json(report)
    else:
        print_report(report)
    for path in save or ():
        _save(report, path)
        if not as_json:
            print(f"saved to {path}")
    last = report["steps"][-1]
    if last["outage"]:
        text = f"{load_text(last['load'])}: {escaped(last['outage']['text'])}"
        raise CommandError(f"{connection.address}: {text}; this is no saturation, and the run ends")
    if report["interrupted"]:
        raise typer.Exit(ExitCode.INTERRUPTED)


def _run(plan: Plan) -> Report:
    # Beside the results, which may go to a file.
    with LiveView(Console(stderr=True)) as view, call_errors():
        try:
            return Session(plan, view.show).run()
        except InputsError as error:
            raise UsageError(str(error)) from None
        except WorkerError as error:
            raise CommandError(str(error)) from None


def _loads(
    concurrency: str | None,
    rate: str | None,
    process: Literal["poisson", "constant"],
    trace: Path | None,
    duration_s: float | None,
    *,
    to_saturation: bool,
) -> tuple[Load, ...]:
    given = [name for name, value in (("--concurrency", concurrency), ("--rate", rate), ("--trace", trace)) if value]
    if len(given) > 1:
        raise ValueError(f"expected one of --concurrency, --rate and --trace, got {' and '.join(given)}")
    loads: tuple[Load, ...]
    if trace is not None:
        loads = (_trace(trace, duration_s),)
    elif rate is not None:
        loads = tuple(OpenLoop(rate_per_s=level, process=process) for level in arguments.rates(rate))
    else:
        levels = arguments.concurrencies(concurrency or str(_DEFAULT_CONCURRENCY))
        loads = tuple(ClosedLoop(concurrency=level) for level in levels)
    if to_saturation and (trace is not None or len(loads) > 1):
        msg = "--to-saturation: expected one level of --concurrency or --rate to start from"
        raise ValueError(msg)
    return loads


def _trace(path: Path, duration_s: float | None) -> Trace:
    try:
        trace = parse_trace(read_text(path, _LARGEST_TRACE_BYTES).splitlines())
    except ValueError as error:
        raise ValueError(f"--trace {path}: {error}") from None
    return trace if duration_s is None else trace.until(duration_s)


def _duration(loads: tuple[Load, ...], duration_s: float | None) -> float:
    if duration_s is not None:
        return duration_s
    # The last request of a trace belongs to it.
    return loads[0].duration_s + _TRACE_MARGIN_S if isinstance(loads[0], Trace) else _DEFAULT_DURATION_S


def _require_arguments(address: str, model: str, save: Sequence[Path]) -> None:
    for name, value in (("ADDRESS", address), ("MODEL", model)):
        if not value:
            raise ValueError(f"{name}: expected one, got none")
    for path in save:
        if path.suffix not in {".json", ".html"}:
            raise ValueError(f"--save {path}: expected a file .json or .html")
        if not path.parent.is_dir():
            raise ValueError(f"--save {path}: expected a directory that exists, got {path.parent}")


def _principals(connection: Connection, texts: Sequence[str]) -> dict[str, Endpoint]:
    default = Endpoint(
        address=connection.address,
        tls=connection.tls,
        token=connection.token,
        allow_insecure_token=connection.allow_insecure_token,
    )
    named = arguments.principals(texts)
    return {"": default} | {name: replace(default, token=read_text(Path(file)).strip()) for name, file in named.items()}


def _save(report: Report, path: Path) -> None:
    try:
        if path.suffix == ".json":
            write(report, path)
        else:
            path.write_text(html.page(report), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {error.strerror}") from None


def _compare(first: Path, second: Path) -> None:
    with usage_errors():
        before, after = read(first), read(second)
    print_differences(list(compare.differences(before, after)))
    for text in compare.unmatched(before, after):
        print(f"only in one of them: {text}")
    for text in compare.different_settings(before, after):
        print(f"different settings: {text}")
