"""How commands end, as exit codes and as the one line on stderr that explains them."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the shell gets to see."""

    OK = 0
    #: The call or the file failed.
    FAILED = 1
    #: Wrong arguments or settings. Also what the parser of the command line uses.
    USAGE = 2
    #: Ctrl-C, as shells count it: 128 and the number of the signal.
    INTERRUPTED = 130


#: What comes with the extra for the command line; all else is the server's.
_COMMAND_LINE = frozenset({"typer", "rich"})


def missing_package(error: ModuleNotFoundError) -> str:
    """Say what to install for the module that was not found. Raises ``error`` if it is one of our own."""
    package = (error.name or "").partition(".")[0]
    if package in {"", "inferd"}:
        raise error
    told = f"this needs the package {package}, which is not installed; "
    if package in _COMMAND_LINE:
        return told + "the command line comes with pip install 'inferd[cli]', and with the server"
    return told + "the server's packages come with pip install 'inferd[cpu]' or, for NVIDIA GPUs, 'inferd[gpu]'"


class CommandError(Exception):
    """Ends a command with a text for the person who typed it."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
