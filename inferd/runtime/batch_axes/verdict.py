"""The verdict on whether rows of several requests may share a batch."""

from dataclasses import dataclass
from enum import StrEnum


class Standing(StrEnum):
    """Outcome of the verification of batch axes."""

    PROVEN = "proven"
    """Every row tried had the same answer in a batch as alone, and nothing in the graph contradicts that."""
    CONTRADICTED = "contradicted"
    """An answer differed, or the graph or the shapes show that it would."""
    UNPROVEN = "unproven"
    """The model could not be tried, is not deterministic, or its graph could not be followed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """``reason`` is the evidence, as text for logs and clients; empty if proven.

    ``shape_mismatch``: outputs could not even be split, because of the shapes or because the settings say that no
    dimension counts rows. ``configured``: the settings give the batch axes, so the model is batched whatever the
    standing, except on a shape mismatch.
    """

    standing: Standing
    reason: str = ""
    shape_mismatch: bool = False
    configured: bool = False

    @property
    def allows_batching(self) -> bool:
        """Whether rows of several requests may share a batch."""
        return self.standing is Standing.PROVEN or (self.configured and not self.shape_mismatch)

    def __str__(self) -> str:
        return f"{self.standing}: {self.reason}" if self.reason else str(self.standing)
