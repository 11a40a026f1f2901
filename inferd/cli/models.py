"""``inferd models``: list, load, unload, index and route the models of a server."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from inferd.cli.connection import Connection, open_client, usage_errors, with_connection
from inferd.cli.entry import HELP_OPTIONS
from inferd.cli.failures import CommandError, UsageError
from inferd.cli.output import print_json, print_table
from inferd.client import (
    BatchingInfo,
    GenerationInfo,
    ModelInfo,
    PredictedRun,
    Routing,
    RunCost,
    Shadow,
    TensorInfo,
)
from inferd.plain_text import escaped
from inferd.recorded_requests.arrays import shape_text
from inferd.small_files import read_bytes, read_text, why_unreadable

EXAMPLES = (
    "inferd models",
    "inferd models --address inferd.example.com:443 --tls --json",
    "inferd models index",
    "inferd models load digits",
    "inferd models load digits --config config.pbtxt --file 1/model.onnx=new.onnx",
    "inferd models unload digits --version 1",
    "inferd models route digits --label stable=1 --label canary=2 --weight stable=9 --weight canary=1",
)

app = typer.Typer(add_completion=False, invoke_without_command=True)

#: More than a message can hold.
_MAX_FILE_BYTES = 2**31

_MIB = 2**20

_with_load_timeout = with_connection(
    timeout_s=600.0, timeout_help="Time limit of the call. When it passes, a load is given up."
)

_Name = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


_version = partial(typer.Option, "--version", "--model-version", metavar="VERSION", show_default=False)


@app.callback()
@with_connection()
def models(connection: Connection, *, ctx: typer.Context, as_json: _AsJson = False) -> None:
    """List the models of a server: name, version, state, inputs, outputs, batching and predicted run time."""
    if ctx.invoked_subcommand is not None:
        _require_no_options(ctx)
        return
    with open_client(connection) as client:
        found = client.models()
    if found or as_json:
        _print_models(found, as_json=as_json)
    else:
        print("The server has no models.")


@app.command(context_settings=HELP_OPTIONS)
@_with_load_timeout
def load(
    connection: Connection,
    *,
    model: _Name,
    version: Annotated[
        str, _version(help="Load this version beside what serves. Defaults to the version policy.")
    ] = "",
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Triton's ModelConfig in FILE.json or FILE.pbtxt, instead of the model's settings, for this load.",
            show_default=False,
        ),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            metavar="VERSION/NAME=FILE",
            help="Send a file; all of them replace the model's directory for this load. Needs --config. Repeatable.",
            show_default=False,
        ),
    ] = None,
    as_json: _AsJson = False,
) -> None:
    """Load a model from the server's repositories, or load it again; ends when it serves.

    What served before serves until then, and further if the load fails.
    """
    if files and config is None:
        raise UsageError("--file: expected --config beside it")
    text = None if config is None else _config_text(config)
    contents = dict(map(_file, files or ()))
    if len(contents) < len(files or ()):
        raise UsageError("--file: expected each name once")
    with usage_errors(), open_client(connection) as client:
        loaded = client.load_model(model, version=version, config=text, files=contents, timeout_s=None)
    _print_models(loaded, as_json=as_json)


@app.command(context_settings=HELP_OPTIONS)
@_with_load_timeout
def unload(
    connection: Connection,
    *,
    model: _Name,
    version: Annotated[str, _version(help="Unload only this version.")] = "",
    as_json: _AsJson = False,
) -> None:
    """Unload a model; ends when its admitted requests have been answered."""
    with usage_errors(), open_client(connection) as client:
        client.unload_model(model, version=version, timeout_s=None)
    if as_json:
        print_json({"unloaded": model, "version": version})
    else:
        print(f"unloaded {escaped(model)}{version and f' version {escaped(version)}'}")


@app.command(context_settings=HELP_OPTIONS)
@with_connection()
def index(
    connection: Connection,
    *,
    ready: Annotated[bool, typer.Option("--ready", help="Only versions that answer requests.")] = False,
    as_json: _AsJson = False,
) -> None:
    """List the models of the server's repositories, loaded or not: name, version, state and its reason."""
    with open_client(connection) as client:
        entries = client.repository_index(ready=ready)
    if as_json:
        print_json([asdict(entry) for entry in entries])
    elif not entries:
        print("The repositories have no such models." if ready else "The repositories have no models.")
    else:
        rows = [[escaped(each.name), escaped(each.version), str(each.state), escaped(each.reason)] for each in entries]
        _print_table(["NAME", "VERSION", "STATE", "REASON"], rows)


