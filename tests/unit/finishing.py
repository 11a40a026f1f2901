"""The end of a call, for those who have asked it for that."""

import grpc

from inferd.rpc.interfaces import Finisher


class Finishing:
    """The part of a fake call that is asked for its end; the creator of the call sets ``finishers``."""

    finishers: list[Finisher]

    def on_finished(self, finisher: Finisher) -> None:
        self.finishers.append(finisher)

    def over(self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "") -> None:
        """What the server does once at the end of each call, whatever the end."""
        for finisher in self.finishers:
            finisher(self, code, details)
