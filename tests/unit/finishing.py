"""The end of a fake call."""

import grpc

from inferd.rpc.interfaces import Finisher


class Finishing:
    """The part of a fake call that registers finishers; the creator of the call sets ``finishers``."""

    finishers: list[Finisher]

    def on_finished(self, finisher: Finisher) -> None:
        self.finishers.append(finisher)

    def over(self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "") -> None:
        """Call the finishers, as the server does once at the end of each call."""
        for finisher in self.finishers:
            finisher(self, code, details)