@app.command(context_settings=HELP_OPTIONS)
@with_connection()
def route(
    connection: Connection,
    *,
    model: _Name,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="LABEL=VERSION", help="All labels there are to be. Repeatable."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weight",
            metavar="VERSION=WEIGHT",
            help="All weights of versions or labels for requests that name no version. Repeatable.",
        ),
    ] = None,
    shadow: Annotated[
        str | None,
        typer.Option(metavar="VERSION=SHARE", help="Copy a share of the requests, from 0 to 1; 0 ends it."),
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Forget what is routed so far: the highest ready version gets all.")
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """Show or change how requests are routed to the versions of a model.

    Each option replaces its part of the routing, and the other parts stay.
    """
    with usage_errors(), open_client(connection) as client:
        routing = Routing() if clear else client.routing(model)
        if labels is not None:
            routing = replace(routing, labels=dict(_pair("--label", each) for each in labels))
        if weights is not None:
            pairs = [_pair("--weight", each) for each in weights]
            routing = replace(routing, weights={name: _number("--weight", weight) for name, weight in pairs})
        if shadow is not None:
            version, share = _pair("--shadow", shadow)
            part = _number("--shadow", share)
            routing = replace(routing, shadow=Shadow(version=version, share=part) if part else None)
        if clear or not (labels is None and weights is None and shadow is None):
            routing = client.set_routing(model, routing)
    if as_json:
        print_json(asdict(routing))
    else:
        _print_routing(routing)


def _print_routing(routing: Routing) -> None:
    total = sum(routing.weights.values())
    lines = [f"label {escaped(label)}: version {escaped(version)}" for label, version in routing.labels.items()]
    lines += [
        f"weight of {escaped(name)}: {weight:g} ({weight / total:.1%})" for name, weight in routing.weights.items()
    ]
    if routing.shadow is not None:
        lines.append(f"shadow: version {escaped(routing.shadow.version)}, {routing.shadow.share:.1%} of the requests")
    print("\n".join(lines) or "The highest ready version gets all requests that name none.")


def _pair(option: str, text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name or not value:
        raise UsageError(f"{option}: expected NAME=VALUE, got {text}")
    return name, value


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option}: expected a number after =, got {text}") from None


def _require_no_options(ctx: typer.Context) -> None:
    """Raise `CommandError` for options before a subcommand, which does not see them."""
    sources = map(ctx.get_parameter_source, ctx.params)
    if any(source is not None and source.name != "DEFAULT" for source in sources):
        raise UsageError(f"expected options after {ctx.invoked_subcommand}: inferd models {ctx.invoked_subcommand} …")


def _config_text(path: Path) -> str:
    """Return the model configuration in a file as JSON."""
    try:
        if path.suffix == ".json":
            return read_text(path)
        if path.suffix == ".pbtxt":
            return _as_json_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None
    raise UsageError(f"--config: expected FILE.json or FILE.pbtxt, got {path}")


def _as_json_text(path: Path) -> str:
    # Not for the other commands, as the server's packages are not needed for those.
    from google.protobuf.json_format import MessageToJson  # noqa: PLC0415

    from inferd.models.triton import TritonConfigError, read_config  # noqa: PLC0415

    try:
        text: str = MessageToJson(read_config(path), preserving_proto_field_name=True)
    except TritonConfigError as error:
        raise UsageError(str(error)) from None
    return text


def _file(argument: str) -> tuple[str, bytes]:
    name, separator, path = argument.partition("=")
    if not (name and separator and path):
        raise UsageError(f'--file: expected VERSION/NAME=FILE, got "{argument}"')
    try:
        return name, read_bytes(Path(path), _MAX_FILE_BYTES)
    except OSError as error:
        raise _unreadable(Path(path), error) from None


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> CommandError:
    why = why_unreadable(path, error) if isinstance(error, OSError) else "expected UTF-8 text"
    return UsageError(f"{path}: cannot be read: {why}")


def _print_models(found: Sequence[ModelInfo], *, as_json: bool) -> None:
    if as_json:
        print_json([_as_json(model) for model in found])
    else:
        columns = ["NAME", "VERSION", "STATE", "INPUTS", "OUTPUTS", "BATCHING", "RUN TIME", "MEMORY", "REASON"]
        _print_table(columns, [_row(model) for model in found])


def _print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Print a table without its last column if that is empty, as reasons mostly are: it would waste width."""
    used = len(columns) if any(row[-1] for row in rows) else len(columns) - 1
    print_table(columns[:used], [row[:used] for row in rows])


def _row(model: ModelInfo) -> list[str]:
    generation = model.generation
    return [
        escaped(model.name),
        escaped(model.version),
        str(model.state),
        _tensors(model.inputs) if generation is None else _prompts(generation),
        _tensors(model.outputs) if generation is None else "text" if generation.has_tokenizer else "token ids",
        _concurrency(model) if _is_loaded(model) else "",
        _run_time(model.run_cost) if _is_loaded(model) else "",
        _memory(model) if _is_loaded(model) else "",
        escaped(model.reason or model.batching.verdict_reason),
    ]


def _is_loaded(model: ModelInfo) -> bool:
    """Whether the server has read the model. Some models have no inputs."""
    return bool(model.batching.verdict or model.inputs or model.outputs)


def _tensors(tensors: Iterable[TensorInfo]) -> str:
    return "\n".join(map(_tensor, tensors))


def _tensor(tensor: TensorInfo) -> str:
    optional = " (optional)" if tensor.optional else ""
    return f"{escaped(tensor.name)} {tensor.datatype} {shape_text(tensor.shape)}{optional}"


def _prompts(generation: GenerationInfo) -> str:
    """Return what a language model takes."""
    text = ["text"] * generation.has_tokenizer + ["chat"] * generation.has_chat_template
    forms = f"{', '.join(text)} or token ids" if text else "token ids"
    return f"{forms}, up to {generation.context_length} tokens"


def _concurrency(model: ModelInfo) -> str:
    """Return how many rows or sequences run together."""
    generation = model.generation
    if generation is None:
        return _batching(model.batching)
    verdict = model.batching.verdict
    doubt = "" if verdict in ("", "proven") else f", although {verdict}"
    used, size = generation.cache_bytes_in_use / _MIB, generation.cache_bytes / _MIB
    return f"up to {generation.max_sequences} sequences{doubt}, cache {used:.0f} of {size:.0f} MiB"


def _batching(batching: BatchingInfo) -> str:
    doubt = "" if batching.verdict == "proven" else batching.verdict
    if not batching.enabled:
        return f"off, {doubt}" if doubt else "off by settings" if batching.verdict else "off"
    wait = f", waits {batching.max_wait_s * 1000:g} ms" if batching.max_wait_s else ""
    # An operator may enable batching against the verdict by setting `batch_axis`.
    return f"up to {batching.max_batch_size} rows{wait}{f', although {doubt}' if doubt else ''}"


def _run_time(cost: RunCost | None) -> str:
    """Return what runs of one row and of a full batch are predicted to take, and how sure that is."""
    if cost is None or not cost.sizes:
        return "-"
    ends = ", ".join(map(_predicted_run, dict.fromkeys((cost.sizes[0], cost.sizes[-1]))))
    if not cost.runs:
        return f"{ends}, from warm-up"
    return ends if cost.error is None else f"{ends} ± {100 * cost.error:.0f} %"


def _memory(model: ModelInfo) -> str:
    """Return what a loaded version takes, and how long its load took."""
    residency = model.residency
    if residency is None:
        return "-"
    device = residency.device_memory_bytes
    on_device = f", {device / _MIB:.0f} MiB on devices" if device else ""
    cache = "" if model.generation is None else " with a full cache"
    return f"{residency.memory_bytes / _MIB:.0f} MiB{on_device}{cache}, loaded in {residency.load_s:.2g} s"


def _predicted_run(run: PredictedRun) -> str:
    value, unit = run.seconds * 1e6, "µs"
    for larger in ("ms", "s"):
        # From the value on that would be rounded to four digits.
        if value >= 999.5:
            value, unit = value / 1000, larger
    digits = 0 if value >= 9.95 else 1
    return f"{run.rows} row{'s' if run.rows > 1 else ''} {value:.{digits}f} {unit}"


def _as_json(model: ModelInfo) -> dict[str, object]:
    description = asdict(model)
    for tensor in (*description["inputs"], *description["outputs"]):
        # The numpy name of datatype.
        del tensor["dtype"]
    return description
