"""The command line. Each command has a file, which is imported only when the command is used."""

import sys
from collections.abc import Sequence

from inferd.cli.failures import ExitCode, missing_package


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. ``arguments`` default to those of the process."""
    try:
        # Imported here because the client is installed without the packages of the command line.
        from inferd.cli.entry import run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        print(f"inferd: {missing_package(error)}", file=sys.stderr)
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return run(arguments)


__all__ = ["main"]
