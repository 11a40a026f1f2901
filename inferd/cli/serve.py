"""``inferd serve``."""

import inferd.core_environment  # noqa: F401  sets what grpc reads when it is first imported, below

# isort: split

import gc
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated

import typer

from inferd import demo
from inferd.app.application import Application
from inferd.app.machine_limits import detect_machine, fit_settings
from inferd.cli.config import parse_assignments
from inferd.cli.failures import CommandError, ExitCode, UsageError
from inferd.cli.signals import install_signal_handlers
from inferd.cli.tritonserver import parse_bool
from inferd.config.loading import has_config_file, load_settings
from inferd.config.logging import LogFormat, LogSettings
from inferd.config.repository import ModelControl, RequiredModels
from inferd.config.security import ClientCertificates, SecuritySettings
from inferd.config.settings import Settings
from inferd.config.validation import SettingsError
from inferd.models.model_directory import RepositoryError
from inferd.models.model_source import ModelSource
from inferd.models.remote import RemoteRepositories
from inferd.models.repository import RemoteSources, no_remote, resolve, split_name
from inferd.runtime.mapped_memory import share_one_heap
from inferd.security.files import BadFileError

_log = logging.getLogger(__name__)

EXAMPLES = (
    "inferd serve",
    "inferd serve model.onnx --grpc-port 9000",
    "inferd serve models/ --host 0.0.0.0 --set queue.policy=shed_oldest",
    "inferd serve --model-repository models/ --model-control-mode explicit --load-model digits",
)

#: Readiness by ``--strict-readiness``.
_READINESS = {True: RequiredModels.ALL, False: RequiredModels.ANY}

#: Threshold of the youngest generation of the garbage collector; Python's default is 700.
_OBJECTS_PER_COLLECTION = 10_000

#: Where to call a server that listens on all interfaces, by an address that certificates can name.
_WILDCARD_TARGETS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  nothing listens there


def serve(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="An .onnx file, a directory with one, or a repository NAME/VERSION/model.onnx; a path or an address "
            "such as s3://bucket/models. "
            "Defaults to the built-in model of handwritten digits.",
        ),
    ] = None,
    model_repository: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="The same as a positional path. Repeatable.", show_default=False),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="A model under another name than its path has. Repeatable."),
    ] = None,
    model_control_mode: Annotated[
        ModelControl | None, typer.Option(help="Who loads and unloads models.", show_default="none")
    ] = None,
    load_model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help='With explicit: a model to load at start; "*" is all. Repeatable.'),
    ] = None,
    repository_poll_secs: Annotated[
        float | None, typer.Option(help="With poll: seconds between two looks at the repositories.", show_default="15")
    ] = None,
    model_config_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Read configs/NAME.pbtxt of a model in place of config.pbtxt.")
    ] = None,
    strict_readiness: Annotated[
        str | None, typer.Option(metavar="BOOL", help="Be ready only once every model is.", show_default="false")
    ] = None,
    exit_on_error: Annotated[
        str | None,
        typer.Option(metavar="BOOL", help="Exit if a model fails to load at start.", show_default="false"),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port of gRPC, 0 for a free one.", show_default="8001")] = None,
    http_port: Annotated[
        str | None,
        typer.Option(metavar="PORT|none", help="Port of HTTP, 0 for a free one, none: off.", show_default="8000"),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of metrics and probes, 0 for a free one.", show_default="8002")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file in YAML.", show_default=False)] = None,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="Format of log lines; auto is human on a terminal.", show_default="auto")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any other setting, such as batching.max_wait_ms=2. Repeatable."
        ),
    ] = None,
) -> None:
    """Serve ONNX models over gRPC and HTTP.

    Flags take precedence over INFERD_… environment variables, then the settings
    file, then defaults; `inferd config` prints the result.

    SIGTERM and SIGINT finish the admitted requests and exit 0, or 1 if the grace
    period expired; a second signal exits at once. With a settings file, SIGHUP
    reloads the levels of the log and log.access.

    tritonserver's flags for models and ports have the same names here.
    """
    is_strict = parse_bool("--strict-readiness", strict_readiness)
    own = {
        "server.host": host,
        "server.grpc_port": grpc_port,
        "server.http_port": http_port,
        "server.metrics_port": metrics_port,
        "log.format": log_format,
        "models": _models(paths, model_repository, model) or None,
        "repository.mode": model_control_mode,
        "repository.load": load_model or None,
        "repository.poll_interval_s": repository_poll_secs,
        "repository.config_name": model_config_name,
        "repository.readiness": None if is_strict is None else _READINESS[is_strict],
        "repository.exit_on_error": parse_bool("--exit-on-error", exit_on_error),
    }
    given = {name: value for name, value in own.items() if value is not None}
    flags = {**given, **parse_assignments(settings or ())}

    share_one_heap()
    load = partial(_load, config, flags)
    app, examples = _build(load)
    status = run(app, examples, partial(_reload_log_settings, app, load) if has_config_file(config) else None)
    # Shutdown is complete and the log is flushed. A load or run that was abandoned may still be inside ONNX Runtime,
    # which would abort the process when the interpreter ends that thread at exit.
    os._exit(status)


def _models(*given: Sequence[str] | None) -> list[str]:
    """Return the paths of all flags. Raises `CommandError` for a ``--model`` that is no NAME=PATH."""
    *paths, named = given
    for each in named or ():
        name, separator, path = each.partition("=")
        if not (name and separator and path):
            raise UsageError(f"--model: expected NAME=PATH, got {each!r}")
    return [each for several in (*paths, named) for each in several or ()]


