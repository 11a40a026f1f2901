"""``inferd serve``."""

import os

# Read by grpc when it is first imported. This process never forks, and readiness for it costs locks on every call.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Annotated, NoReturn

import typer
import yaml

from inferd import demo
from inferd.app import Application
from inferd.config.loading import load_settings
from inferd.config.settings import LogFormat, LogSettings, Settings
from inferd.config.validation import SettingsError
from inferd.models.repository import RepositoryError, resolve

_FAILED = 1
_USAGE_ERROR = 2
#: By convention the exit status of a process that a signal ended is this much above the signal's number.
_SIGNAL_BASE = 128


def serve(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="An .onnx file, a directory with one, or a repository NAME/VERSION/model.onnx. "
            "Left out: the built-in model, handwritten digits.",
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port for gRPC, 0 for a free one.  [default: 8001]")] = None,
    http_port: Annotated[
        int | None, typer.Option(help="Port for metrics and probes, 0 for a free one.  [default: 8002]")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file with settings.", show_default=False)] = None,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="How log lines look.  [default: human on a terminal, else json]")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting, such as batching.max_wait_ms=2."),
    ] = None,
) -> None:
    """Serve ONNX models over gRPC.

    Settings come from flags, then INFERD_… environment variables, then the file, then defaults; `inferd config` shows
    what they come to. SIGTERM and SIGINT finish what was admitted and exit 0 (1 if the grace cut something off); a
    second signal ends at once.

    Examples:

      inferd serve

      inferd serve model.onnx --grpc-port 9000

      inferd serve models/ --host 0.0.0.0 --set queue.policy=shed_oldest
    """
    flags = {
        "server.host": host,
        "server.grpc_port": grpc_port,
        "server.http_port": http_port,
        "log.format": log_format,
        "models": [str(path) for path in paths] if paths else None,
        **_parse_settings(settings or ()),
    }
    try:
        effective = _with_log_format(load_settings(config_file=config, flags=flags))
        sources = resolve(effective.models or [demo.repository()])
    except (SettingsError, RepositoryError) as error:
        _fail(str(error), _USAGE_ERROR)
    raise typer.Exit(run(Application(effective, sources)))


def run(app: Application) -> int:
    """Serve until a signal comes or nothing can be served; return the exit status."""
    # SimpleQueue because putting into it is safe in a signal handler, whatever the main thread was doing.
    events: SimpleQueue[str] = SimpleQueue()
    _on_signal(events)
    try:
        app.start()
    except OSError as error:
        _fail(str(error), _FAILED)
    app.load(on_loaded=lambda: events.put("loaded"))
    nothing_to_serve = False
    if events.get() == "loaded":
        nothing_to_serve = not app.open()
        if not nothing_to_serve:
            events.get()
    finished = app.drain()
    return _FAILED if nothing_to_serve or not finished else 0


def _on_signal(events: SimpleQueue[str]) -> None:
    """Have the first signal end the server in good order and the second one at once."""
    received = 0

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received > 1:
            os._exit(_SIGNAL_BASE + number)
        events.put("stop")

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def _parse_settings(assignments: Sequence[str]) -> dict[str, object]:
    flags: dict[str, object] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            _fail(f"--set: expected NAME=VALUE, got {assignment!r}", _USAGE_ERROR)
        try:
            flags[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            _fail(f"--set {name}: expected a YAML value, got {value!r}", _USAGE_ERROR)
    return flags


def _with_log_format(settings: Settings) -> Settings:
    """Decide what ``auto`` means for the place that the log goes to."""
    if settings.log.format is not LogFormat.AUTO:
        return settings
    style = LogFormat.HUMAN if sys.stdout.isatty() else LogFormat.JSON
    log: LogSettings = settings.log.model_copy(update={"format": style})
    return settings.model_copy(update={"log": log})


def _fail(message: str, status: int) -> NoReturn:
    sys.stderr.write(f"inferd serve: {message}\n")
    raise typer.Exit(status)
