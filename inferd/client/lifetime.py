"""Whether a client may still be used."""

import os


class Lifetime:
    """The process that a client was made in, and whether it was closed."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self.closed = False

    def check(self) -> None:
        """Raise RuntimeError where gRPC itself would hang or fail with a text that helps nobody."""
        if self._pid != os.getpid():
            raise RuntimeError(
                f"this client was made in process {self._pid} and cannot be used in its fork {os.getpid()}: "
                "make one in each process"
            )
        if self.closed:
            msg = "the client is closed"
            raise RuntimeError(msg)
