"""Failures of commands: exit codes, and messages of one line on stderr. Imports nothing beyond the standard library."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit code of a command."""

    OK = 0
    #: The call or the file failed.
    FAILED = 1
    #: Invalid arguments or settings; the argument parser uses the same code.
    USAGE = 2
    #: All was done but for some rows, which have no answer.
    ROW_ERRORS = 3
    #: Ctrl-C: 128 plus the signal's number, as in shells.
    INTERRUPTED = 130


class CommandError(Exception):
    """Ends a command with a message for the user."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UsageError(CommandError):
    """Ends a command because of invalid arguments or settings."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.USAGE)


#: Packages of the extra ``cli``; all others are the server's.
_COMMAND_LINE = frozenset({"typer", "rich", "urllib3"})

#: Packages of the extra ``cli`` that the server has no use for, by the name of their module.
_COMMAND_LINE_ONLY = {"hdrh": "hdrhistogram"}

#: Packages of the extra ``batch``, by the name of their module.
_BATCH = {"PIL": "pillow", "fsspec": "fsspec", "pyarrow": "pyarrow", "tokenizers": "tokenizers"}


def missing_package(error: ModuleNotFoundError) -> str:
    """Return which package to install for a missing module. Re-raises ``error`` if the module is one of inferd's."""
    package = (error.name or "").partition(".")[0]
    if package in {"", "inferd"}:
        raise error
    name = {**_COMMAND_LINE_ONLY, **_BATCH}.get(package, package)
    missing = f"this needs the package {name}, which is not installed; "
    if package in _COMMAND_LINE_ONLY:
        return missing + "it comes with pip install 'inferd[cli]'"
    if package in _BATCH:
        return missing + "it comes with pip install 'inferd[batch]'"
    if package in _COMMAND_LINE:
        return missing + "the command line comes with pip install 'inferd[cli]', and with the server"
    return missing + "the server's packages come with pip install 'inferd[cpu]' or, for NVIDIA GPUs, 'inferd[gpu]'"
