"""``inferd batch``: run a model on all rows of files, each row once."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Annotated, get_args

import typer
from rich.console import Console

from inferd.batch.errors import BatchError, UsageError
from inferd.batch.job import Job
from inferd.batch.options import InputFormat, JobOptions, OutputFormat, RunOptions
from inferd.batch.preparation.arguments import image_options, tokenize_options
from inferd.batch.progress import Summary
from inferd.cli import batch_arguments as arguments
from inferd.cli.batch_output import JobView, print_preview, print_summary
from inferd.cli.config import server_settings
from inferd.cli.connection import Connection, usage_errors, with_connection
from inferd.cli.failures import CommandError, ExitCode
from inferd.cli.output import print_json
from inferd.cli.signals import install_signal_handlers
from inferd.endpoint import Endpoint
from inferd.plain_text import escaped
from inferd.runtime.mapped_memory import share_one_heap

EXAMPLES = (
    "inferd batch digits pictures.parquet answers/",
    "inferd batch model.onnx 'rows/*.csv' answers.csv --map X='pixel*' --join id",
    "inferd batch minilm/ texts.jsonl vectors.parquet --tokenize tokenizer.json,max_length=256 --join id",
    "inferd batch resnet/ photos/ labels/ --image size=224,crop=center,mean=0.485/0.456/0.406,std=0.229/0.224/0.225",
    "inferd batch digits pictures.parquet answers/ --server 127.0.0.1:8001",
)

#: Rows that --dry-run shows.
_PREVIEW_ROWS = 3

_columns = partial(typer.Option, rich_help_panel="Columns", show_default=False)
_rows = partial(typer.Option, rich_help_panel="Rows", show_default=False)
_prepared = partial(typer.Option, rich_help_panel="Text and pictures", show_default=False)
_answers = partial(typer.Option, rich_help_panel="Answers and errors", show_default=False)
_running = partial(typer.Option, rich_help_panel="Running", show_default=False)


@with_connection(timeout_s=None, address_option="--server")
def batch(
    connection: Connection,
    *,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An .onnx file, the directory of a model, or digits, which is built in; with --server its name there.",
            show_default=False,
        ),
    ],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Files, directories, globs and addresses such as s3://bucket/rows/, of one format: Parquet, Arrow, "
            "CSV, JSON lines, .npy, .npz, pictures, or tars of pictures.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT",
            help="A directory, which gets a file for each part; or one file: .parquet .arrow .csv .jsonl .npy .npz.",
            show_default=False,
        ),
    ],
    mapping: Annotated[
        list[str] | None,
        _columns(
            "--map",
            metavar="INPUT=COLUMN",
            help="The column of an input that has another name; several, with commas or as a pattern such as "
            "'pixel*', become its dimension. Repeatable.",
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        _columns(
            "--output",
            "-o",
            metavar="NAME[=COLUMN]",
            help="An output to keep, and the name of its column. Repeatable; defaults to all.",
        ),
    ] = None,
    join: Annotated[
        list[str] | None,
        _columns(metavar="COLUMN,...|all", help="Columns of the input to copy to the output. Repeatable."),
    ] = None,
    row_ids: Annotated[
        bool, _columns("--row-ids", help="Add the columns source and row: the file of a row, and its number in it.")
    ] = False,
    columns: Annotated[
        list[str] | None,
        _columns(metavar="COLUMN,...", help="Use these columns of the input only. Repeatable; defaults to all."),
    ] = None,
    types: Annotated[
        list[str] | None,
        _columns(
            "--type",
            metavar="COLUMN=TYPE",
            help="The type of a column of CSV or JSON lines, such as id=string. Repeatable.",
        ),
    ] = None,
    delimiter: Annotated[
        str | None,
        _columns(
            metavar="CHARACTER",
            help="What separates the fields of CSV; or tab. Defaults to a comma, in .tsv files a tab.",
        ),
    ] = None,
    where: Annotated[
        str | None,
        _rows(metavar="EXPRESSION", help="Only rows for which it is true, such as 'lang == \"en\" and stars > 3'."),
    ] = None,
    limit: Annotated[int | None, _rows(min=0, metavar="N", help="Only the first N of the wanted rows.")] = None,
    sample: Annotated[
        float | None, _rows(min=0, max=1, metavar="SHARE", help="Only a random share, such as 0.01.")
    ] = None,
    seed: Annotated[int, _rows(min=0, help="Seed of --sample.", show_default=True)] = 0,
    input_format: Annotated[
        InputFormat | None,
        _rows(
            metavar="FORMAT",
            help=f"Format of the inputs, if suffixes do not say it: {', '.join(get_args(InputFormat))}.",
        ),
    ] = None,
    tokenize: Annotated[
        str | None,
        _prepared(
            metavar="FILE[,KEY=VALUE...]",
            help="Make tokens of a column of texts with a tokenizer.json. Keys: column, max_length, truncate, pad_to; "
            "ids, attention_mask and type_ids, for inputs with other names.",
        ),
    ] = None,
    image: Annotated[
        str | None,
        _prepared(
            metavar="KEY=VALUE,...",
            help="Make tensors of a column of encoded pictures. Keys: size, crop, color, layout, scale, mean, std, "
            "column, input.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        _prepared(
            min=0, metavar="N", help="Processes that prepare rows; 0 does it in this one. Defaults to the cores."
        ),
    ] = None,
    output_format: Annotated[
        OutputFormat | None,
        _answers(
            metavar="FORMAT", help="Format of the parts in a directory: parquet (default), arrow, csv, jsonl, npy, npz."
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        _answers(
            "--overwrite/--resume",
            help="Replace the answers of another job in OUTPUT; or, by default, continue those of this one.",
        ),
    ] = False,
    errors: Annotated[
        str | None,
        _answers(
            metavar="FILE.jsonl", help="File for rows without an answer. Defaults to errors.jsonl beside the manifest."
        ),
    ] = None,
    on_error: Annotated[
        str,
        _answers(
            metavar="skip|stop|N",
            help="On rows that fail: continue, stop at the first, or stop when there are more than N.",
            show_default=True,
        ),
    ] = "skip",
    batch_rows: Annotated[
        int | None, _running(min=1, metavar="N", help="Most rows of a batch. Measured by default.")
    ] = None,
    batch_bytes: Annotated[
        int | None, _running(min=1, metavar="BYTES", help="Most bytes of a batch's inputs, for rows of many lengths.")
    ] = None,
    look_ahead: Annotated[
        int | None,
        _running(min=1, metavar="N", help="Rows of a block, in which rows of the same length form batches."),
    ] = None,
    part_rows: Annotated[
        int | None, _running(min=1, metavar="N", help="Rows of a part, which is written completely or run again.")
    ] = None,
    version: Annotated[
        str,
        _running(
            "--model-version", metavar="VERSION", help="With --server: version of the model. Defaults to the highest."
        ),
    ] = "",
    in_flight: Annotated[
        int | None, _running(min=1, metavar="N", help="Batches that run, or are at the server, at a time.")
    ] = None,
    index: Annotated[int, _running(min=0, metavar="I", help="Number of this process, of --indexes.")] = 0,
    indexes: Annotated[
        int, _running(min=1, metavar="N", help="Processes that share the parts, each with an --index from 0.")
    ] = 1,
    metrics_file: Annotated[
        str | None, _running(metavar="FILE.prom", help="Keep metrics in a file, for a textfile collector.")
    ] = None,
    accept_errors: Annotated[
        bool, _answers("--accept-errors", help="Exit with 0, not 3, if some rows have no answer.")
    ] = False,
    dry_run: Annotated[
        bool, _running("--dry-run", help=f"Show the mapping, the schema and {_PREVIEW_ROWS} rows; write nothing.")
    ] = False,
    as_json: Annotated[bool, _running("--json", help="Print the summary as JSON.")] = False,
    config: Annotated[Path | None, _running(metavar="FILE", help="Settings file of the server, in YAML.")] = None,
    settings: Annotated[
        list[str] | None,
        _running("--set", metavar="NAME=VALUE", help="A setting of the server, as for inferd serve. Repeatable."),
    ] = None,
) -> None:
    """Run MODEL on all rows of the INPUT files, each once, and write the answers to OUTPUT.

    Runs in this process as a server would, or with --server on one. The same command run again continues the job.
    The first SIGINT or SIGTERM finishes the part in hand, a second ends at once.

    Exit codes: 0 all rows have an answer, 3 some have none, 1 failed, 2 invalid arguments, 130 stopped.
    """
    with usage_errors(), _job_errors():
        if version and not connection.address:
            raise ValueError("--model-version: expected with --server only; MODEL may be the directory of a version")
        if index >= indexes:
            raise ValueError(f"--index: expected 0 to {indexes - 1} for --indexes {indexes}, got {index}")
        options = JobOptions(
            model=model,
            version=version,
            inputs=tuple(inputs),
            output=output,
            input_format=input_format,
            output_format=output_format,
            mapping=arguments.pairs("--map", mapping or (), "INPUT=COLUMN"),
            outputs=arguments.outputs(outputs or ()),
            join=arguments.join(join),
            row_ids=row_ids,
            columns=arguments.names("--columns", columns or ()),
            types=arguments.pairs("--type", types or (), "COLUMN=TYPE"),
            delimiter=arguments.delimiter(delimiter),
            where=where,
            limit=limit,
            sample=sample,
            seed=seed,
            tokenize=None if tokenize is None else tokenize_options(tokenize),
            image=None if image is None else image_options(image),
            batch_rows=batch_rows,
            batch_bytes=batch_bytes,
            look_ahead=look_ahead,
            part_rows=part_rows,
        )
        run_options = RunOptions(
            errors=errors,
            on_error=arguments.on_error(on_error),
            overwrite=overwrite,
            workers=workers,
            in_flight=in_flight,
            index=index,
            indexes=indexes,
            metrics_file=metrics_file,
        )
        endpoint = _endpoint(connection)
    server = server_settings(config, settings or ())
    # Before threads start, which else keep memory in heaps of their own.
    share_one_heap()
    # Progress goes to standard error: the summary on standard output may be redirected.
    with _job_errors(), JobView(Console(stderr=True)) as view:
        job = Job(options, run_options, server, endpoint, view.show)
        if dry_run:
            preview = job.preview(_PREVIEW_ROWS)
        else:
            stop = Event()
            install_signal_handlers(partial(view.stop, stop), on_hangup=None)
            summary = job.run(stop)
    if dry_run:
        print_preview(preview, as_json=as_json)
        return
    if as_json:
        print_json(summary.as_json())
    else:
        print_summary(summary, output)
    raise typer.Exit(_exit_code(summary, accept_errors=accept_errors))


def _exit_code(summary: Summary, *, accept_errors: bool) -> ExitCode:
    if not summary.has_finished:
        return ExitCode.INTERRUPTED
    return ExitCode.ROW_ERRORS if summary.errors and not accept_errors else ExitCode.OK


def _endpoint(connection: Connection) -> Endpoint | None:
    """Return the server to run on; None for this process. Raises `ValueError`."""
    if not connection.address:
        return None
    return Endpoint(
        address=connection.address,
        tls=connection.tls,
        token=connection.token,
        allow_insecure_token=connection.allow_insecure_token,
    )


@contextmanager
def _job_errors() -> Iterator[None]:
    """Turn errors of jobs into `CommandError`."""
    try:
        yield
    except UsageError as error:
        # Escaped, as names of columns come from files. Line ends are kept for the marker below an expression.
        raise CommandError(escaped(str(error), keep="\n"), ExitCode.USAGE) from None
    except BatchError as error:
        raise CommandError(escaped(str(error))) from None
