"""The simulation of scaling agrees with the rules and the server."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from scripts.simulate_scaling import (
    DECIDE_S,
    MID,
    SCRAPE_S,
    Autoscaler,
    Cost,
    Replica,
    judged_load,
    offered_load,
    simulate,
)
from tests.chart.rendering import PATIENCE_S
from tests.prometheus import PROMTOOL, RULES

_SERVERS_OWN = {
    "offered": "inferd_offered_rows_total",
    "served": "inferd_batch_rows_sum",
    "busy_s": "inferd_inference_duration_seconds_sum",
    "best_rows_per_s": "inferd_model_capacity_rows_per_second",
}


def _series(replicas: list[Replica], end_s: int) -> list[dict[str, str]]:
    """Return the scrapes for promtool: a value every `SCRAPE_S`, none before a replica exists."""
    series = []
    for number, replica in enumerate(replicas):
        scraped = dict(replica.scrapes)
        for name, metric in _SERVERS_OWN.items():
            values = [f"{scraped[at][name]!r}" if at in scraped else "_" for at in range(0, end_s, SCRAPE_S)]
            labels = f'namespace="ns", job="rel", instance="{number}", model="m", version="1"'
            series.append({"series": f"{metric}{{{labels}}}", "values": " ".join(values)})
        labels = f'namespace="ns", job="rel", instance="{number}", model="m", version="1"'
        present = ["1" if at in scraped else "_" for at in range(0, end_s, SCRAPE_S)]
        series.append({"series": f"inferd_model_instances{{{labels}}}", "values": " ".join(present)})
    return series


@pytest.mark.parametrize(
    ("query", "formula"),
    [
        ("sum(inferd:offered_load:replicas)", offered_load),
        ("sum(inferd:offered_load:ratio2m) * sum(inferd_model_instances)", judged_load),
    ],
)
def test_formulas_equal_recording_rules(
    query: str, formula: Callable[[list[Replica], float], float], tmp_path: Path
) -> None:
    """By promtool over the same scrapes, including those of new replicas."""
    end_s = 600
    replicas = [Replica(ready_at=0.0), Replica(ready_at=0.0), Replica(ready_at=480.0)]
    expected = {}
    for now in range(end_s):
        ready = [replica for replica in replicas if replica.ready_at <= now]
        for replica in ready:
            replica.serve(MID, (200 + now) * 25 / len(ready))
            if now % SCRAPE_S == 0:
                replica.scrape(now)
        if now in {300, 525, 585}:
            expected[now] = formula(ready, now)
    cases = [
        {"expr": f"abs({query} / {value} - 1) < bool 0.001", "eval_time": f"{at}s", "exp_samples": [{"value": 1}]}
        for at, value in expected.items()
    ]
    test = {"interval": f"{SCRAPE_S}s", "input_series": _series(replicas, end_s), "promql_expr_test": cases}
    whole = {"rule_files": [str(RULES / "recording.yaml")], "evaluation_interval": f"{SCRAPE_S}s", "tests": [test]}
    (tmp_path / "simulated.test.yaml").write_text(yaml.safe_dump(whole))
    command = [PROMTOOL, "test", "rules", tmp_path / "simulated.test.yaml"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr


def _steady(times: float, cost: Cost = MID) -> Callable[[float], float]:
    return lambda _: times * cost.capacity


@pytest.mark.parametrize("times", [3.0, 7.0, 14.0])
def test_steady_load_gets_expected_replicas(times: float) -> None:
    """Seven tenths busy, within the tolerance of a tenth of Kubernetes."""
    course, _ = simulate(MID, _steady(times), Autoscaler(metric=offered_load), seconds=3600)
    assert times / 0.7 <= course.replicas[-1] <= 1.1 * times / 0.7 + 1
    assert len(set(course.replicas[-900:])) == 1, "it does not go up and down"
    assert sum(course.refused[-900:]) == 0


def test_present_cost_of_rows_would_run_away() -> None:
    """More replicas make batches smaller and rows more expensive, which is why the rule uses the best batches."""
    found, _ = simulate(MID, _steady(4.0), Autoscaler(metric=offered_load), seconds=3600)
    judged, _ = simulate(MID, _steady(4.0), Autoscaler(metric=judged_load), seconds=3600)
    assert found.replicas[-1] == 6
    assert judged.replicas[-1] > 20


def test_scales_up_to_five_times_the_load() -> None:
    """Rejected requests count as load, so the signal does not stop at the throughput."""
    scaler = Autoscaler(metric=offered_load)
    course, _ = simulate(MID, lambda now: MID.capacity * (1.4 if now < 1200 else 6.8), scaler, seconds=2400)
    refused = [second for second, rows in enumerate(course.refused) if rows]
    assert refused[0] == pytest.approx(1200, abs=2)
    assert refused[-1] < 1200 + 180
    assert course.replicas[-1] == 10


def test_scales_down_slowly() -> None:
    """Not within five minutes, and then a quarter per minute."""
    scaler = Autoscaler(metric=offered_load)
    course, _ = simulate(MID, lambda now: MID.capacity * (6.8 if now < 1200 else 1.0), scaler, seconds=3000)
    assert min(course.replicas[1200 : 1200 + 300 - DECIDE_S]) == 10
    assert course.replicas[-1] == 2
    for second in range(1200, 3000 - 60):
        assert course.replicas[second + 60] >= int(0.75 * int(0.75 * course.replicas[second]))
