"""``inferd serve``."""

import os

# Read by grpc when it is first imported. This process never forks, and readiness for it costs locks on every call.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# Have the thread that waits for events read from the sockets itself. Otherwise threads of gRPC's own do, which hand
# each event over: docs/decisions/rpc-one-thread-reads.md has the figures.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")

import gc
import resource
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Annotated

import typer
import yaml

from inferd import demo
from inferd.app import Application
from inferd.cli.failures import CommandError, ExitCode
from inferd.cli.proposals import proposed_calls
from inferd.config.loading import load_settings
from inferd.config.settings import LogFormat, LogSettings, Settings
from inferd.config.validation import SettingsError
from inferd.models.repository import RepositoryError, resolve
from inferd.security.files import BadFileError

EXAMPLES = (
    "inferd serve",
    "inferd serve model.onnx --grpc-port 9000",
    "inferd serve models/ --host 0.0.0.0 --set queue.policy=shed_oldest",
)

#: By convention the exit status of a process that a signal ended is this much above the signal's number.
_SIGNAL_BASE = 128

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
    out; a second signal ends at once.
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
        demonstrating = not effective.models
        sources = resolve([demo.repository()] if demonstrating else effective.models)
    except (SettingsError, RepositoryError) as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    examples = partial(proposed_calls, effective.security, demonstrating=demonstrating)
    status = run(Application(effective, sources), examples)
    # Everything has been ended in its order and the log is written. A load or a run that was given up may still be
    # inside ONNX Runtime, though, which aborts the process when the interpreter ends that thread on its way out.
    os._exit(status)


def run(app: Application, examples: Callable[[str], Sequence[str]]) -> int:
    """Serve until a signal comes or nothing can be served; return the exit status."""
    events: SimpleQueue[str] = SimpleQueue()
    _on_signal(events)
    _allow_many_connections()
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


def _allow_many_connections() -> None:
    """Raise the soft limit of open files: many systems set it to fewer than server.connections.max_open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _spare_garbage_collector() -> None:
    """Leave what start-up has made out of every later collection, and collect less often.

    Requests make many objects and next to no cycles; the default would look for cycles every few dozen requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_PER_COLLECTION)


def _on_signal(events: SimpleQueue[str]) -> None:
    """Have the first signal end the server in good order and the second one at once.

    The kernel may give a signal to any thread, for example to one of gRPC's that is starting another. Python's handlers
    run in the main thread only, and nothing wakes it then: under load, one SIGTERM in some hundreds was not heeded. The
    byte that Python's own C handler writes, in whichever thread, always arrives.
    """
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    signal.signal(signal.SIGTERM, _left_to_the_thread)
    signal.signal(signal.SIGINT, _left_to_the_thread)
    threading.Thread(target=_heed_signals, args=(readable, events), name="signals", daemon=True).start()


def _left_to_the_thread(_number: int, _frame: FrameType | None) -> None:
    pass


def _heed_signals(readable: int, events: SimpleQueue[str]) -> None:
    os.read(readable, 1)
    events.put("stop")
    (number,) = os.read(readable, 1)
    os._exit(_SIGNAL_BASE + number)


def _parse_settings(assignments: Sequence[str]) -> dict[str, object]:
    flags: dict[str, object] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise CommandError(f"--set: expected NAME=VALUE, got {assignment!r}", ExitCode.USAGE)
        try:
            flags[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise CommandError(f"--set {name}: expected a YAML value, got {value!r}", ExitCode.USAGE) from error
    return flags


def _with_log_format(settings: Settings) -> Settings:
    """Decide what ``auto`` means for the place that the log goes to."""
    if settings.log.format is not LogFormat.AUTO:
        return settings
    style = LogFormat.HUMAN if sys.stdout.isatty() else LogFormat.JSON
    log: LogSettings = settings.log.model_copy(update={"format": style})
    return settings.model_copy(update={"log": log})
