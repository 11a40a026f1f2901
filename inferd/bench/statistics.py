"""The increase of a server's `ModelStatistics` under load. Pure."""

from collections.abc import Iterable, Mapping

from inferd._generated.inference import grpc_service_pb2 as oip

_STAGES = ("queue", "compute_input", "compute_infer", "compute_output")


def difference(
    before: Iterable[oip.ModelStatistics] | str, after: Iterable[oip.ModelStatistics] | str
) -> Mapping[str, object]:
    """Return the increase of all versions together, or ``unavailable`` with the reason.

    ``mean_ms`` has the mean time of a request in each stage, ``batches`` the runs by their rows.
    """
    for each in (before, after):
        if isinstance(each, str):
            return {"unavailable": each}
    assert not isinstance(before, str)
    assert not isinstance(after, str)
    first = {(each.name, each.version): each for each in before}
    pairs = [(first.get((each.name, each.version), oip.ModelStatistics()), each) for each in after]
    rows = sum(new.inference_count - old.inference_count for old, new in pairs)
    runs = sum(new.execution_count - old.execution_count for old, new in pairs)
    if rows < 0 or runs < 0:
        return {"unavailable": "the model was loaded again meanwhile"}
    success = sum(new.inference_stats.success.count - old.inference_stats.success.count for old, new in pairs)
    return {
        "rows": rows,
        "runs": runs,
        "mean_batch_rows": rows / runs if runs else None,
        "succeeded": success,
        "failed": sum(new.inference_stats.fail.count - old.inference_stats.fail.count for old, new in pairs),
        "mean_ms": {stage: _mean_ms(pairs, stage) for stage in _STAGES},
        "batches": _batches(pairs),
    }


def _mean_ms(pairs: list[tuple[oip.ModelStatistics, oip.ModelStatistics]], stage: str) -> float | None:
    count = total_ns = 0
    for old, new in pairs:
        earlier, later = getattr(old.inference_stats, stage), getattr(new.inference_stats, stage)
        count += later.count - earlier.count
        total_ns += later.ns - earlier.ns
    return total_ns / count / 1e6 if count > 0 else None


def _batches(pairs: list[tuple[oip.ModelStatistics, oip.ModelStatistics]]) -> dict[str, int]:
    batches: dict[int, int] = {}
    for old, new in pairs:
        earlier = {each.batch_size: each.compute_infer.count for each in old.batch_stats}
        for each in new.batch_stats:
            runs = each.compute_infer.count - earlier.get(each.batch_size, 0)
            batches[each.batch_size] = batches.get(each.batch_size, 0) + runs
    return {str(size): runs for size, runs in sorted(batches.items()) if runs > 0}
