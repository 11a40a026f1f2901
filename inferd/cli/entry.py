"""Where every command begins and ends."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import inferd
from inferd.cli.failures import CommandError, ExitCode, missing_package
from inferd.cli.lazy import HELP_OPTIONS, LazyGroup, add_stand_ins
from inferd.plain_text import escaped

_LINE_END = "\n"

_app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    context_settings=HELP_OPTIONS,
    epilog="Exit codes: 0 done, 1 the call or the file failed, 2 wrong arguments or settings, 130 interrupted.",
)
add_stand_ins(_app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"inferd {inferd.__version__}")
        raise typer.Exit


@_app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Serve ONNX models over gRPC, and call them."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. ``arguments`` are by default those of the process."""
    try:
        return _run(arguments)
    except CommandError as error:
        return _fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        return _fail(missing_package(error))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Who read our output has gone, which is their right; the interpreter must not fail on what is left to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED


def _run(arguments: Sequence[str] | None) -> int:
    try:
        typer.main.get_command(_app).main(args=arguments, prog_name="inferd")
    except SystemExit as exit_:
        sys.stdout.flush()
        return exit_.code if isinstance(exit_.code, int) else ExitCode.FAILED
    return ExitCode.OK


def _fail(message: str, exit_code: ExitCode = ExitCode.FAILED) -> int:
    # Servers and files bring some of it. Several problems are a line each.
    print(f"inferd: {escaped(message, keep=_LINE_END)}", file=sys.stderr)
    return exit_code
