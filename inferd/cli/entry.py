"""The entry point of all commands.

``inferd --help`` must be fast and must work without the server's packages, so a command's module is imported only when
the command is used. The command NAME is the function NAME of ``inferd.cli.NAME``, or its ``app`` if it has subcommands;
a dash in NAME is an underscore there.
The module may define EXAMPLES, which are shown at the end of its help.
"""

import errno
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

import inferd
from inferd.cli.failures import CommandError, ExitCode, missing_package
from inferd.cli.tritonserver import reject_flags
from inferd.plain_text import escaped

#: The commands with their summaries.
COMMANDS = {
    "serve": "Serve models over gRPC and HTTP.",
    "infer": "Run a model on a server once, and print or save its outputs.",
    "generate": "Let a language model answer or continue a text.",
    "health": "Check the health of a server.",
    "models": "List the models of a server, load and unload them.",
    "batch": "Run a model on all rows of files, each once.",
    "bench": "Put a server under load, and report its throughput and latencies.",
    "inspect": "Show the contents of an ONNX file and how it would be served.",
    "import-triton": "Judge the models of a Triton repository, and write their settings.",
    "config": "Print the effective settings, or their JSON Schema.",
    "token": "Create bearer tokens.",
}

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}

#: Errors of writing to a device that takes no more.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

_LINE_END = "\n"


class _LazyGroup(TyperGroup):
    """Holds a placeholder for each command, and loads the command when it is called."""

    # The types are Any because some versions of typer bundle click, and others import it.
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401
        """Load the command that ``args`` begins with. Raises `CommandError` for flags that others know it by."""
        name, placeholder, rest = super().resolve_command(ctx, args)
        if name == "serve" and not ctx.resilient_parsing:
            reject_flags(rest)
        return name, placeholder and _load(str(name)), rest


def _load(name: str) -> Any:  # noqa: ANN401 - as above
    function = name.replace("-", "_")
    module = _imported(f"inferd.cli.{function}")
    examples = _epilog(getattr(module, "EXAMPLES", ()))
    if hasattr(module, "app"):
        group: typer.Typer = module.app
        group.info.epilog = examples
        group.info.context_settings = HELP_OPTIONS
        return typer.main.get_command(group)
    app = typer.Typer(add_completion=False)
    app.command(name, context_settings=HELP_OPTIONS, epilog=examples)(getattr(module, function))
    return typer.main.get_command(app)


def _imported(name: str) -> ModuleType:
    """Return a module, imported without collections of garbage and excluded from later ones.

    Imports leave little garbage. Looking for it meanwhile is a tenth of a server's start, and afterwards, up to the
    exit, a seventh of a short job.
    """
    if name in sys.modules:
        return sys.modules[name]
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        module = import_module(name)
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()
    return module


def _epilog(examples: Sequence[str]) -> str | None:
    # Typer joins adjacent lines, and interprets brackets as markup.
    return escape("\n\n".join(("Examples:", *examples))) if examples else None


_app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    context_settings=HELP_OPTIONS,
    epilog="Exit codes: 0 success, 1 the call or the file failed, 2 invalid arguments or settings, 130 interrupted.",
)
for _name, _summary in COMMANDS.items():
    _app.command(_name, help=_summary)(lambda: None)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"inferd {inferd.__version__}")
        raise typer.Exit


@_app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Serve ONNX models over gRPC and HTTP, and call them."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. ``arguments`` default to those of the process."""
    try:
        return _run(arguments)
    except CommandError as error:
        return _fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        return _fail(missing_package(error))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has exited.
        _drop_output()
        return ExitCode.FAILED
    except OSError as error:
        if error.filename is not None or error.errno not in _FULL:
            raise
        _drop_output()
        return _fail(f"standard output: cannot be written: {error.strerror}")


def _run(arguments: Sequence[str] | None) -> int:
    try:
        typer.main.get_command(_app).main(args=arguments, prog_name="inferd")
    except SystemExit as exit_:
        sys.stdout.flush()
        return exit_.code if isinstance(exit_.code, int) else ExitCode.FAILED
    return ExitCode.OK


def _drop_output() -> None:
    """Let nothing be flushed at exit, where the interpreter would fail to."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, exit_code: ExitCode = ExitCode.FAILED) -> int:
    # Messages may quote servers and files. Line ends stay, as several problems have a line each.
    print(f"inferd: {escaped(message, keep=_LINE_END)}", file=sys.stderr)
    return exit_code
