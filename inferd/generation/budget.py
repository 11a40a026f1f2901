"""The tokens that the cache may hold. Pure."""


class TokenBudget:
    """Counts the tokens that are reserved in the cache.

    A sequence reserves all that it may need, its prompt and its ``max_tokens``, before it starts. So one that has
    started never waits for memory, and none has to be evicted. Invariant: ``reserved`` is from 0 to ``total``.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.reserved = 0

    @property
    def free(self) -> int:
        """The tokens that can be reserved."""
        return self.total - self.reserved

    def reserve(self, tokens: int) -> None:
        """Reserve ``tokens``, at most those that are `free`."""
        if tokens > self.free:
            raise ValueError(f"{tokens} tokens do not fit: {self.reserved} of {self.total} are reserved")
        self.reserved += tokens

    def release(self, tokens: int) -> None:
        """Give ``tokens`` back that were reserved."""
        if tokens > self.reserved:
            raise ValueError(f"{tokens} tokens were not reserved, only {self.reserved}")
        self.reserved -= tokens
