"""Settings of language models: how many sequences are generated at a time, and the memory for them."""

from pydantic import Field

from inferd.config.section import Section


class GenerationSettings(Section):
    """How language models generate. Ordinary models ignore these settings."""

    max_sequences: int = Field(default=32, ge=1, le=1024)
    """Maximum number of sequences that are generated at the same time; further requests wait in the queue."""
    max_context_tokens: int | None = Field(default=None, ge=16, le=16_777_216)
    """Maximum number of tokens of a prompt and its answer together. Null: what the model was made for, at most 8192. \
Every sequence has an address range of that size for its cache, of which only what is used takes memory."""
    cache_bytes: int | None = Field(default=None, ge=1024 * 1024)
    """Maximum memory of the cache of keys and values. A request starts when its prompt and max_tokens fit into what \
running ones leave. Null: what max_sequences of the maximum length take, at most half of the memory that is free when \
the model is loaded, and a quarter of repository.memory_budget_bytes."""
    prefill_chunk_tokens: int = Field(default=64, ge=8, le=65_536)
    """Number of tokens of a prompt that run at a time, between two steps of the sequences that generate: fewer make \
their tokens come more evenly, more make first tokens come sooner. Answers may differ in the last bits between sizes."""
    default_max_tokens: int = Field(default=512, ge=1, le=16_777_216)
    """Maximum length of the answer to requests that set none; less if the context leaves less."""
    max_waiting_requests: int = Field(default=1024, ge=1, le=1_000_000)
    """Maximum number of waiting requests."""
    max_waiting_tokens: int = Field(default=1_048_576, ge=1, le=2**40)
    """Maximum number of tokens, prompt and max_tokens together, of waiting requests; in place of queue.max_rows."""
    max_delay_s: float = Field(default=60.0, ge=0.0, le=86_400.0)
    """Maximum expected wait of a request for its first run, estimated from the tokens that are finished a second; in \
place of queue.max_delay_ms. The queue counts as full above it. 0 leaves the other two limits."""
    default_timeout_s: float = Field(default=600.0, ge=0.0, le=86_400.0)
    """Timeout of requests without a deadline or timeout, for the whole answer; in place of queue.default_timeout_ms. \
0 is none."""
