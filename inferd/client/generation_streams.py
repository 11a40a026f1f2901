"""Streamed answers of language models, for both clients."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from types import TracebackType
from typing import Self

from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd.client.errors import Cancelled, InferdError
from inferd.client.generation import Delta, Generated
from inferd.client.generation_messages import Collected


class _Stream:
    """Shared by both: the output so far, and how it ended."""

    def __init__(self, answer: Collected) -> None:
        self._answer = answer
        self._failure: InferdError | None = None

    @property
    def text(self) -> str:
        """The text that has come so far."""
        return self._answer.text

    @property
    def model(self) -> str:
        """The model that generates; empty until something has come."""
        return self._answer.model

    @property
    def version(self) -> str:
        """The version that generates; empty until something has come."""
        return self._answer.version

    def _whole(self) -> Generated:
        if self._failure is not None:
            raise self._failure
        return self._answer.whole()

    def _failed(self, error: InferdError) -> InferdError:
        error.request_id = self._answer.request_id or error.request_id
        self._failure = error
        return error

    def _closed(self) -> None:
        if not self._answer.is_complete and self._failure is None:
            self._failure = Cancelled("the answer was closed before its end", request_id=self._answer.request_id)


class Generation(_Stream, Iterator[Delta]):
    """An answer as it comes: an iterator of deltas. The request is sent when the first is asked for.

    `close`, leaving the ``with`` block, and dropping the object cancel the request. Used by one thread at a time.
    """

    def __init__(self, responses: Generator[pb.GenerateResponse, None, None], answer: Collected) -> None:
        super().__init__(answer)
        self._responses = responses

    def __next__(self) -> Delta:
        try:
            return self._answer.add(next(self._responses))
        except InferdError as error:
            raise self._failed(error) from None
        except StopIteration:
            self._whole()
            raise

    def result(self) -> Generated:
        """Wait for the end and return the whole answer, with what has been iterated over. Raises `InferdError`."""
        for _ in self:
            pass
        return self._whole()

    def close(self) -> None:
        """Cancel the request, unless it has ended."""
        self._responses.close()
        self._closed()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncGeneration(_Stream, AsyncIterator[Delta]):
    """As `Generation`, with coroutines. Cancelling the task that waits for a delta cancels the request too."""

    def __init__(self, responses: AsyncGenerator[pb.GenerateResponse, None], answer: Collected) -> None:
        super().__init__(answer)
        self._responses = responses

    async def __anext__(self) -> Delta:
        try:
            return self._answer.add(await anext(self._responses))
        except InferdError as error:
            raise self._failed(error) from None
        except StopAsyncIteration:
            self._whole()
            raise

    async def result(self) -> Generated:
        """Wait for the end and return the whole answer, with what has been iterated over. Raises `InferdError`."""
        async for _ in self:
            pass
        return self._whole()

    async def aclose(self) -> None:
        """Cancel the request, unless it has ended."""
        await self._responses.aclose()
        self._closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
