"""The list of commands, and how they are found without importing them.

``inferd --help`` must be quick and must work where the server's packages are not installed, so a command's module is
imported only when the command itself is used; it may import what it likes. The command NAME is the function NAME of
``inferd.cli.NAME``, or its ``app`` where there are commands below it; the module may have EXAMPLES, lines that its help
ends with.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

#: Each command with its line in the overview.
COMMANDS = {
    "serve": "Serve models over gRPC.",
    "infer": "Run a model on a server once, and print or save its outputs.",
    "health": "Ask a server whether it is well.",
    "models": "List the models of a server.",
    "inspect": "Tell what an ONNX file holds and how it would be served.",
    "config": "Print the settings in force, or their JSON Schema.",
    "token": "Make bearer tokens that let callers in.",
}

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


class LazyGroup(TyperGroup):
    """Holds a stand-in for each command, for the overview, and takes the real one when it is called."""

    # The types are Any because typer has its own copy of click in some versions, and click itself in others.
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401
        """Find the command that ``args`` begins with."""
        name, stand_in, rest = super().resolve_command(ctx, args)
        return name, stand_in and load(str(name)), rest


def load(name: str) -> Any:  # noqa: ANN401 - as above
    """Import the command ``name``."""
    module = import_module(f"inferd.cli.{name}")
    examples = _epilog(getattr(module, "EXAMPLES", ()))
    if hasattr(module, "app"):
        group: typer.Typer = module.app
        group.info.epilog = examples
        group.info.context_settings = HELP_OPTIONS
        return typer.main.get_command(group)
    app = typer.Typer(add_completion=False)
    app.command(name, context_settings=HELP_OPTIONS, epilog=examples)(getattr(module, name))
    return typer.main.get_command(app)


def add_stand_ins(app: typer.Typer) -> None:
    """Register every command with its line in the overview and without a body."""
    for name, summary in COMMANDS.items():
        app.command(name, help=summary)(lambda: None)


def _epilog(examples: Sequence[str]) -> str | None:
    # Typer joins lines that have no blank one between them, and takes brackets for markup.
    return escape("\n\n".join(("Examples:", *examples))) if examples else None
