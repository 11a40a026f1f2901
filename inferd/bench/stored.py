"""Reads reports from files, and checks what comparisons need of them."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from inferd.bench.report import SCHEMA, Report

#: Replace messages of pydantic that name Python types, or parts of this module.
_EXPECTED = {
    "model_type": "expected an object",
    "dict_type": "expected an object",
    "union_tag_not_found": "expected its kind in it",
}


class ReportError(ValueError):
    """A file is no report; the message says what was expected and what came."""


class _Closed(BaseModel):
    kind: Literal["closed"]
    concurrency: int


class _Open(BaseModel):
    kind: Literal["open"]
    process: str
    rate_per_s: float


class _Trace(BaseModel):
    kind: Literal["trace"]
    requests: int


class _Goodput(BaseModel):
    share: float | None


class _Step(BaseModel):
    load: Annotated[_Closed | _Open | _Trace, Field(discriminator="kind")]
    requests: int
    failed: int
    throughput_per_s: float
    rows_per_s: float
    goodput: _Goodput
    latency_ms: dict[str, float | None] | None


class _Plan(BaseModel):
    classes: list[dict[str, Any]] = Field(default_factory=list)


class _Report(BaseModel):
    steps: list[_Step]
    plan: _Plan


def read(path: Path) -> Report:
    """Read a report. Raises `ReportError` or `OSError`."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: expected a report as JSON, got {error}") from None
    schema = report.get("schema") if isinstance(report, dict) else None
    if schema != SCHEMA:
        raise ReportError(f"{path}: schema: expected {SCHEMA}, got {schema or 'none'}")
    try:
        _Report.model_validate(report, strict=True)
    except ValidationError as error:
        raise ReportError(f"{path}: {_text(error.errors(include_url=False)[0])}") from None
    return dict(report)


def _text(error: ErrorDetails) -> str:
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"{name}: expected one, got none"
    expected = _EXPECTED.get(error["type"]) or error["msg"].replace("Input should be", "expected")
    return f"{name}: {expected}, got {type(error['input']).__name__}"
