"""Serialize the requests of a plan, and request the expected answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from inferd.bench import inputs, tensors
from inferd.bench.plan import Plan
from inferd.bench.retries import Retries
from inferd.bench.server import ModelForm, Server
from inferd.bench.traffic import Arrays, Prepared, TrafficClass
from inferd.bench.workers import Job

# Enough that servers cannot cache one request, and few enough to prepare quickly.
_SAMPLES = 16


def prepare(plan: Plan, server: Server, models: Mapping[str, ModelForm]) -> Job:
    """Return the job of workers. Raises `InferdError` if the server rejects a request, or `InputsError`."""
    prepared: dict[tuple[int, int], Sequence[Prepared]] = {}
    for index, traffic in enumerate(plan.classes):
        for rows in plan.trace_rows() | {traffic.rows}:
            random = np.random.default_rng(plan.seed)
            samples = plan.inputs.samples(models[traffic.model], models.values(), rows, _SAMPLES, random)
            requests = [_request(plan, models, index, rows, arrays) for arrays in samples]
            prepared[index, rows] = _with_expected_answers(plan, server, traffic, requests)
    return Job(
        endpoint=plan.principals[""],
        classes=plan.classes,
        metadata=[plan.principals[each.principal].metadata() for each in plan.classes],
        prepared=prepared,
        retries=Retries(plan.retries),
        objective_s=None if plan.objective_ms is None else plan.objective_ms / 1000,
        tolerance=plan.tolerance or 0.0,
        connections=plan.connections,
        seed=plan.seed,
    )


def _request(plan: Plan, models: Mapping[str, ModelForm], index: int, rows: int, arrays: Arrays) -> Prepared:
    traffic = plan.classes[index]
    message = tensors.request_message(traffic.model, traffic.version, arrays, traffic.priority)
    sent_rows = rows if plan.inputs.file is None else inputs.rows_of(models[traffic.model], arrays)
    return Prepared(index, sent_rows, message, traffic.timeout_s)


def _with_expected_answers(
    plan: Plan, server: Server, traffic: TrafficClass, requests: list[Prepared]
) -> list[Prepared]:
    """Send requests one by one, each a batch of its own; return them with their answers if answers are checked.

    Without a check one request is sent, so that inputs which the server rejects are an error before the load begins.
    """
    metadata = plan.principals[traffic.principal].metadata()
    asked = requests if plan.tolerance is not None else requests[:1]
    answers = [server.infer(request.message, metadata) for request in asked]
    if plan.tolerance is None:
        return requests
    return [
        replace(request, expected=tensors.answer(answer)) for request, answer in zip(requests, answers, strict=True)
    ]
