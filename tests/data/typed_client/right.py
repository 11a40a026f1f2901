"""A program of somebody who uses the client, checked with ``mypy --strict`` where only the client is installed."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

from inferd.client import (
    TLS,
    AsyncClient,
    Client,
    Compression,
    DeadlineExceeded,
    Delta,
    FinishReason,
    Generated,
    IndexEntry,
    InferdError,
    Inputs,
    MetadataLike,
    ModelConfig,
    ModelInfo,
    ModelState,
    NotFound,
    Overloaded,
    Result,
    RetryPolicy,
    StatusCode,
    StreamInput,
    StreamItem,
    TensorInfo,
    Timing,
)

Arrays = Mapping[str, NDArray[Any]]


def norms(arrays: Arrays) -> dict[str, float]:
    """Take any mapping of arrays, and so a result."""
    return {name: float(np.linalg.norm(array)) for name, array in arrays.items()}


def rows(count: int) -> Iterator[StreamInput]:
    """Make requests for a stream."""
    for number in range(count):
        yield {"X": np.full((1, 64), number, np.float32)}


def forms() -> list[Inputs]:
    """Give inputs in all forms that become arrays."""
    return [{"x": np.zeros((1, 2)), "words": ["a", "b"], "raw": [b"c"]}, {"scale": 0.5, "table": [[1, 2], [3, 4]]}]


def once(client: Client) -> NDArray[Any]:
    """Call with all that a call takes."""
    metadata: MetadataLike = {"tenant": "blue", "trace-bin": b"\x00"}
    result = client.infer(
        "digits",
        {"X": np.zeros((1, 64), np.float32)},
        outputs=["label"],
        version="1",
        priority=1,
        timeout_s=1.5,
        request_id="mine",
        metadata=metadata,
        wait_for_ready=True,
    )
    assert_type(result, Result)
    assert_type(result["label"], NDArray[Any])
    assert_type(result.timing, Timing)
    assert_type(result.timing.queue_s, float)
    assert_type(list(result), list[str])
    assert_type(result.metadata, Mapping[str, str | bytes])
    assert norms(result).keys() == dict(result).keys() == {"label"}
    assert (len(result), "label" in result, result.request_id) == (1, True, "mine")
    return result["label"]


def many(client: Client) -> list[str]:
    """Go through a stream."""
    failed: list[str] = []
    for item in client.stream("digits", rows(3), max_in_flight=8, ordered=True, timeout_s=2):
        assert_type(item, StreamItem)
        if item.error is not None:
            failed.append(f"{item.index}: {item.error.message}")
        else:
            assert_type(item.result(), Result)
    return failed


def told(client: Client) -> str:
    """Generate text, as it comes and whole."""
    with client.generate("story", "Once", max_tokens=8, temperature=0.7, stop=["."], timeout_s=5) as answer:
        for delta in answer:
            assert_type(delta, Delta)
            assert_type(delta.finish_reason, FinishReason | None)
    whole = client.chat("story", [{"role": "user", "content": "hi"}], seed=1).result()
    assert_type(whole, Generated)
    return answer.text + whole.text


def about(client: Client) -> list[tuple[int | str | None, ...]]:
    """Ask for models and readiness."""
    client.wait_until_ready("digits", timeout_s=10)
    assert_type(client.is_ready(), bool)
    assert_type(client.models(), list[ModelInfo])
    inputs = client.model("digits").inputs
    assert_type(inputs, tuple[TensorInfo, ...])
    return [tensor.shape for tensor in inputs]


def controlled(client: Client, content: bytes) -> list[str]:
    """Load and unload a model."""
    config: ModelConfig = {"backend": "onnxruntime", "max_batch_size": 8}
    assert_type(client.load_model("digits", config=config, files={"1/model.onnx": content}), list[ModelInfo])
    client.unload_model("digits", version="1")
    index = client.repository_index(ready=True)
    assert_type(index, list[IndexEntry])
    return [entry.name for entry in index if entry.state is ModelState.READY]


def guarded(client: Client) -> float | None:
    """Tell errors apart, by their classes and by what they say."""
    try:
        client.infer("nothing", forms()[0], request_id="theirs")
    except Overloaded as error:
        assert_type(error.retry_after_s, float | None)
        return error.retry_after_s
    except (NotFound, DeadlineExceeded) as error:
        told = error.status is StatusCode.NOT_FOUND, error.request_id.upper(), "tenant" in error.metadata
        sys.stderr.write(f"{error.reason}{told}")
    except InferdError as error:
        assert_type(error.message, str)
        raise
    return None


async def later(address: str) -> NDArray[Any]:
    """The same with asyncio."""

    async def requests() -> AsyncIterator[StreamInput]:
        for request in rows(2):
            yield request

    async with AsyncClient(address, timeout_s=5) as client:
        await client.wait_until_ready("digits", timeout_s=10)
        result = await client.infer("digits", {"X": np.zeros((1, 64), np.float32)}, metadata=[("tenant", "blue")])
        assert_type(result, Result)
        async for item in client.stream("digits", requests()):
            assert_type(item, StreamItem)
            assert_type(item.result()["label"], NDArray[Any])
        assert_type(await client.models(), list[ModelInfo])
    return result["label"]


async def told_later(client: AsyncClient) -> int:
    """The same with asyncio."""
    async with client.chat("story", "hi") as answer:
        async for delta in answer:
            assert_type(delta, Delta)
    whole = await client.generate("story", [1, 2], logprobs=3).result()
    assert_type(whole, Generated)
    return whole.usage.generated_tokens


def main(address: str) -> None:
    """Call a server."""
    tls = TLS(ca="ca.pem") if address.endswith(":443") else None
    with Client(address, tls=tls, token=None, retry=RetryPolicy(), compression=Compression.NoCompression) as client:
        assert (guarded(client), many(client), once(client).shape) == (None, [], (1,))
        sys.stdout.write(f"{about(client)}")
    assert asyncio.run(later(address)).shape == (1,)


if __name__ == "__main__":
    main(sys.argv[1])
