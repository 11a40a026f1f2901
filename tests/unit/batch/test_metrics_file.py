"""The file for a textfile collector."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inferd.batch.errors import BatchError
from inferd.batch.metrics_file import MetricsFile
from inferd.batch.progress import Progress


def test_all_metrics_are_in_the_file(tmp_path) -> None:
    """The file can be parsed, and has no time left while nothing is known of it."""
    progress = Progress(lambda: 100.0)
    progress.enter("running")
    progress.resume(total_rows=10, total_parts=2, rows=4, errors=1, parts=1)
    path = tmp_path / "job.prom"
    MetricsFile(str(path), 3, progress.snapshot).write()
    samples = {
        sample.name: (sample.value, sample.labels)
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }
    assert samples["inferd_batch_rows_done"] == (4, {"index": "3"})
    assert samples["inferd_batch_error_rows"] == (1, {"index": "3"})
    assert samples["inferd_batch_phase"] == (1, {"index": "3", "phase": "running"})
    assert "inferd_batch_left_seconds" not in samples


def test_file_that_cannot_be_written_is_named(tmp_path, caplog) -> None:
    """The error names the option and the file, and leaves no temporary; a job that runs is only warned of it."""
    metrics = MetricsFile(str(tmp_path / "nowhere" / "job.prom"), 0, Progress().snapshot)
    with pytest.raises(BatchError, match=r"--metrics-file .*job\.prom: No such file or directory"):
        metrics.write()
    metrics.refresh()
    [warning] = caplog.messages
    assert warning.startswith("--metrics-file ")
    assert list(tmp_path.iterdir()) == []
