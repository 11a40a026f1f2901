"""What is known of whether a model's rows may run together."""

from dataclasses import dataclass
from enum import StrEnum


class Standing(StrEnum):
    """How a model stands with batching."""

    PROVEN = "proven"
    """Every row that was tried had the same answer in a batch as alone, and nothing in the graph speaks against it."""
    CONTRADICTED = "contradicted"
    """An answer differed, or the graph or the shapes say that it would."""
    UNPROVEN = "unproven"
    """Nothing could be tried, or the model does not give the same answer twice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """``reason`` says what shows it, for the operator; empty if proven.

    ``misfit``: it is the shapes that contradict, so that answers could not even be told apart. ``given``: the operator
    has said where the rows are, so the model is batched whatever the standing, unless it is a misfit.
    """

    standing: Standing
    reason: str = ""
    misfit: bool = False
    given: bool = False

    @property
    def allows_batching(self) -> bool:
        """Whether rows of several requests may run together."""
        return self.standing is Standing.PROVEN or (self.given and not self.misfit)

    def __str__(self) -> str:
        return f"{self.standing}: {self.reason}" if self.reason else str(self.standing)
