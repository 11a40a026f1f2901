"""Settings of the log."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from inferd.config.section import Section

Level = Literal["debug", "info", "warning", "error"]

#: The name of a logger: that of a module or package.
_LoggerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.\w+)*$")]


class LogFormat(StrEnum):
    """Format of log lines."""

    AUTO = "auto"
    JSON = "json"
    HUMAN = "human"


class LogSettings(Section):
    """Level, format and access log. SIGHUP reloads level, levels and access from the configuration file."""

    level: Level = "info"
    """Least severe level that is written; debug adds a line for each result of a stream."""
    levels: dict[_LoggerName, Level] = Field(default_factory=dict)
    """Levels of single modules and packages, for example {inferd.batching: debug}."""
    format: LogFormat = LogFormat.AUTO
    """json: one object per line; human: text; auto: human on a terminal, json elsewhere."""
    access: bool = True
    """Write a line for each RPC: at info; at warning if it was rejected or late; at error if the server failed."""
    repeats: int = Field(default=20, ge=0, le=1_000_000)
    """Warnings and errors of the same kind to write per repeats_interval_s; further ones are counted and summarized \
in one line. 0 is unlimited. Access lines are never suppressed."""
    repeats_interval_s: float = Field(default=10.0, gt=0.0, le=3600.0)
    """Interval of repeats."""
