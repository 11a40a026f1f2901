"""``inferd serve`` without metrics, to measure what they cost; there is no setting for it.

Takes the arguments of ``inferd``.
"""

import inferd.core_environment  # noqa: F401  sets what grpc reads when it is first imported, below

# isort: split

from inferd import cli
from inferd.observability.metrics.models import BatchReport, ModelStats
from inferd.observability.metrics.registry import Metrics
from inferd.observability.recorder import CallRecorder


class _Nothing(ModelStats):
    """Counts nothing."""

    def offered(self, rows: int) -> None:
        """Ignore it."""

    def caller_ran(self) -> None:
        """Ignore it."""

    def batch_done(self, report: BatchReport) -> None:
        """Ignore it."""

    def answered(self, encode_s: float) -> None:
        """Ignore it."""

    def failed(self, duration_s: float, overload_reason: str = "", *, by_model: bool = False) -> None:
        """Ignore it."""

    def run_ended(self, reason: str) -> None:
        """Ignore it."""

    def checked(self, run_s: float, *, mismatch: bool) -> None:
        """Ignore it."""


def main() -> None:
    """Serve."""
    # By name, because the types of the replacements do not match.
    setattr(CallRecorder, "finished", lambda *_: None)  # noqa: B010  see above
    setattr(Metrics, "stats_for", lambda *_: _Nothing())  # noqa: B010  see above
    cli.main()


if __name__ == "__main__":
    main()