def _load(config: Path | None, flags: Mapping[str, object]) -> Settings:
    return _with_log_format(load_settings(config_file=config, flags=flags))


def _build(load: Callable[[], Settings]) -> tuple[Application, Callable[[str], Sequence[str]]]:
    """Return the server, and a function that returns example commands for its address.

    Raises `CommandError` for invalid settings and for paths without a model.
    """
    skipped: list[str] = []
    try:
        settings = load()
        is_demo = not settings.models
        remote = _remote(settings)
        sources = find_models(settings, skipped, no_remote if remote is None else remote.sources)
    except (SettingsError, RepositoryError) as error:
        raise UsageError(str(error)) from error
    fitted = fit_settings(settings, detect_machine(), len(sources))
    app = Application(
        fitted.settings,
        sources,
        skipped=skipped,
        remote=remote,
        lowered=fitted.lowered,
        metrics_connections=fitted.metrics_connections,
    )
    return app, partial(example_commands, settings.security, is_demo=is_demo)


def _remote(settings: Settings) -> RemoteRepositories | None:
    """Return what reads remote storage; None if no model is there. Raises `RepositoryError`."""
    if all(isinstance(path, Path) for path in settings.models):
        return None
    remote = RemoteRepositories(settings.remote, settings.repository.config_name)
    remote.start()
    return remote


def find_models(settings: Settings, skipped: list[str], remote: RemoteSources = no_remote) -> list[ModelSource]:
    """Return the models of the start. Raises `RepositoryError`, but not for directories to which models may come.

    To remote storage that cannot be listed now, they may come as well.
    """
    search = partial(resolve, warn=skipped.append, config_name=settings.repository.config_name, remote=remote)
    if not settings.models or settings.repository.mode is ModelControl.NONE:
        return search(settings.models or [demo.repository()])
    sources: dict[tuple[str, str], ModelSource] = {}
    for path in settings.models:
        try:
            found = search([path])
        except RepositoryError as error:
            if isinstance(path, Path) and not split_name(path)[1].is_dir():
                raise
            skipped.append(str(error))
            found = []
        for source in found:
            sources.setdefault((source.name, source.version), source)
    return list(sources.values())


def run(app: Application, examples: Callable[[str], Sequence[str]], on_hangup: Callable[[], None] | None = None) -> int:
    """Serve until a stop signal, or until no model could be loaded. Return the exit status."""
    events: SimpleQueue[str] = SimpleQueue()
    install_signal_handlers(partial(events.put, "stop"), on_hangup=on_hangup)
    try:
        app.start()
    except BadFileError as error:
        raise UsageError(str(error)) from error
    except (OSError, RuntimeError) as error:
        raise CommandError(str(error)) from error
    app.load(on_loaded=lambda: events.put("loaded"))
    failed_to_open = False
    if events.get() == "loaded":
        _tune_garbage_collector()
        failed_to_open = not app.open(examples)
        if not failed_to_open:
            events.get()
    finished = app.drain()
    return ExitCode.FAILED if failed_to_open or not finished else ExitCode.OK


def _tune_garbage_collector() -> None:
    """Exclude the objects of start-up from collections, and collect less often.

    Requests create many objects and hardly any cycles; the default would search for cycles every few dozen requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_PER_COLLECTION)


def _reload_log_settings(app: Application, load: Callable[[], Settings]) -> None:
    """Apply the log settings of the configuration file. Runs in the signal thread."""
    try:
        log = load().log
    except SettingsError as error:
        _log.error("configuration reload rejected", extra={"reason": str(error)})
        return
    app.change_log(log)
    facts = {"level": log.level, "levels": log.levels, "access": log.access}
    _log.info("log settings reloaded", extra=facts)


def _with_log_format(settings: Settings) -> Settings:
    """Replace the log format ``auto`` according to stdout."""
    if settings.log.format is not LogFormat.AUTO:
        return settings
    style = LogFormat.HUMAN if sys.stdout.isatty() else LogFormat.JSON
    log: LogSettings = settings.log.model_copy(update={"format": style})
    return settings.model_copy(update={"log": log})


def example_commands(security: SecuritySettings, address: str, *, is_demo: bool) -> Sequence[str]:
    """Return shell commands that call the server at ``address``, with the options that its settings require.

    Placeholders for the caller's own files are in capitals.
    """
    host, _, port = address.rpartition(":")
    address = f"{_WILDCARD_TARGETS.get(host, host)}:{port}"
    inferd, grpcurl = _connection_options(security)
    commands = [f"{_program()} models --address {address}{inferd}", f"grpcurl {grpcurl} {address} list"]
    if is_demo:
        picture = f"--output label --input X=@{demo.DIGIT}"
        commands.insert(0, f"{_program()} infer digits --address {address}{inferd} {picture}")
    return commands


def _connection_options(security: SecuritySettings) -> tuple[str, str]:
    """Return the connection options for inferd and for grpcurl."""
    inferd, grpcurl = "", "-plaintext"
    if security.tls.enabled:
        inferd, grpcurl = " --ca CA.pem", "-cacert CA.pem"
    if security.tls.client_certificates is ClientCertificates.REQUIRED:
        inferd += " --certificate ME.pem --key ME.key"
        grpcurl += " -cert ME.pem -key ME.key"
    if security.tokens_file is not None or security.jwt.enabled:
        inferd += " --token-file TOKEN"
        grpcurl += ' -H "authorization: Bearer $(cat TOKEN)"'
    return inferd, grpcurl


def _program() -> str:
    """Return this program as it was called, so that the examples work if it is not on the PATH."""
    return sys.argv[0] if Path(sys.argv[0]).name == "inferd" else "inferd"
