"""Why requests end, and what is counted when they do."""

from inferd.errors import DeadlineExceededError, OverloadedError, ServingError
from inferd.generation.request import FinishReason, GenerationRequest
from inferd.generation.sequence import GeneratingSequence
from inferd.observability.metrics.generation import FinishedGeneration, GenerationStats

#: Finish reasons of requests without a complete answer; with those of `FinishReason` they are the
#: `inferd.observability.metrics.generation.FINISH_REASONS`.
CANCELLED, DEADLINE, ERROR = "cancelled", "deadline", "error"


def finish_reason(outcome: FinishReason | ServingError) -> str:
    """Return the finish reason to count for the outcome of a request."""
    if isinstance(outcome, FinishReason):
        return outcome.value
    return DEADLINE if isinstance(outcome, DeadlineExceededError) else ERROR


def count_rejected(stats: GenerationStats, request: GenerationRequest, error: ServingError, now: float) -> None:
    """Count a request that failed with ``error`` before it started."""
    if isinstance(error, OverloadedError):
        stats.rejected(now - request.received_at, error.reason)
    elif request.enqueued_at:
        count_unstarted(stats, request, finish_reason(error), now)
    else:
        stats.rejected(now - request.received_at, "")


def count_unstarted(stats: GenerationStats, request: GenerationRequest, reason: str, now: float) -> None:
    """Count an admitted request that ended before it started."""
    duration_s = now - request.received_at
    stats.finished(
        FinishedGeneration(
            reason=reason,
            prompt_tokens=len(request.prompt),
            generated_tokens=0,
            max_tokens=request.max_tokens,
            queue_s=duration_s,
            prefill_s=0.0,
            duration_s=duration_s,
        )
    )


def count_finished(stats: GenerationStats, sequence: GeneratingSequence, reason: str, now: float) -> None:
    """Count a request that had started."""
    request = sequence.request
    stats.finished(
        FinishedGeneration(
            reason=reason,
            prompt_tokens=len(request.prompt),
            generated_tokens=sequence.generated,
            max_tokens=request.max_tokens,
            queue_s=sequence.started_at - request.enqueued_at,
            prefill_s=(sequence.first_token_at or now) - sequence.started_at,
            duration_s=now - request.received_at,
        )
    )
