"""The command line: one file per command, each imported only when it is used."""

from inferd.cli.entry import main

__all__ = ["main"]
