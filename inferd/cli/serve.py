"""``inferd serve``."""

import inferd.core_environment  # noqa: F401  grpc is to find it when it is first imported, below

# isort: split

import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated

import typer

from inferd import demo
from inferd.app import Application
from inferd.cli.assignments import parse_assignments
from inferd.cli.failures import CommandError, ExitCode
from inferd.cli.proposals import proposed_calls
from inferd.cli.signals import heed_signals
from inferd.config.loading import has_config_file, load_settings
from inferd.config.logging import LogFormat, LogSettings
from inferd.config.settings import Settings
from inferd.config.validation import SettingsError
from inferd.machine_limits import fit, this_machine
from inferd.models.repository import RepositoryError, resolve
from inferd.security.files import BadFileError

_log = logging.getLogger(__name__)

EXAMPLES = (
    "inferd serve",
    "inferd serve model.onnx --grpc-port 9000",
    "inferd serve models/ --host 0.0.0.0 --set queue.policy=shed_oldest",
)

#: Objects made and not freed again before the garbage collector looks at the youngest; Python's default is 700.
_OBJECTS_PER_COLLECTION = 10_000


def serve(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="An .onnx file, a directory with one, or a repository NAME/VERSION/model.onnx. "
            "Left out: the built-in model, handwritten digits.",
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port for gRPC, 0 for a free one.", show_default="8001")] = None,
    http_port: Annotated[
        int | None, typer.Option(help="Port for metrics and probes, 0 for a free one.", show_default="8002")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file with settings.", show_default=False)] = None,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="How log lines look; auto is human on a terminal.", show_default="auto")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting, such as batching.max_wait_ms=2."),
    ] = None,
) -> None:
    """Serve ONNX models over gRPC.

    Settings come from flags, then INFERD_… environment variables, then the file,
    then defaults; `inferd config` shows what they come to.

    SIGTERM and SIGINT finish what was admitted and exit 0, or 1 if the grace ran
    out; a second signal ends at once. With a settings file, SIGHUP reads the
    levels of the log and log.access from it again.
    """
    flags = {
        "server.host": host,
        "server.grpc_port": grpc_port,
        "server.http_port": http_port,
        "log.format": log_format,
        "models": [str(path) for path in paths] if paths else None,
        **parse_assignments(settings or ()),
    }

    def load() -> Settings:
        return _with_log_format(load_settings(config_file=config, flags=flags))

    try:
        effective = load()
        demonstrating = not effective.models
        passed_over: list[str] = []
        sources = resolve([demo.repository()] if demonstrating else effective.models, passed_over.append)
    except (SettingsError, RepositoryError) as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    examples = partial(proposed_calls, effective.security, demonstrating=demonstrating)
    fitted = fit(effective, this_machine(), len(sources))
    app = Application(
        fitted.settings,
        sources,
        passed_over=passed_over,
        lowered=fitted.lowered,
        http_connections=fitted.http_connections,
    )
    on_hangup = partial(_change_log, app, load) if has_config_file(config) else None
    status = run(app, examples, on_hangup)
    # Everything has been ended in its order and the log is written. A load or a run that was given up may still be
    # inside ONNX Runtime, though, which aborts the process when the interpreter ends that thread on its way out.
    os._exit(status)


def run(app: Application, examples: Callable[[str], Sequence[str]], on_hangup: Callable[[], None] | None = None) -> int:
    """Serve until a signal comes or nothing can be served; return the exit status."""
    events: SimpleQueue[str] = SimpleQueue()
    heed_signals(events, on_hangup=on_hangup)
    try:
        app.start()
    except BadFileError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    except (OSError, RuntimeError) as error:
        raise CommandError(str(error)) from error
    app.load(on_loaded=lambda: events.put("loaded"))
    nothing_to_serve = False
    if events.get() == "loaded":
        _spare_garbage_collector()
        nothing_to_serve = not app.open(examples)
        if not nothing_to_serve:
            events.get()
    finished = app.drain()
    return ExitCode.FAILED if nothing_to_serve or not finished else ExitCode.OK


def _spare_garbage_collector() -> None:
    """Leave what start-up has made out of every later collection, and collect less often.

    Requests make many objects and next to no cycles; the default would look for cycles every few dozen requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_PER_COLLECTION)


def _change_log(app: Application, load: Callable[[], Settings]) -> None:
    """Read the settings of the log again; in the thread of the signals."""
    try:
        log = load().log
    except SettingsError as error:
        _log.error("the configuration was read again and is refused", extra={"reason": str(error)})
        return
    app.change_log(log)
    facts = {"level": log.level, "levels": log.levels, "access": log.access}
    _log.info("the configuration was read again for the log", extra=facts)


def _with_log_format(settings: Settings) -> Settings:
    """Decide what ``auto`` means for the place that the log goes to."""
    if settings.log.format is not LogFormat.AUTO:
        return settings
    style = LogFormat.HUMAN if sys.stdout.isatty() else LogFormat.JSON
    log: LogSettings = settings.log.model_copy(update={"format": style})
    return settings.model_copy(update={"log": log})
