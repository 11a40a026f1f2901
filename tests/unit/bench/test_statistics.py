"""Differences of a server's statistics."""

from inferd._generated.inference import grpc_service_pb2 as oip
from inferd.bench.statistics import difference


def _statistics(requests, rows, runs, queue_ns, batches, version="1"):
    return oip.ModelStatistics(
        name="m",
        version=version,
        inference_count=rows,
        execution_count=runs,
        inference_stats={
            "success": {"count": requests, "ns": 0},
            "fail": {"count": 1, "ns": 0},
            "queue": {"count": requests, "ns": queue_ns},
        },
        batch_stats=[{"batch_size": size, "compute_infer": {"count": count}} for size, count in batches.items()],
    )


def test_difference_is_what_came_between():
    """Rows, runs, the mean time of a request in each stage, and the batches by size."""
    found = difference(
        [_statistics(10, 100, 20, 5_000_000, {1: 3, 8: 4})], [_statistics(30, 200, 30, 45_000_000, {1: 3, 8: 9, 16: 5})]
    )
    assert found == {
        "rows": 100,
        "runs": 10,
        "mean_batch_rows": 10.0,
        "succeeded": 20,
        "failed": 0,
        "mean_ms": {"queue": 2.0, "compute_input": None, "compute_infer": None, "compute_output": None},
        "batches": {"8": 5, "16": 5},
    }


def test_new_versions_count_from_zero():
    """A version that was loaded meanwhile has no earlier figures."""
    found = difference([], [_statistics(5, 5, 5, 0, {1: 5})])
    assert (found["rows"], found["runs"]) == (5, 5)


def test_servers_without_statistics():
    """The reason is in the report."""
    assert difference("UNIMPLEMENTED: no", []) == {"unavailable": "UNIMPLEMENTED: no"}


def test_counts_that_began_again():
    """A model that was loaded again has no difference."""
    later = difference([_statistics(5, 50, 5, 0, {})], [_statistics(1, 1, 1, 0, {})])
    assert later == {"unavailable": "the model was loaded again meanwhile"}
