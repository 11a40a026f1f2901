"""All loggers of the process produce the same lines."""

import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from inferd.config.logging import LogSettings
from inferd.observability.logging.setup import configure, renderer
from inferd.observability.logging.writer import LineWriter
from inferd.plain_text import escaped
from tests.unit.observability.fakes import Sink


class Configured:
    """Logging configured for the process, with a sink to inspect."""

    def __init__(self, **settings: object) -> None:
        self.sink = Sink()
        self._writer = LineWriter(self.sink)
        parsed = LogSettings.model_validate(settings)
        self.control = configure(parsed, self._writer, renderer(parsed.format))

    @property
    def records(self) -> list[dict[str, object]]:
        self._writer.stop()
        return self.sink.records

    @property
    def text(self) -> str:
        self._writer.stop()
        return b"".join(self.sink.writes).decode()


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("inferd")
    before = (list(root.handlers), root.level, ours.level)
    yield
    for name in ("inferd.batching", "inferd.rpc", "asyncio"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    root.handlers[:], level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def test_context_variables_are_in_each_line() -> None:
    """Of standard loggers too; fields of the line take precedence."""
    logs = Configured()
    with structlog.contextvars.bound_contextvars(model="digits", version="1"):
        logging.getLogger("inferd.runtime").warning("first")
        logging.getLogger("inferd.runtime").warning("second", extra={"version": "2"})
    logging.getLogger("inferd.runtime").warning("third")
    assert [(each.get("model"), each.get("version")) for each in logs.records] == [
        ("digits", "1"),
        ("digits", "2"),
        (None, None),
    ]


def test_standard_loggers() -> None:
    """Arguments are formatted, extras become fields."""
    logs = Configured()
    logging.getLogger("inferd.batching").warning("slow batch of %d", 3, extra={"model": "digits"})
    (record,) = logs.records
    assert list(record)[:4] == ["time", "level", "event", "logger"]
    assert (record["level"], record["event"], record["logger"], record["model"]) == (
        *("warning", "slow batch of 3", "inferd.batching", "digits"),
    )


def test_structlog_loggers() -> None:
    """The same line, from keywords."""
    logs = Configured()
    structlog.get_logger("inferd.app").info("serving", port=8001)
    (record,) = logs.records
    assert list(record) == ["time", "level", "event", "logger", "port"]
    assert (record["event"], record["logger"], record["port"]) == ("serving", "inferd.app", 8001)


def test_loggers_of_libraries() -> None:
    """For example that of grpc."""
    logs = Configured()
    logging.getLogger("grpc._cython").error("bad")
    assert [record["logger"] for record in logs.records] == ["grpc._cython"]


def fail() -> None:
    secret = "hunter2"  # a local variable that must not be shown
    raise ValueError(f"wrong ({len(secret)})")


def test_exceptions_as_fields() -> None:
    """Type, text and frames in one line; no local variables."""
    logs = Configured()
    try:
        fail()
    except ValueError:
        logging.getLogger("inferd").exception("failed")
    (record,) = logs.records
    (exception,) = record["exception"]
    assert (exception["exc_type"], exception["exc_value"]) == ("ValueError", "wrong (7)")
    assert exception["frames"][-1]["name"] == "fail"
    assert b"hunter2" not in logs.sink.writes[0]


def test_exceptions_in_human_format() -> None:
    """A usual traceback."""
    logs = Configured(format="human")
    try:
        fail()
    except ValueError:
        structlog.get_logger("inferd").exception("failed")
    assert "failed" in logs.text.splitlines()[0]
    assert logs.text.rstrip().endswith("ValueError: wrong (7)")


@pytest.mark.parametrize("style", ["human", "json"])
def test_escapes_text_of_exceptions(style: str) -> None:
    """It may quote a caller; the same holds for the cause."""
    logs = Configured(format=style)
    error = RuntimeError("worse\nFORGED\u202e")
    error.__cause__ = ValueError("bad\nFORGED\x1b[31m")
    logging.getLogger("inferd").error("failed\nFORGED", exc_info=error)
    assert not [line for line in logs.text.splitlines() if line.startswith("FORGED")]
    assert logs.text == escaped(logs.text, keep="\n")
    if style == "human":
        lines = logs.text.splitlines()
        assert {r"ValueError: bad\x0aFORGED\x1b[31m", r"RuntimeError: worse\x0aFORGED\u202e"} <= set(lines)
        assert sum(line.startswith("The above exception was the direct cause") for line in lines) == 1


@pytest.mark.parametrize(
    ("level", "ours", "others"), [("debug", 4, 3), ("info", 3, 3), ("warning", 2, 2), ("error", 1, 1)]
)
def test_levels(level: str, ours: int, others: int) -> None:
    """At debug, libraries stay at info."""
    logs = Configured(level=level)
    for name in ("inferd.rpc", "asyncio"):
        for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger(name).log(number, "x")
    names = [record["logger"] for record in logs.records]
    assert (names.count("inferd.rpc"), names.count("asyncio")) == (ours, others)


def test_logs_python_warnings() -> None:
    """For example deprecations in libraries."""
    logs = Configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old", stacklevel=1)
    (record,) = logs.records
    assert record["logger"] == "py.warnings"
    assert "old" in record["event"]


def test_invalid_log_call_does_not_raise(capsys: pytest.CaptureFixture[str]) -> None:
    """The error is printed on stderr, and the next line is written."""
    logs = Configured()
    logging.getLogger("inferd").info("%d rows", "three")
    logging.getLogger("inferd").info("next")
    assert [record["event"] for record in logs.records] == ["next"]
    assert "three" in capsys.readouterr().err


def test_configures_again() -> None:
    """No line is written twice."""
    first, second = Configured(), Configured()
    logging.getLogger("inferd").info("once")
    assert (len(first.records), len(second.records)) == (0, 1)


def test_levels_of_modules() -> None:
    """Below and above the general level, inherited by submodules."""
    configured = Configured(level="info", levels={"inferd.batching": "debug", "inferd.rpc": "error"})
    logging.getLogger("inferd.batching.queue").debug("seen")
    logging.getLogger("inferd.models").debug("unseen")
    logging.getLogger("inferd.rpc").warning("unseen")
    assert [record["event"] for record in configured.records] == ["seen"]


def test_changes_levels() -> None:
    """A logger that is no longer named has the general level again."""
    configured = Configured(levels={"inferd.batching": "debug", "asyncio": "error"})
    configured.control.change(LogSettings.model_validate({"level": "warning", "levels": {"inferd.rpc": "info"}}))
    logging.getLogger("inferd.batching").info("unseen")
    logging.getLogger("inferd.rpc").info("seen")
    logging.getLogger("asyncio").warning("seen, too")
    assert [record["event"] for record in configured.records] == ["seen", "seen, too"]


def test_summarizes_repeated_lines() -> None:
    """From both kinds of loggers, with the number of suppressed lines."""
    configured = Configured(repeats=1)
    for number in range(3):
        logging.getLogger("inferd.x").warning("number %d", number, extra={"fact": number})
        structlog.get_logger("inferd.y").error("said", number=number)
    configured.control.flush()
    lines = [(record["event"], record.get("repeated"), record["logger"]) for record in configured.records]
    assert lines == [
        ("number 0", None, "inferd.x"),
        ("said", None, "inferd.y"),
        ("number 2", 2, "inferd.x"),
        ("said", 2, "inferd.y"),
    ]


@pytest.mark.parametrize("name", ["", "inferd.", "a b", "1x"])
def test_rejects_names_that_no_module_can_have(name: str) -> None:
    """Most likely misspelled."""
    with pytest.raises(ValueError, match="pattern"):
        LogSettings.model_validate({"levels": {name: "debug"}})
