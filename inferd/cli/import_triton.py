"""``inferd import-triton``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
import yaml

from inferd.cli.config import server_settings
from inferd.cli.failures import CommandError, ExitCode
from inferd.cli.output import print_json, print_table
from inferd.models.model_directory import TRITON_CONFIG
from inferd.models.triton.verdicts import Standing, Verdict, find_models, judge
from inferd.plain_text import escaped

EXAMPLES = (
    "inferd import-triton model_repository",
    "inferd import-triton model_repository --json",
    "inferd import-triton model_repository --write",
)

_SETTINGS = "model.yaml"
_LINE_CHARACTERS = 120


def import_triton(
    *,
    path: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", exists=True, file_okay=False, help="A model repository, or the directory of one model."
        ),
    ],
    write: Annotated[
        bool, typer.Option("--write", help=f"Write what each {TRITON_CONFIG} says into a {_SETTINGS} beside it.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help=f"Replace a {_SETTINGS} that is there.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="Settings file of the server, in YAML.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Say for each model of a Triton repository whether it can be served.

    A server reads config.pbtxt itself: a verdict of "as is" or "with differences" needs no more than
    --model-repository DIR. Inputs, outputs and batch size are compared with what the ONNX files declare, but models are
    not loaded; inferd inspect does that. Exits with 1 if a model cannot be served.
    """
    settings = server_settings(config)
    try:
        verdicts = [judge(folder, settings) for folder in find_models(path)]
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
    if not verdicts:
        raise CommandError(f"{path}: expected directories with {TRITON_CONFIG} or VERSION/model.onnx, found none")
    kept = _write(verdicts, force=force) if write else []
    if as_json:
        print_json([_as_json(verdict) for verdict in verdicts])
    else:
        rows = [[verdict.folder.name, verdict.standing, "\n".join(_notes(verdict))] for verdict in verdicts]
        print_table(["MODEL", "SERVED", "NOTES"], rows)
        print(_summary(verdicts))
    if kept:
        raise CommandError(f"kept, as --force is not given: {', '.join(map(str, kept))}")
    if any(verdict.reason for verdict in verdicts):
        raise typer.Exit(ExitCode.FAILED)


def _notes(verdict: Verdict) -> Iterator[str]:
    if verdict.reason:
        yield verdict.reason
    yield from verdict.differences
    if verdict.ignored:
        yield f"ignored: {', '.join(verdict.ignored)}"


def _summary(verdicts: Sequence[Verdict]) -> str:
    counts = {standing: sum(verdict.standing is standing for verdict in verdicts) for standing in Standing}
    return (
        f"{len(verdicts)} model{'s' if len(verdicts) > 1 else ''}: {counts[Standing.AS_IS]} as is, "
        f"{counts[Standing.DIFFERS]} with differences, {counts[Standing.REFUSED]} cannot be served."
    )


def _as_json(verdict: Verdict) -> dict[str, object]:
    return {
        "model": verdict.folder.name,
        "served": verdict.standing,
        "reason": verdict.reason,
        "differences": verdict.differences,
        "ignored": verdict.ignored,
        "settings": verdict.settings,
    }


def _write(verdicts: Sequence[Verdict], *, force: bool) -> list[Path]:
    """Write the settings that configurations of models that can be served have.

    Return the files that were there and are kept.
    """
    kept = []
    for verdict in verdicts:
        if verdict.reason or not verdict.settings:
            continue
        file = verdict.folder / _SETTINGS
        try:
            with file.open("w" if force else "x", encoding="utf-8") as stream:
                stream.write(_yaml(verdict))
        except FileExistsError:
            kept.append(file)
        except OSError as error:
            raise CommandError(f"{file}: cannot be written: {error.strerror}") from None
    return kept


def _yaml(verdict: Verdict) -> str:
    """Return the settings as a model.yaml, with what they do not say in comments."""
    comments = [f"Written by inferd import-triton from {TRITON_CONFIG}, which it replaces.", *_notes(verdict)]
    head = "".join(f"# {escaped(line)}\n" for line in comments)
    return head + yaml.safe_dump(
        dict(verdict.settings), sort_keys=False, default_flow_style=None, width=_LINE_CHARACTERS, allow_unicode=True
    )
