"""The command line: one file per command, each imported only when it is used."""

import sys
from collections.abc import Sequence

from inferd.cli.failures import ExitCode, missing_package


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. ``arguments`` are by default those of the process."""
    try:
        # Here, because the client is installed without what commands need.
        from inferd.cli.entry import run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        print(f"inferd: {missing_package(error)}", file=sys.stderr)
        return ExitCode.FAILED
    return run(arguments)


__all__ = ["main"]
