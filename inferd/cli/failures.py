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


class CommandError(Exception):
    """Ends a command with a text for the person who typed it."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
